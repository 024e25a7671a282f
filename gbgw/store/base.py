"""What a store can do, and the rows it keeps (architecture decision 15).

Nothing of SIP waits for a store, except that a dialog is written before its INVITE leaves, so that after a crash its
camera can be told BYE. Keepalives are never written. Passwords are not stored: devices have HA1, tokens a hash.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from gbgw.base.errors import LocalError
from gbgw.gb.manscdp import CatalogItem
from gbgw.gb.registrar import Binding
from gbgw.sip.flow import Flow


class StoreError(LocalError):
    """The store cannot be opened, read or written."""

    default_code: ClassVar[str] = "store_failed"


@dataclass(frozen=True, slots=True)
class Token:
    """An API token; only its SHA-256 is known. created, expires: Unix seconds, expires None for never."""

    hash: str
    name: str
    scopes: frozenset[str]
    created: float
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device that registered or that the operator created.

    ha1_md5: "" when it authenticates with the common password. by_operator: created by hand, stays when it is offline
    for ever. transport: media transport to ask for, "" for the configured one. edition: X-GB-Ver last seen. created,
    last_seen: Unix seconds.
    """

    device_id: str
    name: str = ""
    ha1_md5: str = ""
    ha1_sha256: str = ""
    sha256_capable: bool = False
    enabled: bool = True
    by_operator: bool = False
    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    edition: str = ""
    transport: str = ""
    created: float = 0.0
    last_seen: float | None = None


@dataclass(frozen=True, slots=True)
class StoredCatalog:
    """The channels of a device as last told. complete: False when the last query did not get all of them."""

    device_id: str
    items: tuple[CatalogItem, ...]
    complete: bool
    updated: float


@dataclass(frozen=True, slots=True)
class StoredDialog:
    """A dialog that may live on in a camera after we die.

    Opening: only what the INVITE had; remote_tag, remote_target and route come with the 2xx. local_cseq: of the last
    request we sent in it. ssrc, port: what its session held. opened: Unix seconds.
    """

    call_id: str
    local_tag: str
    key: str
    local_uri: str
    remote_uri: str
    flow: Flow
    local_cseq: int
    opened: float
    remote_tag: str = ""
    remote_target: str = ""
    route: tuple[str, ...] = ()
    ssrc: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One control command. id: 0 before it is written. time: Unix seconds. detail: JSON."""

    id: int
    time: float
    token: str
    name: str
    remote: str
    action: str
    device_id: str
    channel_id: str
    result: str
    detail: str


class Store(Protocol):
    """Writes without `await` semantics of their own are gathered and may be lost with the process up to 100 ms; those
    marked durable are not."""

    async def tokens(self) -> Sequence[Token]: ...

    async def put_token(self, token: Token) -> None:
        """Durable."""

    async def delete_token(self, token_hash: str) -> bool:
        """Durable. Return whether it existed."""

    async def devices(self) -> Sequence[Device]: ...

    async def put_device(self, device: Device) -> None:
        """Durable: the operator created or changed it."""

    def save_device(self, device: Device) -> None:
        """What a device told about itself, when many register at once; gathered like bindings."""

    async def delete_device(self, device_id: str) -> bool:
        """Durable. Its channels and binding go with it. Return whether it existed."""

    async def bindings(self) -> Sequence[Binding]: ...

    def save_binding(self, binding: Binding) -> None: ...

    def forget_binding(self, device_id: str) -> None: ...

    async def catalogs(self) -> Sequence[StoredCatalog]: ...

    def save_catalog(self, device_id: str, items: Iterable[CatalogItem], *, complete: bool, updated: float) -> None:
        """Merge a catalog; only a complete one removes the channels it does not name."""

    async def dialog_opening(self, dialog: StoredDialog) -> None:
        """Durable: return when the dialog is on disk, so that the INVITE may leave."""

    def dialog_confirmed(self, dialog: StoredDialog) -> None: ...

    def dialog_closed(self, call_id: str, local_tag: str) -> None: ...

    async def dialogs(self) -> Sequence[StoredDialog]: ...

    def add_audit(self, row: AuditRow) -> None:
        """Gathered; the oldest beyond limits.AUDIT_ROWS go."""

    async def audit(self, limit: int, *, before: int | None = None, device_id: str = "") -> Sequence[AuditRow]:
        """Newest first. before: only ids below it; device_id "": of all devices."""

    async def flush(self) -> None:
        """Return when everything given so far is on disk."""

    async def close(self) -> None:
        """Flush and close; idempotent."""
