"""What the API sees of the gateway, over fakes of it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from gbgw.base.config import Config
from gbgw.base.errors import MediaError, RequestError
from gbgw.base.tally import Tally
from gbgw.control import ControlDesk, TokenRows
from gbgw.directory import Directory
from gbgw.gb.manscdp import CatalogItem
from gbgw.media.hub import Stream
from gbgw.mux.pattern import PatternSpec
from gbgw.observe.events import Events
from gbgw.serve.source import DeviceChange, NewDevice, Sample, TokenRow
from gbgw.session import STEPS, State
from gbgw.sip.digest import ha1
from gbgw.store.base import Device as StoredDevice
from gbgw.store.base import Token
from gbgw.worker.base import IngestFigures
from tests.support.streams import published, timed_units
from tests.unit.gb.support import CAMERA, DOMAIN, udp

CHANNEL = "34020000001310000001"
KEY = f"{CAMERA}-{CHANNEL}"
NOW = datetime(2026, 2, 3, tzinfo=UTC)


class Gateway:
    """Devices in a dict, sessions as the test made them."""

    def __init__(self) -> None:
        self.config = Config()
        self.directory = Directory()
        self.events = Events()
        self.tally = Tally()
        self.kept: dict[str, StoredDevice] = {}
        self.did: list[tuple[str, str]] = []
        self.sessions: dict[str, Any] = {}
        self.devices = self

    # of Devices

    def stored(self, device_id: str) -> StoredDevice | None:
        return self.kept.get(device_id)

    async def put(self, device: StoredDevice) -> None:
        self.kept[device.device_id] = device
        self.directory.configured(
            device.device_id,
            name=device.name,
            media_transport=device.transport or None,  # type: ignore[arg-type]
            has_password=bool(device.ha1_md5),
        )

    def drop(self, device_id: str) -> None:
        self.did.append(("drop", device_id))

    async def delete(self, device_id: str) -> None:
        self.did.append(("delete", device_id))

    async def refresh_catalog(self, device_id: str) -> None:
        self.did.append(("refresh", device_id))
        self.directory.catalogued(device_id, [CatalogItem(CHANNEL, name="gate", ptz_type=1)], complete=True)

    # of Gateway

    def recent(self, seconds: float) -> dict[str, Any]:
        return self.sessions

    def last_session(self, key: str) -> Any:
        return self.sessions.get(key)

    async def start(self, key: str) -> Any:
        return self.sessions[key]

    async def stop(self, key: str) -> None:
        self.did.append(("stop", key))

    async def request_keyframe(self, device_id: str, channel_id: str) -> None:
        self.did.append(("keyframe", channel_id))

    def not_ready(self) -> list[str]:
        return []

    def samples(self) -> Sequence[Sample]:
        return [Sample("devices", 1)]


def session(
    state: State = State.PLAYING, *, cause: Any = None, stream: Stream | None = None, steps: int = 0, over: bool = False
) -> Any:
    now = asyncio.get_running_loop().time()
    return SimpleNamespace(
        key=KEY,
        state=state,
        cause=cause,
        stream=stream,
        over=over,
        steps={name: now - 10 + number for number, name in enumerate(STEPS[:steps])},
        target=SimpleNamespace(transport="udp", kind="live"),
        figures=lambda: IngestFigures(packets=9, lost=1),
    )


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def desk(gateway: Gateway) -> ControlDesk:
    return ControlDesk(gateway)  # type: ignore[arg-type]


# Devices


async def test_a_device_is_created_with_its_password_as_digest_only(gateway: Gateway, desk: ControlDesk) -> None:
    device = await desk.create_device(NewDevice(CAMERA, "gate", "very secret", "tcp-passive"))
    assert (device.id, device.name, device.online, device.media_transport, device.has_password) == (
        CAMERA, "gate", False, "tcp-passive", True,
    )  # fmt: skip
    kept = gateway.kept[CAMERA]
    assert kept.ha1_md5 == ha1(CAMERA, DOMAIN, "very secret")
    assert kept.ha1_sha256 == ha1(CAMERA, DOMAIN, "very secret", "SHA-256")
    assert kept.by_operator
    assert "very secret" not in repr(kept)
    assert gateway.did == [("drop", CAMERA)]
    with pytest.raises(RequestError) as twice:
        await desk.create_device(NewDevice(CAMERA))
    assert (twice.value.status, twice.value.code) == (409, "device_exists")


@pytest.mark.parametrize("bad", ["", "a-b", "x" * 100, "../etc", "34020000001320000001 "])
async def test_an_id_that_cannot_be_one(gateway: Gateway, desk: ControlDesk, bad: str) -> None:
    with pytest.raises(RequestError):
        await desk.create_device(NewDevice(bad))
    assert len(gateway.directory) == 0


async def test_a_change_touches_only_what_it_names(gateway: Gateway, desk: ControlDesk) -> None:
    await desk.create_device(NewDevice(CAMERA, "gate", "very secret", "tcp-passive"))
    before = gateway.kept[CAMERA]
    gateway.did.clear()
    device = await desk.update_device(CAMERA, DeviceChange(name="door"))
    assert (device.name, device.media_transport, device.has_password) == ("door", "tcp-passive", True)
    assert gateway.kept[CAMERA].ha1_md5 == before.ha1_md5
    assert gateway.did == [], "its registration stays"
    device = await desk.update_device(CAMERA, DeviceChange(password="", media_transport="udp"))
    assert (device.has_password, device.media_transport) == (False, "udp")
    assert gateway.kept[CAMERA].ha1_md5 == gateway.kept[CAMERA].ha1_sha256 == ""
    assert gateway.did == [("drop", CAMERA)], "it must register by its new password"
    with pytest.raises(RequestError) as unknown:
        await desk.update_device("34020000001320000099", DeviceChange(name="x"))
    assert unknown.value.code == "unknown_device"


async def test_what_is_shown_of_a_device_and_its_channels(gateway: Gateway, desk: ControlDesk) -> None:
    gateway.directory.registered(CAMERA, udp(), edition="3.0", expires=NOW + timedelta(days=1), now=NOW)
    (device,) = desk.devices()
    assert desk.device(CAMERA) == device
    assert (device.online, device.transport, device.address, device.last_seen) == (True, "udp", "192.0.2.10:5060", NOW)
    assert desk.channels(CAMERA) == []
    (channel,) = await desk.refresh_catalog(CAMERA)
    assert (channel.id, channel.device_id, channel.name) == (CHANNEL, CAMERA, "gate")
    assert channel.online
    assert channel.playable
    assert channel.ptz
    assert channel.parent_id is None
    assert desk.channel(CAMERA, CHANNEL) == channel
    gateway.directory.offline(CAMERA, "expired")
    shown = desk.channel(CAMERA, CHANNEL)
    assert shown is not None
    assert not shown.online, "nobody reaches it now"
    for missing in (desk.device("x"), desk.channel(CAMERA, "x"), desk.channel("x", CHANNEL)):
        assert missing is None
    assert desk.channels("x") == ()
    with pytest.raises(RequestError):
        await desk.refresh_catalog("x")


async def test_what_is_passed_on(gateway: Gateway, desk: ControlDesk) -> None:
    await desk.delete_device(CAMERA)
    await desk.stop_stream(KEY)
    await desk.request_keyframe(CAMERA, CHANNEL)
    assert gateway.did == [("delete", CAMERA), ("stop", KEY), ("keyframe", CHANNEL)]
    gateway.tally.add("b.x", 2)
    gateway.tally.add("a.x")
    assert list(desk.counts().items()) == [("a.x", 1), ("b.x", 2)]
    assert list(desk.samples()) == [Sample("devices", 1)]
    assert desk.not_ready() == []


# Streams


async def test_a_playing_stream(gateway: Gateway, desk: ControlDesk) -> None:
    stream = published(timed_units(PatternSpec(width=320, height=180, seconds=2, gop=10)), until=60)
    gateway.sessions[KEY] = session(stream=stream, steps=10)
    (info,) = desk.streams()
    assert desk.stream(KEY) is not None
    assert desk.stream("x") is None
    assert (info.key, info.kind, info.state, info.cause, info.transport) == (KEY, "live", "playing", None, "udp")
    assert [(track.kind, track.codec) for track in info.tracks] == [("video", "H264"), ("audio", "PCMA")]
    assert (info.tracks[0].width, info.tracks[0].height) == (320, 180)
    assert info.tracks[0].frame_rate == pytest.approx(25)
    assert info.tracks[1].frame_rate is None
    assert (info.packets, info.lost) == (9, 1)
    assert info.started is not None
    assert abs((datetime.now(UTC) - info.started).total_seconds() - 10) < 1
    assert (await desk.start_stream(KEY)).key == KEY


async def test_a_failed_stream_shows_why(gateway: Gateway, desk: ControlDesk) -> None:
    cause = MediaError("Not one packet arrived.", code="no_media", remedy="open the firewall")
    gateway.sessions[KEY] = session(State.FAILED, cause=cause, steps=4, over=True)
    (info,) = desk.streams()
    assert info.cause is not None
    assert (info.state, info.cause.code, info.cause.remedy) == ("failed", "no_media", "open the firewall")
    assert info.tracks == ()
    assert info.bitrate == 0


@pytest.mark.parametrize("state", list(State))
async def test_every_state_has_its_words(gateway: Gateway, desk: ControlDesk, state: State) -> None:
    gateway.sessions[KEY] = session(state, steps=3)
    diagnosis = desk.diagnosis(KEY)
    assert diagnosis is not None
    assert diagnosis.state == state.value
    assert diagnosis.summary.endswith(".")


async def test_the_ladder_tells_how_far_it_came(gateway: Gateway, desk: ControlDesk) -> None:
    cause = MediaError("not one packet arrived", code="no_media", remedy="Open the firewall.")
    gateway.sessions[KEY] = session(State.FAILED, cause=cause, steps=4)
    diagnosis = desk.diagnosis(KEY)
    assert diagnosis is not None
    assert diagnosis.summary == "Not one packet arrived. Open the firewall."
    assert [step.name for step in diagnosis.steps] == list(STEPS)
    reached = [step for step in diagnosis.steps if step.at is not None]
    assert [step.name for step in reached] == list(STEPS[:4])
    assert [step.seconds for step in reached] == pytest.approx([0, 1, 2, 3])
    assert all(step.seconds is None for step in diagnosis.steps[4:])


async def test_a_stream_that_nobody_asked_for(gateway: Gateway, desk: ControlDesk) -> None:
    assert desk.diagnosis(KEY) is None, "an unknown device has no streams"
    gateway.directory.registered(CAMERA, udp(), edition="3.0", expires=NOW, now=NOW)
    idle = desk.diagnosis(KEY)
    assert idle is not None
    assert (idle.state, idle.cause, idle.summary) == ("idle", None, "Nobody asked for this stream yet.")
    gateway.directory.offline(CAMERA, "expired")
    offline = desk.diagnosis(KEY)
    assert offline is not None
    assert offline.cause is not None
    assert offline.cause.code == "device_offline"
    with pytest.raises(RequestError):
        desk.diagnosis("nonsense")


async def test_events_are_followed(gateway: Gateway, desk: ControlDesk) -> None:
    gateway.events.emit("device.online", id=CAMERA)
    following = desk.events(0)
    event = await anext(following)
    assert (event.id, event.type, event.data) == (1, "device.online", {"id": CAMERA})
    await following.aclose()  # type: ignore[attr-defined]


# Tokens


class Tokens:
    def __init__(self) -> None:
        self.rows: dict[str, Token] = {}

    async def tokens(self) -> list[Token]:
        return list(self.rows.values())

    async def put_token(self, token: Token) -> None:
        self.rows[token.hash] = token

    async def delete_token(self, digest: str) -> None:
        del self.rows[digest]


async def test_tokens_survive_the_store_and_go_one_by_one() -> None:
    store = Tokens()
    rows = TokenRows(store)  # type: ignore[arg-type]
    first, second = "ab" * 32, "ab" * 7 + "cd" * 25
    await rows.save_token(TokenRow(first[:16], "one", ("view", "admin"), first, NOW, None))
    await rows.save_token(TokenRow(second[:16], "two", ("view",), second, NOW, NOW + timedelta(days=1)))
    loaded = {row.name: row for row in await rows.load_tokens()}
    assert loaded["one"] == TokenRow(first[:16], "one", ("view", "admin"), first, NOW, None)
    assert loaded["two"].expires == NOW + timedelta(days=1)
    for not_one in ("", "ab", first, first[:15]):
        await rows.delete_token(not_one)
        assert len(store.rows) == 2, "a beginning is no token"
    await rows.delete_token(first[:16])
    assert list(store.rows) == [second]
