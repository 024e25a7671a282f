"""One store, one gateway; and a write that nobody waits for is not lost in silence."""

from pathlib import Path

import pytest

from gbgw.base.errors import ConfigError
from gbgw.base.tally import Tally
from gbgw.store.sqlite import SqliteStore


async def test_a_second_gateway_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "gbgw.db"
    first = await SqliteStore.open(path)
    with pytest.raises(ConfigError) as caught:
        await SqliteStore.open(path)
    assert caught.value.code == "store_in_use"
    await first.close()
    again = await SqliteStore.open(path)
    await again.close()


async def test_a_failed_write_is_told_and_forgotten_with_the_next_success(tmp_path: Path) -> None:
    tally = Tally()
    store = await SqliteStore.open(tmp_path / "gbgw.db", tally=tally)
    store._later(lambda connection: connection.execute("INSERT INTO nothing VALUES (1)"))
    await store.flush()
    assert store.failure is not None
    assert "nothing" in str(store.failure)
    assert tally["store.failed"] == 1
    store.forget_binding("34020000001320000001")
    await store.flush()
    assert store.failure is None
    await store.close()
