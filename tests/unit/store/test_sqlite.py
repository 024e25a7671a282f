import asyncio
import json
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from gbgw.base import limits
from gbgw.base.errors import ConfigError
from gbgw.gb.manscdp import CatalogItem
from gbgw.gb.registrar import Binding
from gbgw.sip.flow import Flow
from gbgw.store import sqlite as store_module
from gbgw.store.base import AuditRow, Device, Store, StoredCatalog, StoredDialog, StoreError, Token
from gbgw.store.sqlite import BATCH_SECONDS, VERSION, SqliteStore

CAMERA = "34020000001320000001"
FLOW = Flow("udp", ("198.51.100.5", 5060), ("192.0.2.10", 5060))
BINDING = Binding(CAMERA, FLOW, f"sip:{CAMERA}@10.0.0.7", "reg1", 2, 1_770_000_000.5, "3.0", "Vendor/1")
DEVICE = Device(CAMERA, "Gate", "a" * 32, "b" * 64, True, True, True, "V", "M", "F", "3.0", "tcp-passive", 1.5, 2.5)
DIALOG = StoredDialog(
    "call", "tag", f"{CAMERA}-{CAMERA}", "sip:a@b", "sip:c@d", FLOW, 1, 3.5, ssrc="0200000001", port=30000
)
ITEM = CatalogItem(CAMERA, "门", parent_ids=("1", "2"), online=False, longitude=1.5, stream_numbers=(0, 1))


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "gbgw.db")
    yield store
    await store.close()


async def test_it_is_a_store(store: SqliteStore) -> None:
    """The assignment is what mypy checks: every method of the Protocol with its signature; here only that none is
    missing."""
    whole: Store = store
    assert [name for name in vars(Store) if not name.startswith("_") and not callable(getattr(whole, name, None))] == []


async def reopened(store: SqliteStore) -> SqliteStore:
    await store.close()
    return await SqliteStore.open(store.path)


async def test_everything_survives(store: SqliteStore) -> None:
    token = Token("ab" * 32, "admin", frozenset({"admin", "view"}), 1.5, None)
    await store.put_token(token)
    await store.put_device(DEVICE)
    store.save_device(Device("door_7"))
    store.save_binding(BINDING)
    store.save_catalog(CAMERA, [ITEM, CatalogItem("2")], complete=True, updated=7.0)
    await store.dialog_opening(DIALOG)
    again = await reopened(store)
    try:
        assert await again.tokens() == [token]
        assert await again.devices() == [DEVICE, Device("door_7")]
        assert await again.bindings() == [BINDING]
        assert await again.catalogs() == [StoredCatalog(CAMERA, (ITEM, CatalogItem("2")), True, 7.0)]
        assert await again.dialogs() == [DIALOG]
    finally:
        await again.close()


async def test_tokens_are_replaced_and_deleted(store: SqliteStore) -> None:
    await store.put_token(Token("h", "a", frozenset(), 1.0, 2.0))
    await store.put_token(Token("h", "b", frozenset({"view"}), 1.0, 3.0))
    assert await store.tokens() == [Token("h", "b", frozenset({"view"}), 1.0, 3.0)]
    assert await store.delete_token("h") is True
    assert await store.delete_token("h") is False


async def test_partial_catalogs_delete_nothing(store: SqliteStore) -> None:
    items = [CatalogItem(str(n)) for n in range(4)]
    store.save_catalog(CAMERA, items, complete=True, updated=1.0)
    store.save_catalog(CAMERA, [CatalogItem("2", "new"), CatalogItem("9")], complete=False, updated=2.0)
    (catalog,) = await store.catalogs()
    assert [(item.device_id, item.name) for item in catalog.items] == [
        ("0", ""),
        ("1", ""),
        ("2", "new"),
        ("3", ""),
        ("9", ""),
    ]
    assert (catalog.complete, catalog.updated) == (False, 2.0)
    store.save_catalog(CAMERA, [CatalogItem("2")], complete=True, updated=3.0)
    assert [item.device_id for item in (await store.catalogs())[0].items] == ["2"]


async def test_deleting_a_device_takes_what_it_had(store: SqliteStore) -> None:
    await store.put_device(DEVICE)
    store.save_binding(BINDING)
    store.save_catalog(CAMERA, [ITEM], complete=True, updated=1.0)
    assert await store.delete_device(CAMERA) is True
    assert (await store.devices(), await store.bindings(), await store.catalogs()) == ([], [], [])
    assert await store.delete_device(CAMERA) is False


async def test_bindings_come_and_go_in_order(store: SqliteStore) -> None:
    for _ in range(10):
        store.save_binding(BINDING)
        store.forget_binding(CAMERA)
    assert await store.bindings() == []
    store.forget_binding(CAMERA)
    store.save_binding(BINDING)
    assert await store.bindings() == [BINDING]


def on_disk(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as other:
        return int(other.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def test_the_dialog_is_on_disk_before_the_invite_leaves(store: SqliteStore) -> None:
    await store.dialog_opening(DIALOG)
    assert on_disk(store.path, "dialogs") == 1  # seen by another connection: committed
    confirmed = StoredDialog(
        "call",
        "tag",
        DIALOG.key,
        "sip:a@b",
        "sip:c@d",
        FLOW,
        2,
        3.5,
        "remote",
        "sip:e@f",
        ("<sip:r;lr>",),
        "0200000001",
        30000,
    )
    store.dialog_confirmed(confirmed)
    assert await store.dialogs() == [confirmed]
    store.dialog_closed("call", "tag")
    assert await store.dialogs() == []


async def test_writes_are_gathered(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    commit = store_module._commit

    def counted(connection: sqlite3.Connection, writes: list[store_module.Write]) -> list[object]:
        batches.append(len(writes))
        return commit(connection, writes)

    monkeypatch.setattr(store_module, "_commit", counted)
    for n in range(50):
        store.save_binding(Binding(str(n), FLOW, "", "", 1, 1.0))
    assert on_disk(store.path, "bindings") == 0
    await asyncio.sleep(2 * BATCH_SECONDS)
    await store._run(lambda: None)  # the thread is through with what came before
    assert on_disk(store.path, "bindings") == 50
    assert batches == [50]
    for n in range(limits.STORE_BATCH):
        store.forget_binding(str(n))
    await store.flush()
    assert batches == [50, limits.STORE_BATCH, 1]


async def test_all_statements_run_on_one_named_thread(store: SqliteStore) -> None:
    names: set[str] = set()
    for _ in range(3):
        await store._durable(lambda _: names.add(threading.current_thread().name))
    assert names == {"store_0"}


async def test_a_failed_batch_is_told(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store._later(store_module._statement("INSERT INTO nowhere VALUES (?)", (1,)))
    with pytest.raises(StoreError) as caught:
        await store._durable(store_module._statement("INSERT INTO nowhere VALUES (?)", (1,)))
    assert caught.value.remedy
    await store.flush()
    assert store.failure is not None
    assert "nowhere" in store.failure.message
    await store.put_device(DEVICE)  # the connection is usable afterwards
    assert await store.devices() == [DEVICE]


async def test_a_slow_disk_drops_instead_of_growing(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(limits, "STORE_BATCH", 1)
    monkeypatch.setattr(limits, "STORE_BATCHES", 3)
    store._later(lambda _: release.wait(10))
    for n in range(10):
        store.save_binding(Binding(str(n), FLOW, "", "", 1, 1.0))
    assert store._in_flight == 3
    assert store.failure is not None
    assert store.failure.code == "store_slow"
    release.set()
    assert len(await store.bindings()) == 2
    await store.flush()
    assert store._in_flight == 0


async def test_close_flushes_and_is_idempotent(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "gbgw.db")
    store.save_binding(BINDING)
    await store.close()
    await store.close()
    assert on_disk(store.path, "bindings") == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store_")]
    with pytest.raises(StoreError):
        store.save_binding(BINDING)
    with pytest.raises(StoreError):
        await store.put_device(DEVICE)
    with pytest.raises(StoreError):
        await store.devices()


async def test_the_file_is_private_and_versioned(store: SqliteStore) -> None:
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600
    with closing(sqlite3.connect(store.path)) as other:
        assert other.execute("PRAGMA user_version").fetchone()[0] == VERSION
        assert other.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


async def test_a_newer_file_is_refused(store: SqliteStore) -> None:
    await store.close()
    with closing(sqlite3.connect(store.path)) as other:
        other.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(ConfigError) as caught:
        await SqliteStore.open(store.path)
    assert caught.value.code == "store_newer"
    assert caught.value.remedy


async def test_foreign_and_broken_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "other.db"
    with closing(sqlite3.connect(foreign)) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ConfigError) as caught:
        await SqliteStore.open(foreign)
    assert caught.value.code == "store_foreign"
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    for path in (broken, tmp_path, tmp_path / "missing" / "gbgw.db"):
        with pytest.raises(ConfigError) as caught:
            await SqliteStore.open(path)
        assert caught.value.code == "store_unusable"
        assert str(path) in caught.value.message


async def test_a_failed_migration_leaves_the_file_as_it_was(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_device(DEVICE)
    await store.close()
    bad = (*store_module.MIGRATIONS, "CREATE TABLE extra (x); CREATE TABLE devices (x);")
    monkeypatch.setattr(store_module, "MIGRATIONS", bad)
    monkeypatch.setattr(store_module, "VERSION", len(bad))
    with pytest.raises(ConfigError):
        await SqliteStore.open(store.path)
    monkeypatch.undo()
    again = await SqliteStore.open(store.path)
    assert await again.devices() == [DEVICE]
    assert await again._read("SELECT name FROM sqlite_master WHERE name = 'extra'") == []
    await again.close()


async def test_items_of_another_release_are_read(store: SqliteStore) -> None:
    store.save_catalog(CAMERA, [CatalogItem("1", "kept")], complete=True, updated=1.0)
    text = json.dumps({"device_id": "1", "name": "kept", "field_of_tomorrow": 5})
    await store._durable(store_module._statement("UPDATE channels SET item = ?", (text,)))
    assert (await store.catalogs())[0].items == (CatalogItem("1", "kept"),)


def command(number: int, device_id: str = CAMERA) -> AuditRow:
    return AuditRow(0, float(number), "t1", "Ann", "192.0.2.7", f"action.{number}", device_id, "", "ok", '{"n":"门"}')


async def test_the_audit_log_survives_and_is_read_backwards(store: SqliteStore) -> None:
    for number in range(5):
        store.add_audit(command(number, CAMERA if number % 2 else "door_7"))
    again = await reopened(store)
    try:
        rows = await again.audit(2)
        assert [row.action for row in rows] == ["action.4", "action.3"]
        assert [row.action for row in await again.audit(9, before=rows[-1].id)] == ["action.2", "action.1", "action.0"]
        assert [row.action for row in await again.audit(9, device_id=CAMERA)] == ["action.3", "action.1"]
        assert rows[0] == replace(command(4, "door_7"), id=rows[0].id)
    finally:
        await again.close()


async def test_the_audit_log_keeps_the_newest(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUDIT_ROWS", 3)
    for number in range(10):
        store.add_audit(command(number))
    assert [row.action for row in await store.audit(99)] == ["action.9", "action.8", "action.7"]
    assert await store.delete_device(CAMERA) is False
    assert len(await store.audit(99)) == 3, "what was done to a device outlives it"


async def test_a_file_of_the_first_version_gets_its_audit_log(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"{store_module.MIGRATIONS[0]};PRAGMA user_version = 1;")
        old.execute("INSERT INTO tokens VALUES ('ab', 'old', 'view', 1.0, NULL)")
        old.commit()
    store = await SqliteStore.open(path)
    try:
        store.add_audit(command(1))
        assert len(await store.audit(9)) == 1
        assert [token.name for token in await store.tokens()] == ["old"]
    finally:
        await store.close()
