"""A line chart as SVG, readable on light and dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 48, 84


@dataclass(frozen=True, slots=True)
class Line:
    """points: (x, y) in order of x. colour: CSS. dashed: for what is rather not wanted."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False


def svg(title: str, across: str, up: str, lines: Sequence[Line], *, top: float = 100.0) -> str:
    """Return one chart; y runs from 0 to `top`, x from 0 to the largest of all points."""
    right = max(x for line in lines for x, _ in line.points) or 1.0
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * x / right, TOP + high * (1 - y / top)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        "<style>text{fill:#333}.grid{stroke:#ddd}.page{fill:#fff}"
        "@media (prefers-color-scheme: dark){text{fill:#ddd}.grid{stroke:#444}.page{fill:#16181d}}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text x="{LEFT}" y="26" font-size="16" font-weight="600">{escape(title)}</text>',
    ]
    for step in range(6):
        x, y = place(0, top * step / 5)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{top * step / 5:g}</text>')
        x, y = place(right * step / 5, 0)
        out.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{right * step / 5:g}</text>')
    out.append(f'<text x="{LEFT + wide / 2:.0f}" y="{TOP + high + 38}" text-anchor="middle">{escape(across)}</text>')
    middle = TOP + high / 2
    turned = f'transform="rotate(-90 16 {middle:.0f})"'
    out.append(f'<text {turned} x="16" y="{middle:.0f}" text-anchor="middle">{escape(up)}</text>')
    for index, line in enumerate(lines):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        stroke = f'stroke="{line.colour}" stroke-width="2.5"' + (' stroke-dasharray="6 4"' if line.dashed else "")
        out.append(f'<polyline fill="none" {stroke} points="{points}"/>')
        x, y = LEFT + index % 2 * wide / 2, HEIGHT - 28 + index // 2 * 18
        out.append(f'<line x1="{x:.0f}" x2="{x + 28:.0f}" y1="{y - 4}" y2="{y - 4}" {stroke}/>')
        out.append(f'<text x="{x + 36:.0f}" y="{y}">{escape(line.name)}</text>')
    return "\n".join([*out, "</svg>", ""])
