"""Session-wide fixtures; puts the repository root on sys.path for `from tests.support import build`."""

import inspect
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

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


@pytest.fixture(autouse=True)
def leak_gate(request: pytest.FixtureRequest) -> None:
    """Every async test must leave no task, file, thread or process behind."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_nothing_left")


@pytest_asyncio.fixture
async def _nothing_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    from tests.support import leaks

    before = leaks.Snapshot.take()
    yield
    left = await leaks.settle_and_compare(before)
    assert not left, f"left behind by {request.node.name}: " + "; ".join(left)
