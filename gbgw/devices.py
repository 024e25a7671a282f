"""The devices of this platform: the registrar's shell, who may register, and what the store keeps of each.

One task drives the registrar machine, which holds every device's expiry and heartbeat; what it wants done is done here
without waiting, so that a slow store or device never stops SIP.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, Protocol

from gbgw.base.config import SipConfig
from gbgw.base.errors import GatewayError, MediaError, PeerError
from gbgw.base.tally import Tally
from gbgw.directory import DeviceEntry, Directory
from gbgw.gb import ids, registrar
from gbgw.gb.catalog import CatalogDone
from gbgw.gb.manscdp import DeviceInfo, Document, MediaStatus
from gbgw.gb.registrar import Credentials, Registrar
from gbgw.interview import Interviews
from gbgw.net.drive import drive
from gbgw.observe import log
from gbgw.observe.events import Events
from gbgw.questions import Questions
from gbgw.reading import Reader
from gbgw.sip.agent import Incoming
from gbgw.sip.flow import Flow
from gbgw.sip.message import Response
from gbgw.store.base import Device as StoredDevice
from gbgw.store.base import Store

REGISTRAR_INBOX: Final = 16_384  # requests that wait for the registrar


class Answering(Protocol):
    def reply(self, handle: int, response: Response) -> None:
        """Answer a request that was handed up."""


class Devices:
    """Who is known, who may come, who is there.

    offline: a device is gone, end its streams. rebooted: it looks restarted. bound: it is reached by this flow from now
    on.
    media_ended: a device says that a recording was sent to its end; the id it names, and the dialog it said so in.
    notified: takes what devices tell of their own accord.
    sip, questions, interviews: made later, since they tell what they learn to this object; set before `run`.
    """

    sip: Answering
    questions: Questions
    interviews: Interviews

    def __init__(
        self,
        config: SipConfig,
        store: Store,
        directory: Directory,
        *,
        offline: Callable[[str, GatewayError], None],
        rebooted: Callable[[str], None],
        bound: Callable[[str, Flow], None],
        notified: Callable[[str, Document], None],
        media_ended: Callable[[str, str, int | None], None] = lambda device_id, named, dialog: None,
        tally: Tally,
        events: Events,
    ) -> None:
        self.directory = directory
        self._config = config
        self._store = store
        self._offline = offline
        self._rebooted = rebooted
        self._bound_to = bound
        self.notified = notified
        self._media_ended = media_ended
        self._tally = tally
        self._events = events
        self._stored: dict[str, StoredDevice] = {}
        self._credentials: dict[str, Credentials] = {}
        self._registrar = Registrar(config.domain, self, time.time, longest_seconds=config.expires_seconds)
        self._inbox: asyncio.Queue[registrar.Event] = asyncio.Queue(REGISTRAR_INBOX)
        self._reader = Reader(self._tell, tally)
        self._log = log.get("devices")

    async def run(self) -> None:
        """Drive the registrar; never ends by itself."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reader.run(), name="reader")
            await drive(self._registrar, self._inbox, self._perform)

    async def load(self) -> None:
        """Read what the last life knew."""
        for device in await self._store.devices():
            self._stored[device.device_id] = device
            self._set_credentials(device)
            self.directory.add(
                DeviceEntry(
                    device.device_id,
                    name=device.name,
                    manufacturer=device.manufacturer,
                    model=device.model,
                    firmware=device.firmware,
                    edition=device.edition,
                    media_transport=_media_transport(device.transport),
                    has_password=bool(device.ha1_md5),
                    reason="offline" if device.edition else "never_registered",
                )
            )
        for catalog in await self._store.catalogs():
            self.directory.catalogued(catalog.device_id, catalog.items, complete=catalog.complete)
        # Before the first request can come in: a keepalive of a device that is bound must not be refused.
        bindings = tuple(binding for binding in await self._store.bindings() if binding.flow.transport == "udp")
        self._tell(registrar.Restored(bindings))

    def _set_credentials(self, device: StoredDevice) -> None:
        if device.ha1_md5:
            self._credentials[device.device_id] = Credentials(
                device.ha1_md5, device.ha1_sha256 or None, device.sha256_capable, device.enabled
            )
        else:
            self._credentials.pop(device.device_id, None)

    # Signalling

    def request(self, incoming: Incoming) -> None:
        event = registrar.RequestArrived(incoming.handle, incoming.request, incoming.flow, incoming.dialog)
        self._tell(event)

    def flow_closed(self, flow: Flow) -> None:
        self._tell(registrar.FlowGone(flow))

    def _tell(self, event: registrar.Event) -> None:
        try:
            self._inbox.put_nowait(event)
        except asyncio.QueueFull:
            self._tally.add("registrar.inbox_full")  # UDP repeats; a lost FlowGone ends by keepalive

    def _perform(self, effect: registrar.Effect) -> None:
        """What the registrar wants done. Never waits: a slow store or device must not stop SIP."""
        match effect:
            case registrar.Answer(handle, response):
                self.sip.reply(handle, response)
            case registrar.Registered():
                self._registered(effect)
            case registrar.Refreshed(device_id, binding):
                self._bound(device_id, binding)
            case registrar.Offline(device_id, reason):
                self._gone(device_id, reason)
            case registrar.MessageReceived(device_id, document, dialog):
                self.directory.seen(device_id, datetime.now(UTC))
                if isinstance(document.payload, MediaStatus) and document.payload.finished:
                    self._media_ended(device_id, document.device_id, dialog)
                if document.root == "Response":
                    self.questions.arrived(device_id, document)
                elif document.root == "Notify":
                    self.notified(device_id, document)
            case registrar.ReadBody():
                self._reader.take(effect)
            case registrar.SaveBinding(binding):
                self._store.save_binding(binding)
            case registrar.ForgetBinding(device_id):
                self._store.forget_binding(device_id)
            case registrar.Counted(name, detail):
                self._tally.add(name, detail=detail, now=asyncio.get_running_loop().time())

    def _registered(self, effect: registrar.Registered) -> None:
        entry = self._bound(effect.device_id, effect.binding)
        if effect.rebooted:
            self._rebooted(effect.device_id)
        sip = self._config
        if (sip.keepalive_seconds, sip.keepalive_misses) != (60, 3):
            self._tell(registrar.HeartbeatSet(effect.device_id, sip.keepalive_seconds, sip.keepalive_misses))
        self._save(entry)
        self.interviews.schedule(effect.device_id)
        self._log.info("device online", device=entry.id, address=str(entry.flow), edition=entry.edition)
        self._events.emit("device.online", id=entry.id, address=str(entry.flow), new=effect.is_new)

    def _bound(self, device_id: str, binding: registrar.Binding) -> DeviceEntry:
        known = self.directory.get(device_id)
        before = known.flow if known is not None else None
        entry = self.directory.registered(
            device_id,
            binding.flow,
            edition=binding.edition,
            expires=datetime.fromtimestamp(binding.expires_at, UTC),
            now=datetime.now(UTC),
        )
        if before != binding.flow:
            self._bound_to(device_id, binding.flow)
        return entry

    def _gone(self, device_id: str, reason: str) -> None:
        self.directory.offline(device_id, reason)
        self._offline(device_id, _gone(f"the device went offline ({reason})", "device_offline"))
        self._log.info("device offline", device=device_id, reason=reason)
        self._events.emit("device.offline", id=device_id, reason=reason)

    # What interviews learn

    async def described(self, device_id: str, info: DeviceInfo) -> None:
        entry = self.directory.described(device_id, info)
        if entry is not None:
            self._save(entry)
            self._events.emit("device.info", id=device_id)

    async def catalogued(self, device_id: str, done: CatalogDone) -> None:
        if done.cause in ("no_answer", "refused") and not done.items:
            self._tally.add(f"catalog.{done.cause}", detail=device_id)
            return
        if self.directory.catalogued(device_id, done.items, complete=done.complete) is not None:
            self._store.save_catalog(device_id, done.items, complete=done.complete, updated=time.time())
            self._events.emit("device.catalog", id=device_id, channels=len(done.items), complete=done.complete)

    # Devices: the registrar's directory, and the store

    def credentials(self, device_id: str) -> Credentials | None:
        own = self._credentials.get(device_id)
        if own is not None:
            return own
        if self._config.password and (ids.is_gb_id(device_id) or device_id in self._stored):
            return _common_credentials(device_id, self._config.domain, self._config.password)
        return None

    def owns(self, device_id: str, channel_id: str) -> bool:
        entry = self.directory.get(device_id)
        return entry is not None and channel_id in entry.channels

    def stored(self, device_id: str) -> StoredDevice | None:
        return self._stored.get(device_id)

    def _save(self, entry: DeviceEntry) -> None:
        """Write what changed of a device, in the background of the store."""
        known = self._stored.get(entry.id)
        if known is None:
            known = StoredDevice(entry.id, created=time.time())
        fresh = StoredDevice(
            entry.id,
            name=entry.name,
            ha1_md5=known.ha1_md5,
            ha1_sha256=known.ha1_sha256,
            sha256_capable=known.sha256_capable,
            enabled=known.enabled,
            by_operator=known.by_operator,
            manufacturer=entry.manufacturer,
            model=entry.model,
            firmware=entry.firmware,
            edition=entry.edition,
            transport=entry.media_transport or "",
            created=known.created,
            last_seen=known.last_seen,
        )
        if fresh != known or entry.id not in self._stored:
            self._stored[entry.id] = fresh
            self._store.save_device(fresh)

    async def put(self, device: StoredDevice) -> None:
        """Keep what the operator wrote of a device. Nothing has changed when the store refuses it."""
        await self._store.put_device(device)
        self._stored[device.device_id] = device
        self._set_credentials(device)
        self.directory.configured(
            device.device_id,
            name=device.name,
            media_transport=_media_transport(device.transport),
            has_password=bool(device.ha1_md5),
        )

    def drop(self, device_id: str) -> None:
        """Its credentials changed: it must register anew."""
        self._tell(registrar.Dropped(device_id))

    async def delete(self, device_id: str) -> None:
        """Forget a device and end its streams. Nothing has changed when the store refuses it."""
        await self._store.delete_device(device_id)
        self.drop(device_id)
        self._offline(device_id, _gone("the device was deleted by the operator", "device_deleted"))
        self._credentials.pop(device_id, None)
        self._stored.pop(device_id, None)
        self.directory.remove(device_id)
        self.interviews.forget(device_id)
        self._events.emit("device.deleted", id=device_id)

    async def refresh_catalog(self, device_id: str) -> None:
        done = await self.interviews.catalog(device_id)
        if not done.complete:
            raise PeerError(
                f"device {device_id} sent {len(done.items)} channels and then stopped ({done.cause})",
                code="catalog_partial",
                remedy="what came is kept and nothing was deleted; try again, or register the device over TCP",
            )


def _gone(message: str, code: str) -> MediaError:
    return MediaError(message, code=code, remedy="the next viewer invites it again once it is back")


def _media_transport(text: str) -> Literal["udp", "tcp-passive", "tcp-active"] | None:
    return {"udp": "udp", "tcp-passive": "tcp-passive", "tcp-active": "tcp-active"}.get(text)  # type: ignore[return-value]


@lru_cache(maxsize=4096)
def _common_credentials(device_id: str, domain: str, password: str) -> Credentials:
    return Credentials.of(device_id, domain, password)
