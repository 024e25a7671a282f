"""Session-wide fixtures; puts the repository root on sys.path for `from tests.support import build`."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The folder of real material: GBGW_FIXTURES, or ../shared/fixtures beside the repository.

    Absent: skip, unless somebody promised it (GBGW_FIXTURES is set, or this is CI): then fail.
    """
    named = os.environ.get("GBGW_FIXTURES")
    folder = Path(named) if named else ROOT.parent / "shared" / "fixtures"
    if folder.is_dir():
        return folder
    if named or os.environ.get("CI"):
        pytest.fail(f"the fixtures folder {folder} is missing although {'GBGW_FIXTURES' if named else 'CI'} is set")
    pytest.skip(f"no fixtures folder at {folder}; set GBGW_FIXTURES")
