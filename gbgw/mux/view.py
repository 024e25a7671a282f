"""Where a simulated camera looks, and the test pattern as it looks from there."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FIELD: Final = (60.0, 34.0)  # degrees that one picture shows without zoom, across and down
Plane = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """pan: degrees clockwise seen from above; tilt: degrees downwards; zoom: magnification."""

    pan: float = 0.0
    tilt: float = 0.0
    zoom: float = 1.0

    @property
    def width(self) -> float:
        """Degrees that the picture shows."""
        return FIELD[0] / self.zoom

    @property
    def height(self) -> float:
        return FIELD[1] / self.zoom


AHEAD: Final = View()


def look(scene: Plane, view: View) -> Plane:
    """Return a plane as it looks from `view`: the scene goes on without end in all directions."""
    height, width = scene.shape
    rows = ((np.arange(height) - height / 2) / view.zoom + height / 2 + view.tilt / FIELD[1] * height) % height
    columns = ((np.arange(width) - width / 2) / view.zoom + width / 2 + view.pan / FIELD[0] * width) % width
    return np.ascontiguousarray(scene[rows.astype(np.intp)][:, columns.astype(np.intp)])
