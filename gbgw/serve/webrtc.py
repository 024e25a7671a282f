"""WebRTC play on aiortc: H.264 and G.711 passed through, addresses and ports of our own choosing (architecture
decision 4).

The only file that touches aiortc and aioice internals; each place is marked "internal:" and held by a test, and the
versions are pinned. Packets are sent by aiortc's stock sender, behind `Sender`, so that a faster one can take its
place. Leaves out: H.265 and AAC (refused, or asked for as `?video=h264`), TURN towards viewers behind symmetric NAT.
"""

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Any, Final, Protocol, Self

import av
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import Connection as IceConnection
from aioice.ice import StunProtocol
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import is_rtx
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.sdp import candidate_from_sdp

from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H264, PCMA, PCMU
from gbgw.base.config import WebRtcConfig, port_range
from gbgw.base.errors import GatewayError, LocalError, RequestError
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.media.hub import Stream, Subscription
from gbgw.media.track import Track
from gbgw.observe import log
from gbgw.serve.source import Viewing
from gbgw.serve.whep import WhepRequest

CLOCK: Final = Fraction(1, HZ)
CATCH_UP_TICKS: Final = (
    90  # 1 ms between pictures of the cached GOP: the viewer decodes them at once and shows the last
)
CATCH_UP_BYTES_PER_SECOND: Final = 6_000_000  # a cached GOP is paced to this; a burst would overrun receive buffers
CONNECT_SECONDS: Final = 15.0  # for ICE and DTLS together
CLOSE_SECONDS: Final = 2.0
START_CODE: Final = b"\0\0\0\1"


class Sender(Protocol):
    """What carries units to one viewer. The stock form is two aiortc tracks fed by an Outlet."""

    def on_unit(self, unit: AccessUnit, track: Track, *, cached: bool) -> None: ...
    def close(self) -> None: ...


class WebRtc:
    """All WebRTC viewers of this process; serve.whep.WhepBackend."""

    def __init__(self, config: WebRtcConfig, *, tally: Tally) -> None:
        self._config = config
        self._tally = tally
        self._ports = _Ports(config.ports)
        self._sessions: dict[str, _Session] = {}
        self._tasks = asyncio.TaskGroup()
        self._log = log.get("webrtc")

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in list(self._sessions.values()):
            session.end("stopping")
        await self._tasks.__aexit__(None, None, None)

    def __len__(self) -> int:
        return len(self._sessions)

    def ice_servers(self) -> tuple[str, ...]:
        return self._config.ice_servers

    async def answer(self, viewing: Viewing, offer_sdp: str, request: WhepRequest) -> tuple[str, str]:
        """Answer an offer; see WhepBackend."""
        stream = viewing.stream
        _check_playable(stream)
        session = _Session(self, secrets.token_urlsafe(24), viewing, request, self._tally)
        try:
            async with asyncio.timeout(limits.WHEP_ANSWER_SECONDS):
                answer = await session.negotiate(offer_sdp)
        except TimeoutError:
            await session.abandon()
            raise LocalError("The WebRTC answer took too long.", code="webrtc_slow", remedy="Try again.") from None
        except BaseException:
            await session.abandon()
            raise
        self._sessions[session.id] = session
        self._tasks.create_task(self._run(session), name=f"webrtc:{request.key}#{request.viewer.id}")
        return answer, session.id

    async def _run(self, session: "_Session") -> None:
        try:
            await session.run()
        finally:
            self._sessions.pop(session.id, None)

    async def patch(self, session_id: str, fragment: str) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            raise RequestError(
                "There is no such WebRTC session.", status=404, code="unknown_session", remedy="POST a new offer."
            )
        await session.add_candidates(fragment)

    async def delete(self, session_id: str) -> bool:
        session = self._sessions.get(session_id)
        if session is None:
            return False
        session.end("deleted")
        await session.closed()
        return True

    def candidate_hosts(self, request: WhepRequest) -> tuple[str, tuple[str, ...]]:
        """Return (address to bind, addresses to tell): the one the request came to, and `webrtc.advertise`.

        With advertised addresses the socket is bound to all, since they are not ours to bind.
        """
        local = request.local or "127.0.0.1"
        own = [local] if local not in ("0.0.0.0", "::") else []
        hosts = tuple(dict.fromkeys([*own, *self._config.advertise]))
        if not self._config.advertise:
            return local, hosts
        return ("::" if ":" in local else "0.0.0.0"), hosts

    async def open_socket(self, ice: IceConnection, bind: str) -> StunProtocol:
        """Open one UDP socket for a viewer, within `webrtc.ports`."""
        return await self._ports.open(ice, bind)


def _check_playable(stream: Stream) -> None:
    video = stream.video
    if video is not None and video.codec is not H264:
        raise RequestError(
            f"The stream is {video.codec.name}, which WebRTC in browsers cannot be relied on to play.",
            status=406,
            code="no_codec_fits",
            remedy="Ask with ?video=h264 where media.transcode allows it, or play by FLV or HLS.",
            stream=stream.key,
        )
    if video is not None and video.reorder_depth > 0:
        raise RequestError(
            "The stream has B-frames, which WebRTC cannot play.",
            status=406,
            code="b_frames_unsupported",
            remedy="Switch B-frames off in the camera, ask with ?video=h264, or play by FLV or HLS.",
            stream=stream.key,
        )
    if video is None and (stream.audio is None or stream.audio.codec not in (PCMA, PCMU)):
        raise RequestError(
            "The stream has nothing that WebRTC carries.",
            status=406,
            code="no_codec_fits",
            remedy="Play by FLV or HLS.",
            stream=stream.key,
        )


class _Ports:
    """UDP ports of viewers: ephemeral, or the free ones of a range in turn."""

    def __init__(self, ports: str) -> None:
        self._range = port_range(ports) if ports else None
        self._next = 0

    async def open(self, ice: IceConnection, bind: str) -> StunProtocol:
        loop = asyncio.get_running_loop()
        for port in self._candidates():
            try:
                _, protocol = await loop.create_datagram_endpoint(lambda: StunProtocol(ice), local_addr=(bind, port))
            except OSError:
                continue
            return protocol
        raise LocalError(
            "No UDP port is free for this WebRTC viewer.",
            code="webrtc_ports_exhausted",
            remedy="Widen webrtc.ports; every viewer needs one.",
        )

    def _candidates(self) -> list[int]:
        if self._range is None:
            return [0]
        size = len(self._range)
        self._next = (self._next + 1) % size
        return [self._range[(self._next + step) % size] for step in range(size)]


class _Session:
    """One viewer: a peer connection, the Outlet that feeds it, and the right to watch."""

    def __init__(self, owner: WebRtc, session_id: str, viewing: Viewing, request: WhepRequest, tally: Tally) -> None:
        self.id = session_id
        self._owner = owner
        self._viewing = viewing
        self._request = request
        self._tally = tally
        self._over = asyncio.Event()
        self._done = asyncio.Event()
        self._connected = asyncio.Event()
        self._reason = ""
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peer.on("connectionstatechange", self._on_state)
        self._outlet: Outlet | None = None
        self._log = log.get("webrtc").bind(stream=request.key, viewer=request.viewer.id)

    async def negotiate(self, offer_sdp: str) -> str:
        stream = self._viewing.stream
        self._outlet = Outlet(stream, self._request, self._tally, self.end)
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(_usable_offer(offer_sdp), "offer"))
        except (ValueError, AssertionError, KeyError, IndexError, AttributeError) as error:
            # internal: aiortc.sdp raises all of these for offers that it cannot read
            raise RequestError(
                f"The SDP offer cannot be used ({type(error).__name__}).",
                code="sdp_offer_invalid",
                remedy="Offer recvonly audio and video as browsers do.",
                stream=self._request.key,
            ) from None
        self._attach_tracks(stream)
        self._own_addresses()
        try:
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except ValueError as error:
            raise RequestError(
                "The offer has no codec in common with the stream.",
                status=406,
                code="no_codec_fits",
                remedy="Offer H.264, and PCMA or PCMU.",
                stream=self._request.key,
            ) from error
        return str(self._peer.localDescription.sdp)

    def _attach_tracks(self, stream: Stream) -> None:
        """Answer each media line of the offer: video with H.264, audio with the camera's G.711, the rest inactive."""
        assert self._outlet is not None
        audio = stream.audio.codec if stream.audio is not None and stream.audio.codec in (PCMA, PCMU) else PCMA
        served: set[str] = set()
        for transceiver in self._peer.getTransceivers():
            kind = transceiver.kind
            if kind in served:
                transceiver.direction = "inactive"
                continue
            wanted = "video/H264" if kind == "video" else f"audio/{audio.name}"
            # internal: the codecs in common were settled by setRemoteDescription, before this transceiver existed
            transceiver._codecs = _only(transceiver._codecs, wanted)
            if not transceiver._codecs:
                transceiver.direction = "inactive"
                continue
            served.add(kind)
            transceiver.sender.replaceTrack(self._outlet.video if kind == "video" else self._outlet.audio)
            transceiver.direction = "sendonly"
            # internal: the stock sender would ask its encoder, of which there is none, for a key frame
            transceiver.sender._send_keyframe = self._on_picture_lost  # type: ignore[method-assign]
        if stream.video is not None and "video" not in served:
            raise RequestError(
                "The offer has no video to receive.",
                status=406,
                code="no_codec_fits",
                remedy="Add a recvonly video transceiver.",
                stream=self._request.key,
            )

    def _own_addresses(self) -> None:
        """Replace aioice's gathering, which binds every address of the host but loopback, on ephemeral ports."""
        bind, hosts = self._owner.candidate_hosts(self._request)
        transports = self._peer._RTCPeerConnection__iceTransports  # type: ignore[attr-defined]  # internal
        for transport in transports:
            ice: IceConnection = transport.iceGatherer._connection  # internal
            if isinstance(ice.__dict__.get("get_component_candidates"), _Gathering):
                continue
            ice.__dict__["get_component_candidates"] = _Gathering(self._owner, ice, bind, hosts)

    def _on_picture_lost(self) -> None:
        """PLI or FIR from the viewer."""
        self._tally.add("webrtc.pli")
        self._viewing.request_keyframe()

    def _on_state(self) -> None:
        state = self._peer.connectionState
        if state == "connected":
            self._connected.set()
            if self._outlet is not None:
                self._outlet.begin()
        elif state in ("failed", "closed"):
            self.end("connection " + state)

    def end(self, reason: str) -> None:
        if not self._over.is_set():
            self._reason = reason
            self._over.set()

    async def closed(self) -> None:
        await self._done.wait()

    async def run(self) -> None:
        """From the answer to the end of the connection; gives everything back."""
        try:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._first(self._connected, self._over)
            except TimeoutError:
                self._tally.add("webrtc.not_connected")
                self.end("not connected in time")
            await self._over.wait()
        finally:
            self._log.info("ended", reason=self._reason)
            try:
                await self._close()
            finally:
                self._done.set()

    @staticmethod
    async def _first(*events: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(event.wait(), name="webrtc:wait") for event in events]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _close(self) -> None:
        try:
            await self.abandon()
        finally:
            self._request.viewers.remove(self._request.viewer)
            await self._viewing.close()

    async def abandon(self) -> None:
        """Close the peer connection only; the caller still owns the viewing."""
        if self._outlet is not None:
            self._outlet.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._peer.close()
        except TimeoutError:
            self._tally.add("webrtc.slow_close")

    async def add_candidates(self, fragment: str) -> None:
        """Trickle (RFC 8840): candidate lines behind their a=mid."""
        mid = "0"
        for line in fragment.splitlines()[:64]:
            if line.startswith("a=mid:"):
                mid = line[6:].strip()
            elif line.startswith("a=candidate:") and not _is_mdns(line):
                try:
                    candidate = candidate_from_sdp(line.removeprefix("a=candidate:"))
                except (ValueError, AssertionError, IndexError):
                    raise RequestError("A candidate cannot be read.", code="candidate_invalid") from None
                candidate.sdpMid = mid
                await self._peer.addIceCandidate(candidate)


class _Gathering:
    """Stands in for aioice.Connection.get_component_candidates on one connection."""

    def __init__(self, owner: WebRtc, ice: IceConnection, bind: str, hosts: tuple[str, ...]) -> None:
        self._owner = owner
        self._ice = ice
        self._bind = bind
        self._hosts = hosts

    async def __call__(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        protocol = await self._owner.open_socket(self._ice, self._bind)
        port = protocol.transport.get_extra_info("sockname")[1]
        self._ice._protocols.append(protocol)  # internal
        candidates = [
            Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host", 65_535 - index),
                host=host,
                port=port,
                type="host",
            )
            for index, host in enumerate(self._hosts)
        ]
        protocol.local_candidate = candidates[0]
        return candidates


class Outlet:
    """Feeds two aiortc tracks from one Stream; the stock `Sender`.

    Cached pictures leave first, their timestamps pressed together in front of the live ones, so that the viewer decodes
    them at once and is live with the first picture it shows.
    """

    def __init__(self, stream: Stream, request: WhepRequest, tally: Tally, end: Callable[[str], None]) -> None:
        self.video = PacketTrack("video", request)
        self.audio = PacketTrack("audio", request)
        self._stream = stream
        self._request = request
        self._tally = tally
        self._end = end
        self._subscription: Subscription | None = None
        self._replaying = False
        self._cached: list[tuple[AccessUnit, Track]] = []
        self._generation: int | None = None
        self._last_pts = -1
        self._closed = False
        request.viewer.queue = lambda: self.video.queued_bytes + self.audio.queued_bytes

    def begin(self) -> None:
        """The way to the viewer is open."""
        if self._subscription is not None or self._closed:
            return
        if self._stream.ended:
            self._end("stream ended")
            return
        self._replaying = True
        subscription = self._stream.attach(self)
        self._replaying = False
        self._subscription = subscription
        pictures = [(unit, track) for unit, track in self._cached if track.is_video]
        self._cached = []
        if pictures:
            live = pictures[-1][0].pts
            assert live is not None
            for index, (unit, track) in enumerate(pictures):
                at = live - (len(pictures) - 1 - index) * CATCH_UP_TICKS
                self._put_picture(unit, track, at, paced=True)

    def close(self) -> None:
        self._closed = True
        if self._subscription is not None:
            self._subscription.detach()
        self.video.stop()
        self.audio.stop()

    # media.hub.Sink

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        if self._generation is not None:
            video = next((track for track in tracks if track.is_video), None)
            if video is not None and (video.codec is not H264 or video.reorder_depth > 0):
                self._end("the stream changed to what WebRTC cannot carry")
        self._generation = generation

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        if self._replaying:
            self._cached.append((unit, track))
        elif track.is_video:
            assert unit.pts is not None
            self._put_picture(unit, track, unit.pts, paced=False)
        elif track.codec in (PCMA, PCMU):
            assert unit.pts is not None
            self._put_sound(unit)

    def on_end(self, cause: GatewayError | None) -> None:
        self._end(f"stream ended: {cause.code}" if cause is not None else "stream ended")

    def _put_picture(self, unit: AccessUnit, track: Track, pts: int, *, paced: bool) -> None:
        data = bytes(unit)
        if unit.is_keyframe and not unit.parameter_sets:
            data = b"".join(START_CODE + nal for nal in track.parameter_sets) + data
        pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        dropped = self.video.put(data, pts, is_keyframe=unit.is_keyframe, paced=paced)
        if dropped:
            self._request.viewer.dropped += dropped
            self._tally.add("webrtc.slow_viewer", dropped)

    def _put_sound(self, unit: AccessUnit) -> None:
        assert unit.pts is not None
        self.audio.put(bytes(unit), unit.pts, is_keyframe=True, paced=False)


class PacketTrack(MediaStreamTrack):
    """An aiortc track whose frames are already coded. The queue is bounded in bytes; full, it drops to the next key
    frame."""

    def __init__(self, kind: str, request: WhepRequest) -> None:
        super().__init__()
        self.kind = kind
        self.queued_bytes = 0
        self._request = request
        self._queue: deque[tuple[bytes, int, bool]] = deque()
        self._ready = asyncio.Event()
        self._skipping = False
        self._base: int | None = None

    def put(self, data: bytes, pts: int, *, is_keyframe: bool, paced: bool) -> int:
        """Queue one unit; return how many were dropped for it."""
        dropped = 0
        if self.queued_bytes + len(data) > limits.SUBSCRIPTION_BYTES and not paced:
            dropped = len(self._queue)
            self._queue.clear()
            self.queued_bytes = 0
            self._skipping = True
        if self._skipping and not is_keyframe:
            return dropped + 1
        self._skipping = False
        self._queue.append((data, pts, paced))
        self.queued_bytes += len(data)
        self._ready.set()
        return dropped

    def stop(self) -> None:
        super().stop()
        self._ready.set()

    async def recv(self) -> Any:
        """The next unit as a packet; called by aiortc's sender."""
        while not self._queue:
            if self.readyState != "live":
                raise MediaStreamError
            self._ready.clear()
            await self._ready.wait()
        data, pts, paced = self._queue.popleft()
        self.queued_bytes -= len(data)
        if paced:
            await asyncio.sleep(len(data) / CATCH_UP_BYTES_PER_SECOND)
        packet = av.Packet(data)
        if self._base is None:
            self._base = pts
        packet.pts = pts - self._base
        packet.time_base = CLOCK
        self._request.viewer.bytes += len(data)
        return packet


def _only(codecs: Sequence[RTCRtpCodecParameters], wanted: str) -> list[RTCRtpCodecParameters]:
    """The codecs in common of one kind, best first, each with the retransmission that belongs to it."""
    chosen = [codec for codec in codecs if codec.mimeType.lower() == wanted.lower()]
    types = {codec.payloadType for codec in chosen}
    repair = [codec for codec in codecs if is_rtx(codec) and codec.parameters.get("apt") in types]
    return chosen + repair


_MDNS: Final = re.compile(r"^a=candidate:\S+ \d+ \S+ \d+ \S+\.local ", re.IGNORECASE)


def _is_mdns(line: str) -> bool:
    return _MDNS.match(line) is not None


def _usable_offer(sdp: str) -> str:
    """Take out mDNS names, which would be asked for by multicast, and the end of candidates: the browser reaches us
    first.

    Without an end, aioice waits for the browser's checks instead of failing for want of candidates.
    """
    lines = [line for line in sdp.splitlines() if not _is_mdns(line) and not line.startswith("a=end-of-candidates")]
    return "\r\n".join(lines) + "\r\n"
