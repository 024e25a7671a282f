"""WebRTC against aiortc's own client over loopback, and over HTTP with the real server."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import aioice.ice
import pytest
from aiortc import RTCPeerConnection, rtcrtpreceiver, rtcrtpsender

from gbgw._webrtc import Payloads
from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H265, PCMA, PCMU
from gbgw.base.config import WebRtcConfig
from gbgw.base.errors import LocalError, MediaError, RequestError
from gbgw.base.tally import Tally
from gbgw.media import params
from gbgw.media.hub import Stream
from gbgw.mux.pattern import PatternSpec
from gbgw.serve import lite, payloads, ports, rtc_session, stock
from gbgw.serve.lane import NativeLane
from gbgw.serve.lite import LiteConnection
from gbgw.serve.outlet import Cut
from gbgw.serve.viewers import Viewer, Viewers
from gbgw.serve.webrtc import WebRtc
from gbgw.serve.whep import WhepRequest
from tests.support.streams import feed, timed_units
from tests.support.whep import Player
from tests.unit.serve.support import KEY, FakeSource, FakeViewing, World, until, world
from tests.unit.serve.test_payloads import depacketised_h265

SENDER: Literal["native", "aiortc"] = "native"
PORTS = ""
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


@pytest.fixture(autouse=True, params=["native", "aiortc", "native-one-port"])
def sender(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here holds for both senders, aiortc's own is the oracle of ours, and for both kinds of ICE: aioice's,
    and ours on one port for all viewers."""
    name, _, one_port = request.param.partition("-")
    monkeypatch.setattr(f"{__name__}.SENDER", name)
    monkeypatch.setattr(f"{__name__}.PORTS", str(free_port()) if one_port else "")
    return name


@cache
def units(audio: Any = PCMA, *, gop: int = 25, b_frames: int = 0, width: int = 320, video: Any = None) -> Any:
    extra = {} if video is None else {"video": video}
    return timed_units(
        PatternSpec(audio=audio, width=width, height=180, seconds=4, gop=gop, b_frames=b_frames, **extra)
    )


@dataclass
class Camera:
    """A Stream the test feeds, round after round with rising times."""

    units: Sequence[AccessUnit]
    stream: Stream = field(default_factory=lambda: Stream(KEY))
    sent: list[AccessUnit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream.promise(any(unit.codec in (PCMA, PCMU) for unit in self.units))

    def push(self, count: int) -> list[AccessUnit]:
        fresh = []
        for _ in range(count):
            round_, index = divmod(len(self.sent), len(self.units))
            unit = self.units[index]
            by = round_ * 4 * 90_000
            unit = unit.with_times((unit.pts or 0) + by, (unit.dts or 0) + by)
            feed(self.stream, [unit])
            self.sent.append(unit)
            fresh.append(unit)
        return fresh

    async def run(self, count: int, step: float = 0.004) -> list[AccessUnit]:
        """Push with the loop in between, faster than time."""
        fresh = []
        for _ in range(count):
            fresh += self.push(1)
            await asyncio.sleep(step)
        return fresh


@dataclass
class Watching(FakeViewing):
    keyframes: int = 0

    def request_keyframe(self) -> None:
        self.keyframes += 1


class Source(FakeSource):
    async def open(self, key: str, **options: Any) -> Watching:
        viewing = await super().open(key, **options)
        own = Watching(viewing.stream)
        self.viewings[-1] = own
        return own


@dataclass
class Bench:
    """The backend and who stands around it."""

    rtc: WebRtc
    tally: Tally
    viewers: Viewers
    viewing: Watching

    def request(self, local: str = "127.0.0.1") -> WhepRequest:
        viewer = self.viewers.add(KEY, "webrtc", "127.0.0.1")
        return WhepRequest(KEY, "127.0.0.1", "127.0.0.1", local, viewer, self.viewers)

    async def answer(self, offer: str, local: str = "127.0.0.1") -> tuple[str, str, Viewer]:
        request = self.request(local)
        answer, session = await self.rtc.answer(self.viewing, offer, request)
        return answer, session, request.viewer

    async def play(self, player: Player, local: str = "127.0.0.1") -> tuple[str, Viewer]:
        answer, session, viewer = await self.answer(await player.offer(), local)
        await self.connect(player, answer)
        return session, viewer

    async def connect(self, player: Player, answer: str) -> None:
        """Return when both sides know, so that what is pushed after that is live."""
        await player.accept(answer)
        sessions = self.rtc._sessions.values()
        await until(lambda: player.state == "connected" and all(session.is_connected for session in sessions), 8)


@contextlib.asynccontextmanager
async def bench(stream: Stream, **config: Any) -> AsyncIterator[Bench]:
    tally = Tally()
    async with WebRtc(WebRtcConfig(**{"sender": SENDER, "ports": PORTS, **config}), tally=tally) as rtc:
        yield Bench(rtc, tally, Viewers(), Watching(stream))


def sendable(unit: AccessUnit) -> list[bytes]:
    return [bytes(nal) for nal in params.nal_units(unit) if nal[0] & 31 not in (9, 12)]


def video(sent: Sequence[AccessUnit]) -> list[list[bytes]]:
    return [sendable(unit) for unit in sent if unit.codec.name == "H264"]


def sound(sent: Sequence[AccessUnit]) -> bytes:
    return b"".join(bytes(unit) for unit in sent if unit.codec in (PCMA, PCMU))


async def test_pictures_and_sound_arrive_as_they_were_sent() -> None:
    camera = Camera(units())
    camera.push(120)
    cached = [unit for unit, track in camera.stream.gop if track.is_video]
    async with bench(camera.stream) as it, Player() as player:
        session, viewer = await it.play(player)
        await until(lambda: len(player.pictures) == len(cached))
        live = await camera.run(80)
        await until(lambda: len(player.pictures) == len(cached) + len(video(live)))
        assert [nals for _, nals in player.pictures] == video(cached) + video(live)
        await until(lambda: player.sound == sound(live))
        assert viewer.bytes > sum(len(nal) for nals in video(live) for nal in nals)
        assert viewer.queue() == 0
        assert viewer.dropped == 0
        assert {sample.labels.get("state"): sample.value for sample in it.rtc.samples()}["connected"] == 1
        assert await it.rtc.delete(session) is True
        assert (it.viewing.closes, len(it.viewers), len(it.rtc)) == (1, 0, 0)
        await until(lambda: player.state == "closed")


async def test_a_viewer_of_the_other_law_hears_the_same_samples() -> None:
    camera = Camera(units())
    camera.push(60)
    async with bench(camera.stream) as it, Player(("audio",)) as player:
        offer = re.sub(r"(?m)^a=rtpmap:8 PCMA.*\r\n", "", await player.offer()).replace(" 0 8\r\n", " 0\r\n")
        answer, _, _ = await it.answer(offer)
        assert "PCMU/8000" in answer
        assert "PCMA" not in answer
        await it.connect(player, answer)
        live = await camera.run(60)
        await until(lambda: player.sound == sound(live).translate(payloads.MU_FROM_A))
        assert player.packets["video"] == []


@pytest.mark.parametrize("setup", ["actpass", "active", "passive"])
async def test_packets_are_protected_by_the_cheapest_profile(setup: str) -> None:
    """Where the viewer leaves it open we are the DTLS server and choose; else who is (RFC 5764 section 4.1.2)."""
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        offer = (await player.offer()).replace("a=setup:actpass", f"a=setup:{setup}")
        answer, _, _ = await it.answer(offer)
        assert f"a=setup:{'active' if setup == 'passive' else 'passive'}\r\n" in answer
        if setup == "passive":  # aiortc then expects to be the server
            for transport in player.peer._RTCPeerConnection__dtlsTransports:  # type: ignore[attr-defined]
                transport._set_role("server")
        await it.connect(player, answer)
        camera.push(30)
        await until(lambda: len(player.pictures) > 20)
        chosen = player.peer.getTransceivers()[0].receiver.transport._ssl.get_selected_srtp_profile()  # type: ignore[union-attr]
        assert chosen == (b"SRTP_AEAD_AES_256_GCM" if setup == "passive" else b"SRTP_AEAD_AES_128_GCM")


@dataclass
class Sample:
    """A piece of sound with any length and time."""

    data: bytes
    pts: int
    is_keyframe: bool = True

    def __bytes__(self) -> bytes:
        return self.data


async def test_a_sender_that_fails_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than leave the viewer with a still picture."""
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        await it.play(player)
        session = next(iter(it.rtc._sessions.values()))

        def broken(*_: Any) -> Any:
            raise OSError("libsrtp refuses")

        monkeypatch.setattr(stock.Ready, "pack", broken)
        monkeypatch.setattr(NativeLane, "_burst", broken)
        await camera.run(10)
        await until(lambda: not len(it.rtc))
        assert session._reason == "sender ended"
        assert it.viewing.closes == 1


@pytest.mark.parametrize("kinds", [("video",), ("audio", "video"), ("video", "audio", "audio", "video")])
async def test_each_line_is_answered_in_its_place(kinds: tuple[str, ...]) -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player(kinds, channel=len(kinds) > 3) as player:
        offer = await player.offer()
        answer, _, _ = await it.answer(offer)
        offered = re.findall(r"(?m)^m=(\w+) ", offer)
        answered = re.findall(r"(?m)^m=(\w+) (\d+) ", answer)
        assert [kind for kind, _ in answered] == offered
        assert {kind for kind, port in answered if port != "0"} == set(kinds)
        assert sum(1 for _, port in answered if port != "0") == len(set(kinds))
        assert re.findall(r"(?m)^a=mid:(\S+)", answer) == re.findall(r"(?m)^a=mid:(\S+)", offer)
        if "0" not in dict(answered).values() and len(kinds) < 4:
            await it.connect(player, answer)
            camera.push(30)
            await until(lambda: len(player.pictures) > 20)


# Closing: the leak gate of conftest.py judges each of these


async def test_garbage_costs_nothing() -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it:
        for text in (
            "v=0\r\n",
            "v=0\r\nm=video",
            "v=0\r\nm=audio 9 RTP/AVP 0\r\n",
            "v=0\nm=video 9 UDP/TLS/RTP/SAVPF 1\n",
        ):
            request = it.request()
            with pytest.raises(RequestError) as caught:
                await it.rtc.answer(it.viewing, text, request)
            assert caught.value.code in ("sdp_offer_invalid", "no_codec_fits")
            assert caught.value.status in (400, 406)
        assert len(it.rtc) == 0
        assert it.viewing.closes == 0  # the caller's


async def test_a_cancelled_answer_closes_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(units())
    camera.push(30)
    reached = asyncio.Event()
    owner: Any = LiteConnection if PORTS else ports.Gathering
    name = "gather_candidates" if PORTS else "__call__"
    gather = getattr(owner, name)

    async def slow(self: Any, *arguments: Any, **options: Any) -> Any:
        found = await gather(self, *arguments, **options)
        reached.set()
        await asyncio.sleep(0.05)
        return found

    monkeypatch.setattr(owner, name, slow)
    async with bench(camera.stream) as it, Player() as player:
        offer = await player.offer()
        for leave in (True, False):
            reached.clear()
            if not leave:
                monkeypatch.setattr(limits, "WHEP_ANSWER_SECONDS", 0.03)
            async with asyncio.TaskGroup() as group:
                posting = group.create_task(self_contained(it, offer))
                await reached.wait()
                if leave:
                    posting.cancel()
            if not leave:
                assert posting.result() == "webrtc_slow"
        assert len(it.rtc) == 0


async def self_contained(it: Bench, offer: str) -> str:
    try:
        await it.answer(offer)
    except LocalError as error:
        return error.code
    return "answered"


async def test_a_viewer_that_never_connects_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc_session, "CONNECT_SECONDS", 0.3)
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        _, session, _ = await it.answer(await player.offer())
        await until(lambda: not len(it.rtc))
        assert it.viewing.closes == 1
        assert len(it.viewers) == 0
        assert it.tally["webrtc.not_connected"] == 1
        assert await it.rtc.delete(session) is False


async def test_a_viewer_that_connects_by_ice_alone_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc_session, "CONNECT_SECONDS", 0.6)
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        for transport in player.peer._RTCPeerConnection__dtlsTransports:  # type: ignore[attr-defined]

            async def never(*_: object) -> None:
                return

            transport.start = never
        answer, _, _ = await it.answer(await player.offer())
        await player.accept(answer)
        await until(lambda: not len(it.rtc))
        assert it.viewing.closes == 1


@pytest.mark.parametrize("cause", [None, MediaError("The camera went away.", code="no_media")])
async def test_the_end_of_the_stream_ends_the_connection(cause: MediaError | None) -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        await it.play(player)
        camera.stream.close(cause)
        await until(lambda: player.state == "closed")
        await until(lambda: not len(it.rtc))
        assert it.viewing.closes == 1


async def test_a_stopping_gateway_closes_every_session() -> None:
    camera = Camera(units())
    camera.push(30)
    async with Player() as player, Player() as other:
        async with bench(camera.stream) as it:
            await it.play(player)
            await it.answer(await other.offer())  # not connected yet
        assert it.viewing.closes == 2
        assert len(it.rtc) == 0
        await until(lambda: player.state == "closed")
        with pytest.raises(LocalError) as caught:
            await it.answer("v=0")
        assert caught.value.code == "stopping"


async def test_a_viewer_that_says_goodbye_is_gone_at_once() -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        await it.play(player)
        await player.close()
        await until(lambda: not len(it.rtc))
        assert it.viewing.closes == 1


async def test_a_viewer_that_vanishes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 2)
    monkeypatch.setattr(limits, "WEBRTC_CONSENT_SECONDS", 1.0)
    monkeypatch.setattr(lite, "SWEEP_SECONDS", 0.05)
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        await it.play(player)
        player.vanish()
        async with asyncio.timeout(8):
            while len(it.rtc):
                await camera.run(1, 0.02)
        assert it.viewing.closes == 1


async def test_a_connection_that_does_not_close_is_torn_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc_session, "CLOSE_SECONDS", 0.2)
    camera = Camera(units())
    camera.push(30)
    async with Player() as player:
        async with bench(camera.stream) as it:
            session, _ = await it.play(player)

            async def never() -> None:
                await asyncio.Event().wait()

            for transceiver in next(iter(it.rtc._sessions.values()))._peer.getTransceivers():
                monkeypatch.setattr(transceiver.sender, "stop", never)
            assert await it.rtc.delete(session) is True
            assert it.tally["webrtc.slow_close"] == 1
            assert it.viewing.closes == 1
        player.vanish()


async def test_two_hundred_short_sessions_leave_nothing() -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        offer = await player.offer()
        for _ in range(200):
            _, session, _ = await it.answer(offer)
            assert await it.rtc.delete(session) is True
        assert it.viewing.closes == 200
        assert len(it.viewers) == 0
        assert it.tally["webrtc.slow_close"] == 0


# Addresses


def candidates(answer: str) -> list[tuple[str, int, int]]:
    """(host, port, priority), in the order of the answer's first section."""
    section = answer.split("m=")[1]
    found = re.findall(r"(?m)^a=candidate:\S+ 1 udp (\d+) (\S+) (\d+) typ host", section)
    return [(host, int(port), int(priority)) for priority, host, port in found]


@pytest.mark.parametrize(
    ("local", "advertise", "told", "bound"),
    [
        ("127.0.0.1", (), ["127.0.0.1"], "127.0.0.1"),
        ("", (), ["127.0.0.1"], "127.0.0.1"),
        ("/run/gbgw.sock", (), ["127.0.0.1"], "127.0.0.1"),
        ("::ffff:127.0.0.1", (), ["127.0.0.1"], "127.0.0.1"),
        ("::1", (), ["::1"], "::1"),
        ("127.0.0.1", ("198.51.100.7",), ["198.51.100.7", "127.0.0.1"], "0.0.0.0"),
        ("10.0.0.5", ("198.51.100.7",), ["10.0.0.5", "198.51.100.7"], "0.0.0.0"),
        ("0.0.0.0", ("198.51.100.7",), ["198.51.100.7"], "0.0.0.0"),
        ("127.0.0.1", ("2001:db8::7",), ["2001:db8::7", "127.0.0.1"], "::"),
        ("fe80::1%eth0", ("198.51.100.7",), ["fe80::1", "198.51.100.7"], "::"),
    ],
)
async def test_addresses_that_are_told_and_bound(
    local: str, advertise: tuple[str, ...], told: list[str], bound: str
) -> None:
    async with bench(Stream(KEY), advertise=advertise) as it:
        if PORTS and advertise:
            bound = "::"  # one socket, whatever address is told first
        assert it.rtc.addresses.hosts(it.request(local)) == (bound, tuple(told))


@pytest.mark.parametrize("local", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("advertise", [(), ("198.51.100.7",), ("2001:db8::7",)])
async def test_media_flows_whatever_is_advertised(local: str, advertise: tuple[str, ...]) -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream, advertise=advertise) as it, Player(host=local) as player:
        answer, _, _ = await it.answer(await player.offer(), local)
        found = candidates(answer)
        assert {host for host, _, _ in found} == {local, *advertise}
        assert len({port for _, port, _ in found}) == 1
        priorities = [priority for _, _, priority in found]
        assert priorities == sorted(priorities, reverse=True)
        await player.accept(answer)
        await until(lambda: player.state == "connected", 8)
        await until(lambda: len(player.pictures) > 5)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_each_port_of_a_range_carries_one_viewer_and_comes_back() -> None:
    camera = Camera(units())
    camera.push(30)
    port = free_port()
    async with bench(camera.stream, ports=f"{port}-{port + 1}") as it, Player() as player:
        offer = await player.offer()
        answers = [await it.answer(offer) for _ in range(2)]
        assert sorted(found for answer, _, _ in answers for _, found, _ in candidates(answer)) == [port, port + 1]
        with pytest.raises(LocalError) as caught:
            await it.answer(offer)
        assert caught.value.code == "webrtc_ports_exhausted"
        freed = candidates(answers[0][0])[0][1]
        await it.rtc.delete(answers[0][1])
        answer, _, _ = await it.answer(offer)
        assert [found for _, found, _ in candidates(answer)] == [freed]


async def test_an_address_that_is_not_ours_is_said_plainly() -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        with pytest.raises(LocalError) as caught:
            await it.answer(await player.offer(), "192.0.2.77")
        assert caught.value.code == "webrtc_bind_failed"


async def test_a_range_is_used_to_its_end() -> None:
    camera = Camera(units())
    camera.push(30)
    first = free_port()
    async with bench(camera.stream, ports=f"{first}-{min(first + 3, 65_535)}") as it, Player() as player:
        offer = await player.offer()
        ports = set()
        with contextlib.suppress(LocalError):  # another program may hold one of them
            for _ in range(4):
                answer, _, _ = await it.answer(offer)
                ports.add(candidates(answer)[0][1])
        assert first in ports
        assert ports <= set(range(first, first + 4))
        assert await self_contained(it, offer) == "webrtc_ports_exhausted"


# What a viewer says


async def test_a_lost_picture_asks_the_camera() -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        await it.play(player)
        await until(lambda: len(player.pictures) > 3)
        assert it.viewing.keyframes == 0
        await player.lose_picture()
        await until(lambda: it.viewing.keyframes == 1)
        assert it.tally["webrtc.pli"] == 1


async def test_lost_packets_are_sent_again() -> None:
    """Also those that aiortc's own history of 128 packets has forgotten."""
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        await it.play(player)
        live = await camera.run(300)
        packets = player.packets["video"]
        wanted = len(video(live))
        await until(lambda: len(player.pictures) > wanted)
        assert len(packets) > 140
        before = len(packets)
        lost = packets[1].sequence_number
        transceiver = player.peer.getTransceivers()[0]
        await transceiver.receiver._send_rtcp_nack(packets[0].ssrc, [lost])
        await until(lambda: len(packets) > before)
        assert packets[-1].payload[:2] == lost.to_bytes(2, "big")  # RFC 4588: the original sequence number in front
        assert packets[-1].payload[2:] == packets[1].payload


async def test_datagrams_of_strangers_do_no_harm() -> None:
    """Empty, huge, STUN in ruins, DTLS and RTP from nowhere: before and after the connection stands."""
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        answer, _, _ = await it.answer(await player.offer())
        port = candidates(answer)[0][1]
        hostile = [b"", b"\0", b"\0\1\0\4\x21\x12\xa4\x42", b"\x16\xfe\xfd" + bytes(40), b"\x80\x60" + bytes(60)]
        hostile += [b"\0\1\0\x08\x21\x12\xa4\x42" + bytes(12) + b"\0\6\0\4\xff\xff\xff\xff", bytes(60_000)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(200):
                for data in hostile:
                    stranger.sendto(data, ("127.0.0.1", port))
                await asyncio.sleep(0)
            await player.accept(answer)
            await until(lambda: player.state == "connected", 8)
            ice = next(iter(it.rtc._sessions.values())).transports[0].iceGatherer._connection
            for data in hostile * 20:
                stranger.sendto(data, ("127.0.0.1", port))
            await until(lambda: it.tally["webrtc.stray"] > 100 and it.tally["webrtc.stun_malformed"] > 100)
            waiting = len(ice._queue) if isinstance(ice, LiteConnection) else ice._queue.qsize()
            assert waiting < limits.WEBRTC_DATAGRAMS
        live = await camera.run(40)
        await until(lambda: len(player.pictures) >= len(video(live)))
        assert player.state == "connected"


async def test_candidates_may_come_later() -> None:
    camera = Camera(units())
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        offer = await player.offer()
        mine = re.findall(r"(?m)^a=candidate:.*\r\n", offer)
        answer, session, _ = await it.answer(re.sub(r"(?m)^a=candidate:.*\r\n", "", offer))
        mdns = "a=candidate:1 1 udp 2113937151 6b0c4b4e-0000-4000-8000-a0a0a0a0a0a0.local 40000 typ host\r\n"
        await it.rtc.patch(session, f"a=mid:0\r\n{mine[0]}{mdns}a=end-of-candidates\r\n")
        ice = next(iter(it.rtc._sessions.values())).transports[0].iceGatherer._connection
        assert [one.host for one in ice.remote_candidates] == ([] if PORTS else ["127.0.0.1"])  # lite asks nobody
        many = "".join(f"a=candidate:1 1 udp 1 127.0.0.1 {port} typ host\r\n" for port in range(1_000, 1_200))
        for _ in range(5):
            await it.rtc.patch(session, many)
        assert len(ice.remote_candidates) <= limits.WHEP_CANDIDATES * 2 + 1
        for text, code in (("a=ice-ufrag:another\r\na=ice-pwd:x\r\n", "ice_restart_unsupported"),):
            with pytest.raises(RequestError) as caught:
                await it.rtc.patch(session, text)
            assert (caught.value.status, caught.value.code) == (422, code)
        with pytest.raises(RequestError) as caught:
            await it.rtc.patch("none", "")
        assert caught.value.status == 404
        await player.accept(answer)
        await until(lambda: player.state == "connected", 8)


# What the stream does


async def test_time_stamps_rise_and_end_at_the_live_edge() -> None:
    camera = Camera(units(None, gop=100))
    camera.push(75)
    async with bench(camera.stream) as it, Player(("video",)) as player:
        await it.play(player)
        live = await camera.run(25)
        await until(lambda: len(player.pictures) == 100)
        times = [stamp for stamp, _ in player.pictures]
        steps = [(after - before) & 0xFFFFFFFF for before, after in pairwise(times)]
        assert all(0 < step <= 3_600 for step in steps)
        assert all(step < 3_600 for step in steps[:74])  # pressed together
        assert steps[74:] == [3_600] * 25  # and from the last cached one on as the camera has them
        assert len(live) == 25


async def test_a_large_picture_leaves_the_loop_its_turns() -> None:
    camera = Camera(units(None, width=1_920))
    camera.push(30)
    async with bench(camera.stream) as it, Player(("video",)) as player:
        await it.play(player)
        cached = [unit for unit, track in camera.stream.gop if track.is_video]
        await until(lambda: len(player.pictures) == len(cached))
        session = next(iter(it.rtc._sessions.values()))
        assert session._outlet is not None
        sent, count = sent_packets(session)
        turns: list[int] = []
        payload = Payloads((b"\x7c\x85" + bytes(1_000),) * 640)
        session._outlet.video.put(Cut(payload, 9, 0.0), is_keyframe=True, is_paced=False)
        while sum(turns) < 640:
            await asyncio.sleep(0)
            turns.append(count() - sent)
            sent = count()
        assert max(turns) <= limits.WEBRTC_BURST_PACKETS + 2  # RTCP beside it


def sent_packets(session: Any) -> tuple[int, Callable[[], int]]:
    """How many packets of pictures have left, and how to look again."""
    if SENDER == "native":
        lane = session._outlet.video
        return lane._way.sender.packets, lambda: int(lane._way.sender.packets)
    paced, sent = session.transports[0]._send, [0]
    assert isinstance(paced, stock.Paced)
    send = paced._send

    async def counting(data: bytes) -> None:
        sent[0] += 1
        await send(data)

    paced._send = counting
    return 0, lambda: sent[0]


async def test_a_heavy_gop_is_not_sent_but_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WEBRTC_CATCH_UP_BYTES", 1_000)
    camera = Camera(units(None))
    camera.push(30)
    async with bench(camera.stream) as it, Player(("video",)) as player:
        await it.play(player)
        assert it.viewing.keyframes == 1
        live = await camera.run(40)
        first = next(index for index, unit in enumerate(live) if unit.is_keyframe)
        await until(lambda: len(player.pictures) == len(live) - first)
        assert player.pictures[0][1] == sendable(live[first])


async def test_a_paused_viewer_has_a_bound_and_goes_on_with_a_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(units(None))
    camera.push(30)
    async with bench(camera.stream) as it, Player(("video",)) as player:
        _, viewer = await it.play(player)
        await until(lambda: len(player.pictures) == 5)
        monkeypatch.setattr(limits, "SUBSCRIPTION_BYTES", 30_000)
        outlet = next(iter(it.rtc._sessions.values()))._outlet
        assert outlet is not None
        outlet.on_writable(False)
        camera.push(1)
        await asyncio.sleep(0.05)
        for _ in range(300):
            camera.push(1)
            assert viewer.queue() <= 30_000
        assert viewer.dropped > 100
        assert viewer.skips > 0
        assert it.viewing.keyframes > 0
        known = len(player.pictures)
        outlet.on_writable(True)
        live = await camera.run(30)
        wanted = [sendable(unit) for unit in camera.sent]
        await until(lambda: len(player.pictures) >= known + len(live) - 25)
        await asyncio.sleep(0.1)
        after = [nals for _, nals in player.pictures[known:]]
        # all that was sent after the hole is a key frame and what follows it, without another hole
        start = len(wanted) - len(after) if len(after) <= len(wanted) else 0
        begins = next(index for index, nals in enumerate(after) if any(nal[0] & 31 == 5 for nal in nals))
        assert begins <= 1  # one picture may have been on its way already
        assert after[begins:] == wanted[start + begins :]


async def test_another_resolution_plays_on() -> None:
    camera = Camera(units(None))
    camera.push(30)
    async with bench(camera.stream) as it, Player(("video",)) as player:
        await it.play(player)
        await until(lambda: len(player.pictures) == 5)
        camera.units = units(None, width=640)
        live = await camera.run(70)
        assert camera.stream.generation == 2
        assert camera.stream.video is not None
        assert camera.stream.video.width == 640
        await until(lambda: player.pictures[-1][1] == sendable(live[-1]))
        assert len(it.rtc) == 1


async def test_h265_reaches_a_viewer_that_offers_it() -> None:
    """aiortc knows no H.265: its offer and our answer are put into its words on the way, the packets are ours."""
    camera = Camera(units(video=H265))
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        offer = await player.offer()
        number = re.findall(r"a=rtpmap:(\d+) H264/90000", offer)[0]
        as_h265 = "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST"
        offer = offer.replace(f"a=rtpmap:{number} H264/90000", f"a=rtpmap:{number} H265/90000")
        told = re.search(rf"(?m)^a=fmtp:{number} (.*?)\r?$", offer)
        assert told is not None
        offer = offer.replace(
            told[0], f"a=fmtp:{number} {as_h265}\r" if told[0].endswith("\r") else f"a=fmtp:{number} {as_h265}"
        )
        answer, _, _ = await it.answer(offer)
        assert f"a=rtpmap:{number} H265/90000" in answer
        assert f"a=fmtp:{number} {as_h265}" in answer
        await it.connect(player, answer.replace("H265/90000", "H264/90000").replace(as_h265, told[1]))
        live = await camera.run(60)
        wanted = [bytes(nal) for unit in live if unit.codec is H265 for nal in params.nal_units(unit)]
        wanted = [nal for nal in wanted if nal[0] >> 1 not in (35, 38)]
        seen: list[bytes] = []
        async with asyncio.timeout(8):
            while seen[-10:] != wanted[-10:]:
                await asyncio.sleep(0.05)
                seen = depacketised_h265([packet.payload for packet in player.packets["video"]])
        assert {nal[0] >> 1 for nal in seen} >= {32, 33, 34}
        await until(lambda: player.sound == sound(live))


@pytest.mark.parametrize("change", ["B-frames", "H265"])
async def test_what_webrtc_cannot_carry_ends_the_session(change: str) -> None:
    camera = Camera(units(None))
    camera.push(30)
    async with bench(camera.stream) as it, Player(("video",)) as player:
        await it.play(player)
        session = next(iter(it.rtc._sessions.values()))
        camera.units = units(None, b_frames=2) if change == "B-frames" else units(None, video=H265)
        await camera.run(75, 0.001)
        await until(lambda: not len(it.rtc))
        assert change in session._reason
        await until(lambda: player.state == "closed")


@pytest.mark.parametrize(
    ("spec", "code"),
    [({"b_frames": 2}, "b_frames_unsupported"), ({"video": H265}, "no_codec_fits")],
)
async def test_what_webrtc_cannot_carry_is_refused(spec: dict[str, Any], code: str) -> None:
    camera = Camera(units(None, **spec))
    camera.push(30)
    async with bench(camera.stream) as it, Player() as player:
        with pytest.raises(RequestError) as caught:
            await it.answer(await player.offer())
        assert (caught.value.status, caught.value.code) == (406, code)
        assert caught.value.remedy


# Over HTTP


@contextlib.asynccontextmanager
async def gateway(**options: Any) -> AsyncIterator[tuple[World, WebRtc, Camera]]:
    camera = Camera(units())
    camera.push(30)
    config = WebRtcConfig(ice_servers=("stun:stun.example:3478",), sender=SENDER, ports=PORTS)
    source = Source({KEY: camera})  # type: ignore[dict-item]
    async with WebRtc(config, tally=Tally()) as rtc, world(whep=rtc, source=source, **options) as it:
        yield it, rtc, camera


async def test_whep_from_offer_to_delete() -> None:
    async with gateway(public_url="") as (it, rtc, _), Player() as player:
        url = f"{it.url}/live/{KEY}/whep"
        async with it.client.post(url, data=await player.offer(), headers=SDP) as response:
            assert response.status == 201
            assert response.headers["Link"] == '<stun:stun.example:3478>; rel="ice-server"'
            answer = await response.text()
            location = it.url + response.headers["Location"]
        assert "stun.example" not in answer  # told in the header alone
        assert candidates(answer)[0][0] == "127.0.0.1"
        await player.accept(answer)
        await until(lambda: player.state == "connected", 8)
        await until(lambda: len(player.pictures) > 3)
        fragment = "a=mid:0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n"
        for data, headers, status in (
            (fragment, FRAGMENT, 204),
            (fragment, SDP, 415),
            ("a=ice-ufrag:abcd\r\n", FRAGMENT, 422),
            ("x" * (limits.WHEP_SDP_BYTES + 1), FRAGMENT, 413),
        ):
            async with it.client.patch(location, data=data, headers=headers) as response:
                assert response.status == status
        for status in (200, 404):
            async with it.client.delete(location) as response:
                assert response.status == status
        async with it.client.patch(location, data=fragment, headers=FRAGMENT) as response:
            assert response.status == 404
        assert (it.source.watching, len(it.serving.viewers), len(rtc)) == (0, 0, 0)
        async with it.client.options(url) as response:
            assert response.status == 204
            assert response.headers["Accept-Post"] == "application/sdp"


async def test_refusals_over_http_give_everything_back() -> None:
    async with gateway() as (it, rtc, _):
        url = f"{it.url}/live/{KEY}/whep"
        hopeless = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=recvonly\r\n"
        for data, headers, status, code in (
            ("v=0\r\n", {"Content-Type": "text/plain"}, 415, "content_type"),
            ("v=0\r\nm=\xff\r\n", SDP, 400, "sdp_offer_invalid"),
            (hopeless, SDP, 406, "no_codec_fits"),
        ):
            async with it.client.post(url, data=data, headers=headers) as response:
                assert response.status == status
                assert (await response.json())["error"]["code"] == code
        assert (it.source.watching, len(it.serving.viewers), len(rtc)) == (0, 0, 0)


async def test_without_a_token_nothing_is_opened() -> None:
    async with gateway(play="token") as (it, _, _):
        url = f"{it.url}/live/{KEY}/whep"
        for query, statuses in (("", (401,)), ("?token=wrong", (401, 403))):
            async with it.client.post(url + query, data="v=0", headers=SDP) as response:
                assert response.status in statuses
        assert it.source.opened == []


async def test_a_client_that_leaves_while_it_posts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc_session, "CONNECT_SECONDS", 0.3)
    async with gateway() as (it, rtc, _), Player() as player:
        offer = (await player.offer()).encode()
        head = f"POST /live/{KEY}/whep HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\n"
        for body in (offer, offer[:100]):
            _, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(f"{head}Content-Length: {len(offer)}\r\n\r\n".encode() + body)
            await writer.drain()
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await asyncio.sleep(0.1)
        await until(lambda: not len(rtc) and not it.source.watching and not len(it.serving.viewers))


# Internals


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RTCPeerConnection, "_RTCPeerConnection__connect"),
        (rtcrtpsender.RTCRtpSender, "_send_keyframe"),
        (rtcrtpsender, "RTP_HISTORY_SIZE"),
        (rtcrtpreceiver, "RemoteBitrateEstimator"),
        (aioice.ice.Connection, "get_component_candidates"),
    ],
)
def test_another_version_is_refused_at_start(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(LocalError) as caught:
        WebRtc(WebRtcConfig(), tally=Tally())
    assert caught.value.code == "webrtc_version"
    assert name in caught.value.message
    assert "aiortc 1.16" in caught.value.message


async def test_every_internal_of_a_connection_is_there() -> None:
    """Made without us, so that a new version of aiortc or aioice is told apart from a mistake of ours."""
    async with Player() as player, Player() as other:
        await other.peer.setRemoteDescription(await player.peer.createOffer())
        peer = other.peer
        transports = peer._RTCPeerConnection__iceTransports  # type: ignore[attr-defined]
        assert transports
        assert peer._RTCPeerConnection__dtlsTransports  # type: ignore[attr-defined]
        assert peer._RTCPeerConnection__closeTask is None  # type: ignore[attr-defined]
        assert len(peer._RTCPeerConnection__certificates) == 1  # type: ignore[attr-defined]
        for transport in transports:
            ice = transport.iceGatherer._connection
            assert {"_queue", "_check_list", "_protocols", "_closing"} <= vars(ice).keys()
            assert {"_query_consent_task", "_nominated"} <= vars(ice).keys()
            assert {"_send", "_RTCIceTransport__monitor_task"} <= vars(transport).keys()
        for transceiver in peer.getTransceivers():
            assert transceiver._codecs
            names = vars(transceiver.sender).keys()
            assert {f"_RTCRtpSender__{name}" for name in ("encoder", "rtp_task", "rtcp_task")} <= names
            assert {"_ssrc", "_rtx_ssrc"} <= names
            dtls = transceiver.sender.transport
            assert {"_task", "_tx_srtp", "_rtp_router"} <= vars(dtls).keys()
            assert callable(dtls._register_rtp_sender)
            assert callable(dtls._rtp_router.unregister_sender)  # type: ignore[attr-defined]


async def test_another_version_is_told_at_the_first_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = "_rtx_ssrc" if SENDER == "native" else "_RTCRtpSender__encoder"
    camera = Camera(units())
    camera.push(30)
    made = rtcrtpsender.RTCRtpSender.__init__

    def without(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        delattr(self, gone)

    async with bench(camera.stream) as it, Player() as player:
        offer = await player.offer()
        monkeypatch.setattr(rtcrtpsender.RTCRtpSender, "__init__", without)
        with pytest.raises(LocalError) as caught:
            await it.answer(offer)
        assert caught.value.code == "webrtc_version"
        assert gone in caught.value.message
