"""What the REST API, /metrics and /readyz see of the gateway: snapshots, and the writes they may ask for
(serve.source.Control)."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from gbgw.base.errors import GatewayError, RequestError
from gbgw.directory import PTZ_TYPES, DeviceEntry
from gbgw.gb import ids
from gbgw.gb.catalog import Tree, build_tree
from gbgw.gb.manscdp import CatalogItem
from gbgw.serve import source
from gbgw.serve.source import (
    Cause,
    Channel,
    Device,
    DeviceChange,
    Diagnosis,
    Event,
    LadderStep,
    NewDevice,
    Sample,
    StreamInfo,
    TokenRow,
    TrackInfo,
)
from gbgw.session import STEPS, Session, State
from gbgw.sip.digest import ha1
from gbgw.store.base import Device as StoredDevice
from gbgw.store.base import Store, Token
from gbgw.worker.base import StreamView

if TYPE_CHECKING:
    from gbgw.gateway import Gateway

FAILED_SHOWN_SECONDS: Final = 120.0  # a failed stream stays in the list this long
TOKEN_ID_CHARS: Final = 16  # of its hash


class TokenRows:
    """The store's tokens as `serve.auth` wants them; the id of a token is the beginning of its hash."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def load_tokens(self) -> Sequence[TokenRow]:
        return [
            TokenRow(
                token.hash[:TOKEN_ID_CHARS],
                token.name,
                tuple(scope for scope in ("view", "control", "admin") if scope in token.scopes),
                token.hash,
                datetime.fromtimestamp(token.created, UTC),
                datetime.fromtimestamp(token.expires, UTC) if token.expires is not None else None,
            )
            for token in await self._store.tokens()
        ]

    async def save_token(self, row: TokenRow) -> None:
        expires = row.expires.timestamp() if row.expires is not None else None
        await self._store.put_token(
            Token(row.sha256, row.name, frozenset(row.scopes), row.created.timestamp(), expires)
        )

    async def delete_token(self, token_id: str) -> None:
        for token in await self._store.tokens():
            if token.hash[:TOKEN_ID_CHARS] == token_id:
                await self._store.delete_token(token.hash)


class ControlDesk:
    """Implements serve.source.Control and serve.source.Observed over one Gateway."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    # Devices and channels

    def devices(self) -> Sequence[Device]:
        return [_device(entry) for entry in self._gateway.directory]

    def device(self, device_id: str) -> Device | None:
        entry = self._gateway.directory.get(device_id)
        return _device(entry) if entry is not None else None

    async def create_device(self, new: NewDevice) -> Device:
        ids.check_device_id(new.id, by_operator=True)
        if self._gateway.devices.stored(new.id) is not None:
            raise RequestError(
                f"device {new.id} exists already", status=409, code="device_exists", remedy="change it with PATCH"
            )
        stored = StoredDevice(new.id, created=time.time(), by_operator=True)
        await self._write(stored, new.name, new.password, new.media_transport)
        return _device(self._known(new.id))

    async def update_device(self, device_id: str, change: DeviceChange) -> Device:
        entry = self._known(device_id)
        stored = self._gateway.devices.stored(device_id) or StoredDevice(device_id, created=time.time())
        await self._write(stored, change.name, change.password, change.media_transport)
        return _device(entry)

    async def _write(
        self, stored: StoredDevice, name: str | None, password: str | None, transport: source.Transport | None
    ) -> None:
        """Write what the operator wants of a device; None leaves it as it is."""
        devices, realm = self._gateway.devices, self._gateway.config.sip.domain
        if name is not None:
            stored = replace(stored, name=name)
        if transport is not None:
            stored = replace(stored, transport=transport)
        if password is not None:
            stored = replace(
                stored,
                ha1_md5=ha1(stored.device_id, realm, password) if password else "",
                ha1_sha256=ha1(stored.device_id, realm, password, "SHA-256") if password else "",
            )
        await devices.put(stored)
        if password is not None:
            devices.drop(stored.device_id)

    async def delete_device(self, device_id: str) -> None:
        await self._gateway.devices.delete(device_id)

    def channels(self, device_id: str) -> Sequence[Channel]:
        entry = self._gateway.directory.get(device_id)
        if entry is None:
            return ()
        return [_channel(entry, entry.channels[channel_id]) for channel_id in sorted(entry.channels)]

    def channel(self, device_id: str, channel_id: str) -> Channel | None:
        entry = self._gateway.directory.get(device_id)
        item = entry.channels.get(channel_id) if entry is not None else None
        return _channel(entry, item) if entry is not None and item is not None else None

    async def refresh_catalog(self, device_id: str) -> Sequence[Channel]:
        self._known(device_id)
        await self._gateway.devices.refresh_catalog(device_id)
        return self.channels(device_id)

    def catalog_state(self, device_id: str) -> source.CatalogState:
        entry = self._known(device_id)
        progress = self._gateway.devices.interviews.progress(device_id)
        received, promised = progress if progress is not None else (None, None)
        return source.CatalogState(entry.catalog, len(entry.channels), progress is not None, received, promised)

    async def tree(self, device_id: str) -> Sequence[source.TreeNode]:
        entry = self._known(device_id)
        items, platform_id = tuple(entry.channels.values()), self._gateway.config.sip.id
        found = await asyncio.to_thread(build_tree, items, device_id, platform_id)
        return [_node(entry, found, item_id) for item_id in sorted(found.items)]

    async def request_keyframe(self, device_id: str, channel_id: str) -> None:
        await self._gateway.request_keyframe(device_id, channel_id)

    def _known(self, device_id: str) -> DeviceEntry:
        entry = self._gateway.directory.get(device_id)
        if entry is None:
            raise RequestError(
                f"no device {device_id[:40]} is known",
                status=404,
                code="unknown_device",
                remedy="the known ones are listed at /api/v1/devices",
            )
        return entry

    # Streams

    def streams(self) -> Sequence[StreamInfo]:
        return [self._stream_info(session) for _, session in sorted(self._gateway.recent(FAILED_SHOWN_SECONDS).items())]

    def stream(self, key: str) -> StreamInfo | None:
        session = self._gateway.recent(FAILED_SHOWN_SECONDS).get(key)
        return self._stream_info(session) if session is not None else None

    async def start_stream(self, key: str) -> StreamInfo:
        return self._stream_info(await self._gateway.start(key))

    async def stop_stream(self, key: str) -> None:
        await self._gateway.stop(key)

    def diagnosis(self, key: str) -> Diagnosis | None:
        parsed = source.StreamKey.parse(key)
        session = self._gateway.last_session(key)
        if session is None:
            return self._idle_diagnosis(parsed)
        first = session.steps.get("requested")
        steps = tuple(
            LadderStep(
                name,
                self._wall(session.steps[name]) if name in session.steps else None,
                session.steps[name] - first if name in session.steps and first is not None else None,
            )
            for name in STEPS
        )
        cause = cause_of(session.cause)
        summary = _plain(cause) if cause is not None else _SUMMARIES[session.state]
        return Diagnosis(key, session.state.value, cause, steps, summary)

    def _idle_diagnosis(self, key: source.StreamKey) -> Diagnosis | None:
        if self._gateway.directory.get(key.device_id) is None:
            return None
        cause = None
        try:
            self._gateway.directory.find(key.device_id, key.channel_id)
        except GatewayError as error:
            cause = cause_of(error)
        summary = _plain(cause) if cause is not None else "Nobody asked for this stream yet."
        return Diagnosis(str(key), "idle", cause, tuple(LadderStep(name, None, None) for name in STEPS), summary)

    @staticmethod
    def _wall(at: float) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=asyncio.get_running_loop().time() - at)

    def _stream_info(self, session: Session) -> StreamInfo:
        now = asyncio.get_running_loop().time()
        stream = session.stream
        figures = session.figures()
        return StreamInfo(
            session.key,
            session.target.kind,
            session.state.value,
            cause_of(session.cause),
            _tracks(stream) if stream is not None else (),
            self._wall(session.steps["requested"]) if "requested" in session.steps else None,
            int(stream.bitrate(now)) if stream is not None and not session.over else 0,
            stream.gop_seconds if stream is not None else None,
            session.target.transport,
            figures.packets,
            figures.lost,
            figures.reordered,
            figures.late,
        )

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        async for happened in self._gateway.events.follow(after):
            yield Event(happened.id, happened.time, happened.type, happened.data)

    # Observed

    def counts(self) -> Mapping[str, int]:
        return dict(sorted(self._gateway.tally.counts.items()))

    def not_ready(self) -> Sequence[str]:
        return self._gateway.not_ready()

    def samples(self) -> Iterable[Sample]:
        return self._gateway.samples()


_SUMMARIES: Final = {
    State.STARTING: "The stream is starting: the last step reached shows where it is.",
    State.PLAYING: "The stream plays.",
    State.LINGERING: "The stream plays on for a moment without viewers.",
    State.STOPPING: "The stream is ending.",
    State.ENDED: "The stream ended because nobody watched it any more.",
    State.FAILED: "The stream failed.",
}


def cause_of(error: GatewayError | None) -> Cause | None:
    """What the API shows of an error."""
    return Cause(error.code, error.message, error.remedy) if error is not None else None


def _plain(cause: Cause) -> str:
    """Message and remedy as sentences."""
    sentences = (text.strip().rstrip(".") for text in (cause.message, cause.remedy))
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences if text)


def _device(entry: DeviceEntry) -> Device:
    return Device(
        entry.id,
        entry.name,
        entry.online,
        entry.flow.transport if entry.flow is not None else None,
        f"{entry.flow.remote[0]}:{entry.flow.remote[1]}" if entry.flow is not None else None,
        entry.last_seen,
        len(entry.channels),
        entry.manufacturer,
        entry.model,
        entry.firmware,
        entry.media_transport,
        entry.has_password,
        entry.registered,
        entry.expires,
        entry.edition,
    )


def _channel(entry: DeviceEntry, item: CatalogItem) -> Channel:
    return Channel(
        item.device_id,
        entry.id,
        item.name,
        item.online and entry.online,
        entry.playable(item.device_id),
        item.parent_ids[0] if item.parent_ids else None,
        item.ptz_type in PTZ_TYPES,
        item.manufacturer,
        item.model,
        item.address,
    )


def _node(entry: DeviceEntry, tree: Tree, item_id: str) -> source.TreeNode:
    item = tree.items[item_id]
    kind = _KINDS.get(ids.type_code(item_id) or 0, "other")
    if ids.is_region(item_id):
        kind = "region"
    elif kind == "other" and ids.is_channel(item_id):
        kind = "channel"
    return source.TreeNode(
        item_id,
        item.name,
        kind,
        tree.parents[item_id],
        len(tree.children.get(item_id, ())),
        item.online and entry.online,
        entry.playable(item_id),
    )


_KINDS: Final[dict[int, Literal["region", "system", "group", "organisation", "channel", "other"]]] = {
    200: "system",
    ids.BUSINESS_GROUP: "group",
    ids.VIRTUAL_ORGANISATION: "organisation",
}


def _tracks(stream: StreamView) -> tuple[TrackInfo, ...]:
    return tuple(
        TrackInfo(
            track.codec.kind.value,
            track.codec.name,
            track.rfc6381,
            track.width,
            track.height,
            track.sample_rate,
            track.channels,
            stream.frame_rate if track.is_video else None,
            track.reorder_depth,
        )
        for track in stream.tracks
    )
