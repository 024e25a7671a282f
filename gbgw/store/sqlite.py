"""The embedded store: one SQLite file, one writer thread, WAL, batches of 100 ms.

All statements run on the one thread named "store". Writes that nobody waits for are gathered in a bounded list and
written in one transaction; a durable call joins the batch and waits for its commit. The schema's version is `PRAGMA
user_version`; a newer file is refused.
"""

import asyncio
import dataclasses
import fcntl
import functools
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final, ParamSpec, TypeVar

from gbgw.base import limits
from gbgw.base.errors import ConfigError
from gbgw.base.tally import Tally
from gbgw.gb.manscdp import DEFAULT_EDITION, EDITIONS, CatalogItem, Edition
from gbgw.gb.registrar import Binding
from gbgw.sip.flow import Flow, Transport
from gbgw.store.base import AuditRow, Device, StoredCatalog, StoredDialog, StoreError, Token

T = TypeVar("T")
P = ParamSpec("P")
Row = tuple[Any, ...]
Write = Callable[[sqlite3.Connection], object]

BATCH_SECONDS: Final = 0.1

# Each step takes a file from version N to N + 1; steps are never changed, only added.
MIGRATIONS: Final = (
    """
    CREATE TABLE tokens (hash TEXT PRIMARY KEY, name TEXT NOT NULL, scopes TEXT NOT NULL, created REAL NOT NULL,
    expires REAL) WITHOUT ROWID; CREATE TABLE devices (
        device_id TEXT PRIMARY KEY, name TEXT NOT NULL, ha1_md5 TEXT NOT NULL, ha1_sha256 TEXT NOT NULL,
        sha256_capable INTEGER NOT NULL, enabled INTEGER NOT NULL, by_operator INTEGER NOT NULL, manufacturer TEXT NOT
        NULL, model TEXT NOT NULL, firmware TEXT NOT NULL, edition TEXT NOT NULL, transport TEXT NOT NULL, created
        REAL NOT NULL, last_seen REAL
    ) WITHOUT ROWID;
    CREATE TABLE bindings (
        device_id TEXT PRIMARY KEY, transport TEXT NOT NULL, local TEXT NOT NULL, remote TEXT NOT NULL, connection
        INTEGER NOT NULL, contact TEXT NOT NULL, call_id TEXT NOT NULL, cseq INTEGER NOT NULL, expires_at REAL NOT
        NULL, edition TEXT NOT NULL, user_agent TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE catalogs (device_id TEXT PRIMARY KEY, complete INTEGER NOT NULL, updated REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE channels (
        device_id TEXT NOT NULL, channel_id TEXT NOT NULL, position INTEGER NOT NULL, item TEXT NOT NULL, PRIMARY KEY
        (device_id, channel_id)
    ) WITHOUT ROWID;
    CREATE TABLE dialogs (
        call_id TEXT NOT NULL, local_tag TEXT NOT NULL, stream_key TEXT NOT NULL, local_uri TEXT NOT NULL, remote_uri
        TEXT NOT NULL, flow TEXT NOT NULL, local_cseq INTEGER NOT NULL, opened REAL NOT NULL, remote_tag TEXT NOT
        NULL, remote_target TEXT NOT NULL, route TEXT NOT NULL, ssrc TEXT NOT NULL, port INTEGER NOT NULL, PRIMARY KEY
        (call_id, local_tag)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, token TEXT NOT NULL, name TEXT NOT NULL, remote TEXT
        NOT NULL, action TEXT NOT NULL, device_id TEXT NOT NULL, channel_id TEXT NOT NULL, result TEXT NOT NULL, detail
        TEXT NOT NULL
    );
    CREATE INDEX audit_of_device ON audit (device_id, id);
    """,
)
VERSION: Final = len(MIGRATIONS)


class SqliteStore:
    """A Store in one file. Made by `open`, ended by `close`; all methods are called on the event loop that opened
    it."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        executor: ThreadPoolExecutor,
        lock: BinaryIO | None,
        tally: Tally,
    ) -> None:
        self.path = path
        self._connection = connection
        self._executor = executor
        self._lock = lock
        self._tally = tally
        self._pending: list[Write] = []
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight = 0  # batches on their way to the disk
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.failure: StoreError | None = None  # why the newest write that nobody waited for did not succeed

    @classmethod
    async def open(cls, path: str | Path, *, tally: Tally | None = None) -> "SqliteStore":
        """Open or create the file and bring its schema up to date. Raises ConfigError with the remedy.

        tally: counts store.failed, the writes that nobody waited for and that did not succeed.
        """
        where = Path(path)
        lock = _lock(where)
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(executor, _open, where)
        except BaseException:
            executor.shutdown(
                wait=False
            )  # its thread ends with the opening, which a cancelled caller does not wait for
            if lock is not None:
                lock.close()
            raise
        return cls(where, connection, executor, lock, tally if tally is not None else Tally())

    # Tokens

    async def tokens(self) -> Sequence[Token]:
        rows = await self._read("SELECT hash, name, scopes, created, expires FROM tokens ORDER BY created")
        return [Token(row[0], row[1], frozenset(row[2].split()), row[3], row[4]) for row in rows]

    async def put_token(self, token: Token) -> None:
        values = (token.hash, token.name, " ".join(sorted(token.scopes)), token.created, token.expires)
        await self._durable(_statement("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?)", values))

    async def delete_token(self, token_hash: str) -> bool:
        return await self._durable(
            lambda db: db.execute("DELETE FROM tokens WHERE hash = ?", (token_hash,)).rowcount > 0
        )

    # Devices

    async def devices(self) -> Sequence[Device]:
        names = ", ".join(_DEVICE_COLUMNS)
        rows = await self._read(f"SELECT {names} FROM devices ORDER BY device_id")
        return [_device(row) for row in rows]

    async def put_device(self, device: Device) -> None:
        await self._durable(_put_device(device))

    def save_device(self, device: Device) -> None:
        self._later(_put_device(device))

    async def delete_device(self, device_id: str) -> bool:
        def delete(db: sqlite3.Connection) -> bool:
            for table in ("bindings", "catalogs", "channels"):
                db.execute(f"DELETE FROM {table} WHERE device_id = ?", (device_id,))
            return db.execute("DELETE FROM devices WHERE device_id = ?", (device_id,)).rowcount > 0

        return await self._durable(delete)

    # Bindings

    async def bindings(self) -> Sequence[Binding]:
        rows = await self._read(
            "SELECT device_id, transport, local, remote, connection, contact, call_id, cseq, expires_at, edition,"
            " user_agent FROM bindings ORDER BY device_id"
        )
        return [_binding(row) for row in rows]

    def save_binding(self, binding: Binding) -> None:
        flow = binding.flow
        values = (
            binding.device_id, flow.transport, json.dumps(flow.local), json.dumps(flow.remote), flow.connection,
            binding.contact, binding.call_id, binding.cseq, binding.expires_at, binding.edition, binding.user_agent,
        )  # fmt: skip
        self._later(_statement("INSERT OR REPLACE INTO bindings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values))

    def forget_binding(self, device_id: str) -> None:
        self._later(_statement("DELETE FROM bindings WHERE device_id = ?", (device_id,)))

    # Channels

    async def catalogs(self) -> Sequence[StoredCatalog]:
        heads = await self._read("SELECT device_id, complete, updated FROM catalogs ORDER BY device_id")
        rows = await self._read("SELECT device_id, item FROM channels ORDER BY device_id, position")
        items: dict[str, list[CatalogItem]] = {}
        for device_id, text in rows:
            items.setdefault(device_id, []).append(_item(text))
        return [StoredCatalog(head[0], tuple(items.get(head[0], ())), bool(head[1]), head[2]) for head in heads]

    def save_catalog(self, device_id: str, items: Iterable[CatalogItem], *, complete: bool, updated: float) -> None:
        kept = tuple(items)

        def save(db: sqlite3.Connection) -> None:
            if complete:
                db.execute("DELETE FROM channels WHERE device_id = ?", (device_id,))
            last = "SELECT coalesce(max(position) + 1, 0) FROM channels WHERE device_id = ?"
            first = db.execute(last, (device_id,)).fetchone()[0]
            db.executemany(
                "INSERT INTO channels VALUES (?, ?, ?, ?)"
                " ON CONFLICT (device_id, channel_id) DO UPDATE SET item = excluded.item",
                [
                    (device_id, item.device_id, first + n, json.dumps(dataclasses.asdict(item)))
                    for n, item in enumerate(kept)
                ],
            )
            db.execute("INSERT OR REPLACE INTO catalogs VALUES (?, ?, ?)", (device_id, int(complete), updated))

        self._later(save)

    # Dialogs

    async def dialog_opening(self, dialog: StoredDialog) -> None:
        await self._durable(_put_dialog(dialog))

    def dialog_confirmed(self, dialog: StoredDialog) -> None:
        self._later(_put_dialog(dialog))

    def dialog_closed(self, call_id: str, local_tag: str) -> None:
        self._later(_statement("DELETE FROM dialogs WHERE call_id = ? AND local_tag = ?", (call_id, local_tag)))

    async def dialogs(self) -> Sequence[StoredDialog]:
        rows = await self._read(
            "SELECT call_id, local_tag, stream_key, local_uri, remote_uri, flow, local_cseq, opened, remote_tag,"
            " remote_target, route, ssrc, port FROM dialogs ORDER BY opened"
        )
        return [_dialog(row) for row in rows]

    # Audit

    def add_audit(self, row: AuditRow) -> None:
        values = dataclasses.astuple(row)[1:]

        def add(db: sqlite3.Connection) -> None:
            names = ", ".join(field.name for field in dataclasses.fields(AuditRow)[1:])
            last = db.execute(f"INSERT INTO audit ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values).lastrowid
            db.execute("DELETE FROM audit WHERE id <= ?", ((last or 0) - limits.AUDIT_ROWS,))

        self._later(add)

    async def audit(self, limit: int, *, before: int | None = None, device_id: str = "") -> Sequence[AuditRow]:
        names = ", ".join(field.name for field in dataclasses.fields(AuditRow))
        where = ["id < ?"] + (["device_id = ?"] if device_id else [])
        values = (before if before is not None else 1 << 62, *((device_id,) if device_id else ()), limit)
        rows = await self._read(
            f"SELECT {names} FROM audit WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?", values
        )
        return [AuditRow(*row) for row in rows]

    # The thread

    async def flush(self) -> None:
        await self._durable(lambda _: None)

    async def close(self) -> None:
        if self._closed:
            return
        try:
            await self.flush()
        finally:
            self._closed = True
            await self._run(self._connection.close)
            self._executor.shutdown()  # nothing is left to run, so this waits for the thread's last step only
            if self._lock is not None:
                self._lock.close()

    def _later(self, write: Write) -> None:
        """Gather a write that nobody waits for. When the disk is too slow for what is written it is dropped and told
        in `failure`."""
        if self._closed:
            raise StoreError("the store is closed")
        if self._in_flight >= limits.STORE_BATCHES:
            self._fail(
                StoreError(
                    "the store is too slow: writes are dropped", code="store_slow", remedy="put it on a faster disk"
                )
            )
            return
        self._pending.append(write)
        if len(self._pending) >= limits.STORE_BATCH:
            self._submit()
        elif self._timer is None:
            self._timer = self._loop.call_later(BATCH_SECONDS, self._submit)

    def _submit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._pending = self._pending, []
        if batch:
            self._in_flight += 1
            self._executor.submit(_commit, self._connection, batch).add_done_callback(self._written)

    def _written(self, done: Future[list[object]]) -> None:
        """Hand the outcome of a batch from the store's thread to the loop."""
        self._loop.call_soon_threadsafe(self._settle, done.exception())

    def _settle(self, error: BaseException | None) -> None:
        self._in_flight -= 1
        if error is None:
            self.failure = None
        else:
            self._fail(error if isinstance(error, StoreError) else StoreError(f"the store failed: {error}"))

    def _fail(self, error: StoreError) -> None:
        self.failure = error
        self._tally.add("store.failed", detail=str(error), now=self._loop.time())

    async def _durable(self, write: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        self._submit()  # what was given before comes before
        return await self._run(_commit_one, self._connection, write)

    async def _read(self, sql: str, values: Row = ()) -> list[Row]:
        if self._closed:
            raise StoreError("the store is closed")
        self._submit()
        return await self._run(_select, self._connection, sql, values)

    async def _run(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await self._loop.run_in_executor(self._executor, functools.partial(call, *arguments, **named))


def _lock(path: Path) -> BinaryIO | None:
    """Keep a second gateway from the same file: both would answer the same cameras. A file of its own, since closing
    any descriptor of the database would drop SQLite's own locks."""
    if str(path) == ":memory:":
        return None
    name = path.with_name(path.name + ".lock")
    try:
        file = name.open("a+b")
    except OSError:
        return None  # opening the store itself says what is wrong
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(
            f"the store {path} is in use by another gbgw",
            code="store_in_use",
            remedy="stop the other one, or give this one a store.url of its own",
        ) from None
    return file


# On the store's thread


def _open(path: Path) -> sqlite3.Connection:
    remedy = "give store.url a file in a folder that exists and may be written to"
    try:
        if not path.exists():
            path.touch(mode=0o600)  # it will hold what devices authenticate with
        connection = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=True)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"the store {path} cannot be opened: {reason}", code="store_unusable", remedy=remedy
        ) from None
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "PRAGMA synchronous = NORMAL"
        )  # a commit survives our death; the power's only up to the last checkpoint
        _migrate(path, connection)
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"the store {path} cannot be used: {error}", code="store_unusable", remedy=remedy) from None
    except ConfigError:
        connection.close()
        raise
    return connection


def _migrate(path: Path, connection: sqlite3.Connection) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise ConfigError(
            f"the store {path} was written by a newer gbgw (version {version}, this one knows {VERSION})",
            code="store_newer",
            remedy="run the newer gbgw, or point [store] url at another file",
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise ConfigError(
            f"{path} is a database of another program", code="store_foreign", remedy="point [store] url at another file"
        )
    for number in range(version, VERSION):
        # One transaction a step: executescript would commit on its own, hence BEGIN inside it.
        try:
            connection.executescript(f"BEGIN IMMEDIATE;{MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _commit(connection: sqlite3.Connection, writes: Sequence[Write]) -> list[object]:
    """Run `writes` in one transaction; all of them or none."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [write(connection) for write in writes]
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise StoreError(
            f"the store cannot be written: {error}", remedy="check the disk's free space and permissions"
        ) from None
    return results


def _commit_one(connection: sqlite3.Connection, write: Callable[[sqlite3.Connection], T]) -> T:
    results: list[T] = []
    _commit(connection, [lambda db: results.append(write(db))])
    return results[0]


def _select(connection: sqlite3.Connection, sql: str, values: Row) -> list[Row]:
    try:
        return connection.execute(sql, values).fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"the store cannot be read: {error}", remedy="restore the file from a backup") from None


# Rows


def _statement(sql: str, values: tuple[object, ...]) -> Write:
    return lambda db: db.execute(sql, values)


def _put_device(device: Device) -> Write:
    names = [field.name for field in dataclasses.fields(Device)]
    sql = f"INSERT OR REPLACE INTO devices ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    return _statement(sql, tuple(getattr(device, name) for name in names))


def _device(row: Row) -> Device:
    texts_and_flags = list(row)
    for position in _DEVICE_FLAGS:
        texts_and_flags[position] = bool(row[position])
    return Device(*texts_and_flags)


_DEVICE_COLUMNS: Final = tuple(field.name for field in dataclasses.fields(Device))
_DEVICE_FLAGS: Final = tuple(n for n, field in enumerate(dataclasses.fields(Device)) if field.type in (bool, "bool"))


def _flow(transport: Transport, local: Sequence[Any], remote: Sequence[Any], connection: int) -> Flow:
    return Flow(transport, (str(local[0]), int(local[1])), (str(remote[0]), int(remote[1])), connection)


def _binding(row: Row) -> Binding:
    device_id, transport, local, remote, connection, contact, call_id, cseq, expires_at, edition, user_agent = row
    flow = _flow(transport, json.loads(local), json.loads(remote), connection)
    known: Edition = edition if edition in EDITIONS else DEFAULT_EDITION
    return Binding(device_id, flow, contact, call_id, cseq, expires_at, known, user_agent)


def _item(text: str) -> CatalogItem:
    """Read an item as an older or newer gbgw of the same schema wrote it: unknown fields are left out."""
    names = {field.name for field in dataclasses.fields(CatalogItem)}
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(text).items()
        if name in names
    }
    return CatalogItem(**kept)


def _dialog(row: Row) -> StoredDialog:
    call_id, local_tag, key, local_uri, remote_uri, flow, *rest = row
    local_cseq, opened, remote_tag, remote_target, route, ssrc, port = rest
    return StoredDialog(
        call_id,
        local_tag,
        key,
        local_uri,
        remote_uri,
        _flow(*json.loads(flow)),
        local_cseq,
        opened,
        remote_tag,
        remote_target,
        tuple(json.loads(route)),
        ssrc,
        port,
    )


def _put_dialog(dialog: StoredDialog) -> Write:
    flow = dialog.flow
    values = (
        dialog.call_id, dialog.local_tag, dialog.key, dialog.local_uri, dialog.remote_uri,
        json.dumps([flow.transport, flow.local, flow.remote, flow.connection]), dialog.local_cseq, dialog.opened,
        dialog.remote_tag, dialog.remote_target, json.dumps(dialog.route), dialog.ssrc, dialog.port,
    )  # fmt: skip
    return _statement("INSERT OR REPLACE INTO dialogs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
