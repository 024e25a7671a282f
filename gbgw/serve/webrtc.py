"""WebRTC play on aiortc: H.264 and G.711 passed through, addresses and ports of our own choosing (architecture
decision 4).

The only file that touches aiortc and aioice internals: each place goes through `_internal` or `_replace`, which name
the version when it has changed, and is held by a test. Pictures are cut once for all viewers (serve.payloads) and sent
by aiortc's stock sender. Offers are read by serve.offer; aiortc sees none of their text. Leaves out: H.265 and AAC
(refused, or asked for as `?video=h264`), TURN towards viewers behind symmetric NAT.
"""

import asyncio
import errno
import ipaddress
import secrets
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from importlib import metadata
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import Connection as IceConnection
from aioice.ice import StunProtocol
from aioice.stun import parse_message
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceTransport,
    RTCPeerConnection,
    RTCSessionDescription,
    rtcrtpsender,
)
from aiortc.exceptions import InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters
from aiortc.sdp import candidate_from_sdp

from gbgw.base import limits
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H264, PCMA, PCMU
from gbgw.base.config import WebRtcConfig, port_range
from gbgw.base.errors import GatewayError, LocalError, RequestError
from gbgw.base.strict import is_strict
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.media.hub import Stream, Subscription
from gbgw.media.track import Track
from gbgw.observe import log
from gbgw.serve import offer as sdp
from gbgw.serve import payloads
from gbgw.serve.offer import Law
from gbgw.serve.source import Sample, Viewing
from gbgw.serve.whep import WhepRequest

SOUND_HZ: Final = 8_000
SOUND_DRIFT_SAMPLES: Final = 800  # 100 ms between the camera's time stamps and its samples before they are believed
CATCH_UP_TICKS: Final = 90  # 1 ms at least between pictures of the cached GOP
CATCH_UP_BYTES_PER_SECOND: Final = 6_000_000  # a cached GOP is paced to this; a burst would overrun receive buffers
CONNECT_SECONDS: Final = 15.0  # for ICE and DTLS together
CLOSE_SECONDS: Final = 2.0
PINNED: Final = "aiortc 1.16 and aioice 0.13"


def _internal(owner: object, name: str) -> Any:
    """An attribute of aiortc or aioice that is not part of their interface. Raises LocalError when it is gone."""
    try:
        return getattr(owner, name)
    except AttributeError:
        raise _changed(owner, name) from None


def _replace(owner: object, name: str, value: object) -> None:
    """Put `value` in the place of an internal method or field of one object. Raises LocalError when there is none."""
    if not hasattr(owner, name):
        raise _changed(owner, name)
    setattr(owner, name, value)


def _changed(owner: object, name: str) -> LocalError:
    kind = owner.__name__ if isinstance(owner, type) or hasattr(owner, "__name__") else type(owner).__name__
    found = ", ".join(f"{package} {metadata.version(package)}" for package in ("aiortc", "aioice"))
    return LocalError(
        f"{kind} has no {name}: WebRTC here is made for {PINNED}, and {found} is installed.",
        code="webrtc_version",
        remedy=f"Install {PINNED}.",
    )


class WebRtc:
    """All WebRTC viewers of this process; serve.whep.WhepBackend.

    Raises LocalError `webrtc_version` at once when aiortc or aioice is not the version it is made for.
    """

    def __init__(self, config: WebRtcConfig, *, tally: Tally) -> None:
        check_internals()
        self.tally = tally
        self.packer = payloads.Packer()
        self._config = config
        self._ports = _Ports(config.ports)
        self._sessions: dict[str, _Session] = {}
        self._tasks = asyncio.TaskGroup()
        self._stopping = False
        self._log = log.get("webrtc")

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        for session in list(self._sessions.values()):
            session.end("stopping")
        await self._tasks.__aexit__(None, None, None)

    def __len__(self) -> int:
        return len(self._sessions)

    def samples(self) -> Iterable[Sample]:
        """Figures of /metrics; picture losses are among its events, `webrtc.pli`."""
        connected = sum(1 for session in self._sessions.values() if session.is_connected)
        yield Sample("webrtc_sessions", connected, labels={"state": "connected"}, help="WebRTC sessions.")
        yield Sample("webrtc_sessions", len(self._sessions) - connected, labels={"state": "connecting"})

    def ice_servers(self) -> tuple[str, ...]:
        return self._config.ice_servers

    async def answer(self, viewing: Viewing, offer_sdp: str, request: WhepRequest) -> tuple[str, str]:
        """Answer an offer; see WhepBackend."""
        if self._stopping:
            raise LocalError("The gateway is stopping.", code="stopping", remedy="Try again.", stream=request.key)
        _check_playable(viewing.stream)
        offer = sdp.parse(offer_sdp, stream=request.key)
        served = sdp.choose(offer, profile=_profile(viewing.stream), law=_law(viewing.stream), stream=request.key)
        _check_served(viewing.stream, served)
        session = _Session(self, secrets.token_urlsafe(24), viewing, request, offer)
        try:
            async with asyncio.timeout(limits.WHEP_ANSWER_SECONDS):
                answer = await session.negotiate(served)
        except BaseException as error:
            self._tasks.create_task(self._guard(session.hang_up()), name=f"webrtc-hang-up:{request.viewer.id}")
            if isinstance(error, TimeoutError):
                raise LocalError(
                    "The WebRTC answer took too long.", code="webrtc_slow", remedy="Try again.", stream=request.key
                ) from None
            raise
        self._sessions[session.id] = session
        self._tasks.create_task(self._run(session), name=f"webrtc:{request.key}#{request.viewer.id}")
        return answer, session.id

    async def _run(self, session: "_Session") -> None:
        try:
            await self._guard(session.run())
        finally:
            self._sessions.pop(session.id, None)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """A mistake in one session must not end the others."""
        try:
            await work
        except Exception:
            self._log.exception("bug")
            self.tally.add("bug")
            if is_strict():
                raise

    async def patch(self, session_id: str, fragment: str) -> None:
        await self._session(session_id).add_candidates(fragment)

    async def delete(self, session_id: str) -> bool:
        session = self._sessions.get(session_id)
        if session is None:
            return False
        session.end("deleted")
        await session.closed()
        return True

    def _session(self, session_id: str) -> "_Session":
        session = self._sessions.get(session_id)
        if session is None:
            raise RequestError(
                "There is no such WebRTC session.", status=404, code="unknown_session", remedy="POST a new offer."
            )
        return session

    def candidate_hosts(self, request: WhepRequest) -> tuple[str, tuple[str, ...]]:
        """Return (address to bind, addresses to tell, best first): the one the request came to, and
        `webrtc.advertise`.

        With advertised addresses the socket is bound to all, since they are not ours to bind. A request that came over
        loopback with advertised addresses came through a proxy most likely: then they go first.
        """
        local = _address(request.local)
        told = local.compressed if isinstance(local, ipaddress.IPv4Address) else local.compressed.partition("%")[0]
        own = [] if local.is_unspecified else [told]
        advertised = list(self._config.advertise)
        ordered = [*advertised, *own] if local.is_loopback else [*own, *advertised]
        hosts = tuple(dict.fromkeys(ordered))
        if not hosts:
            raise LocalError(
                "There is no address to tell the viewer.", code="webrtc_no_address", remedy="Set webrtc.advertise."
            )
        if not advertised:
            return str(local), hosts
        return ("::" if any(":" in host for host in hosts) else "0.0.0.0"), hosts

    async def open_socket(self, protocol: Callable[[], "_Socket"], bind: str) -> "_Socket":
        """Open one UDP socket for a viewer, within `webrtc.ports`."""
        return await self._ports.open(protocol, bind)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Of our socket; loopback where it is unknown (a Unix socket)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ipaddress.IPv4Address("127.0.0.1")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


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
    if video is None and not _is_g711(stream.audio):
        raise RequestError(
            "The stream has nothing that WebRTC carries.",
            status=406,
            code="no_codec_fits",
            remedy="Play by FLV or HLS.",
            stream=stream.key,
        )


def _check_served(stream: Stream, served: Iterable[sdp.Served]) -> None:
    """What is answered must be what the stream has: no session that would stay silent and dark."""
    kinds = {one.line.kind for one in served}
    if not (("video" in kinds and stream.video is not None) or ("audio" in kinds and _is_g711(stream.audio))):
        raise RequestError(
            "The offer asks for nothing that the stream has.",
            status=406,
            code="no_codec_fits",
            remedy="Offer recvonly video and audio.",
            stream=stream.key,
        )


def _is_g711(track: Track | None) -> bool:
    return track is not None and track.codec in (PCMA, PCMU)


def _law(stream: Stream) -> Law:
    return "PCMU" if stream.audio is not None and stream.audio.codec is PCMU else "PCMA"


def _profile(stream: Stream) -> int | None:
    """profile_idc of the camera's SPS."""
    for nal in stream.video.parameter_sets if stream.video is not None else ():
        if len(nal) > 1 and nal[0] & payloads.NAL_TYPE == 7:
            return nal[1]
    return None


class _Ports:
    """UDP ports of viewers: ephemeral, or the free ones of a range in turn."""

    def __init__(self, ports: str) -> None:
        self._range = port_range(ports) if ports else None
        self._next = 0

    async def open(self, protocol: Callable[[], "_Socket"], bind: str) -> "_Socket":
        loop = asyncio.get_running_loop()
        for port in self._candidates():
            try:
                _, made = await loop.create_datagram_endpoint(protocol, local_addr=(bind, port))
            except OSError as error:
                reason = error.__cause__ if isinstance(error.__cause__, OSError) else error  # uvloop wraps it
                if reason.errno in (errno.EADDRINUSE, errno.EACCES) and self._range is not None:
                    continue
                raise LocalError(
                    f"No UDP socket for a WebRTC viewer: {reason.strerror or reason}.",
                    code="webrtc_bind_failed",
                    remedy="Check webrtc.ports, and the limit of open files.",
                ) from error
            return made
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


class _Socket(StunProtocol):
    """aioice's socket behind a door: what is not for this viewer, or more than it may send, stays outside.

    aioice queues whatever is not STUN without a bound, from any address, until DTLS begins to read; aiortc ends the
    session at an empty datagram; both raise at some damaged STUN.
    """

    def __init__(self, ice: IceConnection, tally: Tally, on_writable: Callable[[bool], None]) -> None:
        super().__init__(ice)
        self._ice = ice
        self._tally = tally
        self._on_writable = on_writable
        self._queue: asyncio.Queue[Any] = _internal(ice, "_queue")
        _internal(ice, "_check_list")

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        assert isinstance(data, bytes)
        pairs = self._ice._check_list  # internal, checked above
        is_known = any(pair.remote_addr == addr[:2] for pair in pairs)
        is_stun = bool(data) and data[0] < 4  # RFC 7983
        if not data or not (is_known or (is_stun and len(pairs) < limits.WEBRTC_CHECKS)):
            self._tally.add("webrtc.stray")
        elif not is_stun and self._queue.qsize() >= limits.WEBRTC_DATAGRAMS:
            self._tally.add("webrtc.flood")
        else:
            try:
                if is_stun:
                    parse_message(data)  # aioice takes what is none for media
                super().datagram_received(data, addr)
            except (ValueError, KeyError, IndexError, AssertionError, OverflowError, struct.error):
                self._tally.add("webrtc.stun_malformed")

    def error_received(self, exc: Exception) -> None:
        self._tally.add("webrtc.send_error")

    def pause_writing(self) -> None:
        self._on_writable(False)

    def resume_writing(self) -> None:
        self._on_writable(True)


class _Session:
    """One viewer: a peer connection, the Outlet that feeds it, and the right to watch."""

    def __init__(
        self, owner: WebRtc, session_id: str, viewing: Viewing, request: WhepRequest, offer: sdp.Offer
    ) -> None:
        self.id = session_id
        self.is_connected = False
        self._owner = owner
        self._viewing = viewing
        self._request = request
        self._offer = offer
        self._candidates = offer.candidates
        self._ufrags = {line.ufrag for line in offer.lines}
        self._tally = owner.tally
        self._settled = asyncio.Event()  # connected, or over
        self._over = asyncio.Event()
        self._done = asyncio.Event()
        self._reason = ""
        self._log = log.get("webrtc").bind(stream=request.key, viewer=request.viewer.id)
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peer.on("connectionstatechange", self._on_state)
        self._strays: set[asyncio.Task[Any]] = set()  # tasks of aiortc that nobody else holds
        self._hold("_RTCPeerConnection__connect")
        self._outlet: Outlet | None = None

    def _hold(self, name: str) -> None:
        """internal: aiortc starts this method as a task and forgets it; keep the task, and learn how it ended."""
        method: Callable[[], Awaitable[None]] = _internal(self._peer, name)

        async def held() -> None:
            task = asyncio.current_task()
            assert task is not None
            self._strays.add(task)
            try:
                await method()
            except (InvalidStateError, ConnectionError):
                self.end("closed while connecting")
            except Exception as error:
                self._log.warning("aiortc could not connect", error=repr(error))
                self._tally.add("webrtc.connect_error")
                self.end("cannot connect")
            finally:
                self._strays.discard(task)

        _replace(self._peer, name, held)

    @property
    def transports(self) -> list[RTCIceTransport]:
        """internal: those left after bundling."""
        return list(_internal(self._peer, "_RTCPeerConnection__iceTransports"))

    async def negotiate(self, served: Iterable[sdp.Served]) -> str:
        """Return the answer; sockets are open from then on. Raises GatewayError."""
        served = tuple(served)
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp.plain(self._offer, served), "offer"))
            self._outlet = Outlet(self._viewing, self._request, self._owner, served, self.end)
            self._attach_tracks(served, self._outlet)
            self._own_addresses(self._outlet)
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except (ValueError, AssertionError, ConnectionError, OperationError, InvalidStateError) as error:
            self._log.warning("aiortc refused the offer", error=repr(error))
            raise RequestError(
                "The SDP offer cannot be used.",
                code="sdp_offer_invalid",
                remedy="Offer recvonly audio and video as browsers do.",
                stream=self._request.key,
            ) from error
        return sdp.answer(self._offer, served, str(self._peer.localDescription.sdp))

    def _attach_tracks(self, served: tuple[sdp.Served, ...], outlet: "Outlet") -> None:
        """internal: the codecs of a transceiver were settled by setRemoteDescription; put the viewer's own there."""
        for transceiver, one in zip(self._peer.getTransceivers(), served, strict=True):
            assert transceiver.mid == one.line.mid
            _replace(transceiver, "_codecs", list(_codecs(one)))
            transceiver.direction = "sendonly"
            sender = transceiver.sender
            sender.replaceTrack(outlet.video if one.law is None else outlet.audio)
            # internal: the units are cut already; and the sender would ask its encoder for a key frame
            _replace(sender, "_RTCRtpSender__encoder", _Ready())
            _replace(sender, "_send_keyframe", self._on_picture_lost)

    def _own_addresses(self, outlet: "Outlet") -> None:
        """Replace aioice's gathering, which binds every address of the host but loopback, on ephemeral ports."""
        bind, hosts = self._owner.candidate_hosts(self._request)
        for transport in self.transports:
            ice: IceConnection = _internal(transport.iceGatherer, "_connection")
            gathering = _Gathering(self._owner, ice, bind, hosts, outlet.on_writable)
            _replace(ice, "get_component_candidates", gathering)
            _replace(transport, "_send", _Paced(_internal(transport, "_send")))

    def _on_picture_lost(self) -> None:
        """PLI or FIR from the viewer."""
        self._tally.add("webrtc.pli")
        self._viewing.request_keyframe()

    def _on_state(self) -> None:
        state = self._peer.connectionState
        if state == "connected" and not self._over.is_set():
            self.is_connected = True
            self._settled.set()
            if self._outlet is not None:
                self._outlet.begin()
        elif state in ("failed", "closed"):
            self.end("connection " + state)

    def end(self, reason: str) -> None:
        if not self._over.is_set():
            self._reason = reason
            self._over.set()
            self._settled.set()

    async def closed(self) -> None:
        await self._done.wait()

    async def run(self) -> None:
        """From the answer to the end of the connection; gives everything back."""
        try:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._settled.wait()
            except TimeoutError:
                self._tally.add("webrtc.not_connected")
                self.end("not connected in time")
            await self._over.wait()
        finally:
            self._log.info("ended", reason=self._reason)
            self.is_connected = False
            try:
                await self.hang_up()
            finally:
                self._request.viewers.remove(self._request.viewer)
                try:
                    await self._viewing.close()
                finally:
                    self._done.set()

    async def hang_up(self) -> None:
        """Close the peer connection and wait for every task and socket that aiortc and aioice made for it."""
        if self._outlet is not None:
            self._outlet.close()
        held = _internal(self._peer, "_RTCPeerConnection__dtlsTransports")
        pumps = {task for transport in held if (task := _internal(transport, "_task")) is not None}
        async with asyncio.TaskGroup() as tasks:
            closing = tasks.create_task(self._peer.close(), name=f"webrtc-close:{self._request.viewer.id}")
            await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
            if not closing.done():
                self._tally.add("webrtc.slow_close")
                pumps |= self._abort()
                await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
                closing.cancel()
        # The tasks of aioice (checks, consent) end within Connection.close(); these of aiortc only soon after.
        own_close = _internal(self._peer, "_RTCPeerConnection__closeTask")
        strays = {*self._strays, *pumps, *((own_close,) if own_close is not None else ())}
        if strays:
            _, late = await asyncio.wait(strays, timeout=CLOSE_SECONDS)
            for task in late:
                self._tally.add("webrtc.slow_close")
                task.cancel()

    def _abort(self) -> set[asyncio.Task[Any]]:
        """Close the sockets and cancel the tasks of a connection that does not close; return the tasks."""
        found = []
        for transport in self.transports:
            ice = _internal(transport.iceGatherer, "_connection")
            for protocol in _internal(ice, "_protocols"):
                protocol.transport.abort()
            found += [_internal(transport, "_RTCIceTransport__monitor_task"), _internal(ice, "_query_consent_task")]
        for transceiver in self._peer.getTransceivers():
            found += [_internal(transceiver.sender, f"_RTCRtpSender__{name}_task") for name in ("rtp", "rtcp")]
        tasks = {task for task in found if task is not None}
        for task in tasks:
            task.cancel()
        return tasks

    async def add_candidates(self, text: str) -> None:
        """Take a trickle ICE fragment. Raises RequestError 422 for an ICE restart (RFC 9725 section 4.3.3)."""
        ufrag, mid, found = sdp.fragment(text)
        if ufrag and ufrag not in self._ufrags:
            raise RequestError(
                "ICE cannot be restarted here.", status=422, code="ice_restart_unsupported", remedy="POST a new offer."
            )
        transports = self.transports
        own = [one.receiver.transport.transport for one in self._peer.getTransceivers() if one.mid == mid]
        for candidate in found:
            if self._candidates >= limits.WHEP_CANDIDATES * 2:
                self._tally.add("webrtc.surplus_candidate")
                return
            self._candidates += 1
            parsed = candidate_from_sdp(sdp.write_candidate(candidate))
            for transport in own or transports[:1]:
                await transport.addRemoteCandidate(parsed)


def _codecs(one: sdp.Served) -> Iterable[RTCRtpCodecParameters]:
    """The payload type to send, and that of its retransmissions, in aiortc's words."""
    number = one.format.payload_type
    if one.law is not None:
        yield RTCRtpCodecParameters(f"audio/{one.law}", clockRate=SOUND_HZ, channels=1, payloadType=number)
        return
    feedback = [kind.partition(" ") for kind in one.format.feedback]
    yield RTCRtpCodecParameters(
        "video/H264",
        clockRate=HZ,
        payloadType=number,
        rtcpFeedback=[RTCRtcpFeedback(type=kind, parameter=more or None) for kind, _, more in feedback],
        parameters=dict(one.format.parameters),
    )
    if one.format.repair is not None:
        repair = one.format.repair
        yield RTCRtpCodecParameters("video/rtx", clockRate=HZ, payloadType=repair, parameters={"apt": number})


class _Gathering:
    """Stands in for aioice.Connection.get_component_candidates on one connection."""

    def __init__(
        self,
        owner: WebRtc,
        ice: IceConnection,
        bind: str,
        hosts: tuple[str, ...],
        on_writable: Callable[[bool], None],
    ) -> None:
        self._owner = owner
        self._ice = ice
        self._bind = bind
        self._hosts = hosts
        self._on_writable = on_writable

    async def __call__(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        tally = self._owner.tally
        protocol = await self._owner.open_socket(lambda: _Socket(self._ice, tally, self._on_writable), self._bind)
        if _internal(self._ice, "_closing"):
            protocol.transport.abort()
            raise ConnectionError("closed while its socket was opened")
        _internal(self._ice, "_protocols").append(protocol)
        port = protocol.transport.get_extra_info("sockname")[1]
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


class _Paced:
    """Stands in for RTCIceTransport._send: a large picture leaves in bursts with the loop's turn in between.

    aiortc sends all packets of a picture without letting go: 0.1 ms each, for every viewer.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._burst = 0

    async def __call__(self, data: bytes) -> None:
        await self._send(data)
        self._burst += 1
        if self._burst >= limits.WEBRTC_BURST_PACKETS:
            self._burst = 0
            await asyncio.sleep(limits.WEBRTC_BURST_SECONDS)


class Cut(NamedTuple):
    """A unit as it leaves: RTP payloads and their one time stamp, in the clock of the codec."""

    payloads: tuple[bytes, ...]
    timestamp: int


class _Ready:
    """Stands in for the encoder of a sender whose track gives Cuts."""

    def pack(self, cut: Cut) -> tuple[list[bytes], int]:
        return list(cut.payloads), cut.timestamp


class Outlet:
    """Feeds two aiortc tracks from one Stream; a media.hub.Sink.

    Pictures of the cached GOP leave first, paced, with time stamps that tell of the pace and end at the live picture:
    the viewer decodes them as they come and is live with the last. A GOP too large for that is not sent: a key frame is
    asked for instead.
    """

    def __init__(
        self,
        viewing: Viewing,
        request: WhepRequest,
        owner: WebRtc,
        served: Iterable[sdp.Served],
        end: Callable[[str], None],
    ) -> None:
        kinds = {one.line.kind for one in served}
        self.law: Law | None = next((one.law for one in served if one.law is not None), None)
        self.video = PacketTrack("video", request, self._on_stopped)
        self.audio = PacketTrack("audio", request, self._on_stopped)
        self._has_video = "video" in kinds
        self._viewing = viewing
        self._request = request
        self._tally = owner.tally
        self._packer = owner.packer
        self._end = end
        self._subscription: Subscription | None = None
        self._cached: list[tuple[AccessUnit, Track]] | None = None  # while the cached GOP is being given
        self._last_pts = -1
        self._picture_base: int | None = None
        self._sound_base: int | None = None
        self._sound_next = 0  # time stamp of the next sample
        self._closed = False
        request.viewer.queue = lambda: self.video.queued_bytes + self.audio.queued_bytes

    def begin(self) -> None:
        """The way to the viewer is open."""
        stream = self._viewing.stream
        if self._subscription is not None or self._closed:
            return
        if stream.ended:
            self._end("stream ended")
            return
        pictures = [unit for unit, track in stream.gop if track.is_video]
        is_light = sum(map(len, pictures)) <= limits.WEBRTC_CATCH_UP_BYTES
        replay = is_light and len(pictures) <= limits.WEBRTC_CATCH_UP_PICTURES
        self._cached = []
        self._subscription = stream.attach(self, replay=replay)
        cached, self._cached = self._cached, None
        if self._has_video:
            self._catch_up(cached)
            if stream.video is not None and not (cached and stream.gop_open):
                self._viewing.request_keyframe()

    def _catch_up(self, cached: list[tuple[AccessUnit, Track]]) -> None:
        pictures = [(unit, track) for unit, track in cached if track.is_video and unit.pts is not None]
        if not pictures:
            return
        at = pictures[-1][0].pts or 0
        times: list[int] = []
        for unit, _ in reversed(pictures):
            times.append(at)
            at -= max(CATCH_UP_TICKS, len(unit) * HZ // CATCH_UP_BYTES_PER_SECOND)
        self._last_pts = times[-1] - 1
        for (unit, track), pts in zip(pictures, reversed(times), strict=True):
            self._put_picture(unit, track, pts, paced=True)

    def close(self) -> None:
        self._closed = True
        if self._subscription is not None:
            self._subscription.detach()
        self.video.stop()
        self.audio.stop()

    def on_writable(self, is_writable: bool) -> None:
        """The socket takes packets again, or no more."""
        self.video.hold(not is_writable)
        self.audio.hold(not is_writable)

    def _on_stopped(self) -> None:
        """The sender of a track ended: its connection is lost, or it failed."""
        if not self._closed:
            self._end("sender ended")

    # media.hub.Sink

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None:
        video = next((track for track in tracks if track.is_video), None)
        if self._has_video and video is not None and (video.codec is not H264 or video.reorder_depth > 0):
            what = "B-frames" if video.codec is H264 else video.codec.name
            self._end(f"the stream changed to {what}, which WebRTC cannot carry")

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        if self._cached is not None:
            self._cached.append((unit, track))
        elif track.is_video:
            if self._has_video and track.codec is H264 and unit.pts is not None:
                self._put_picture(unit, track, unit.pts, paced=False)
        elif self.law is not None and unit.pts is not None and track.codec in (PCMA, PCMU):
            self._put_sound(bytes(unit), unit.pts, "PCMU" if track.codec is PCMU else "PCMA")

    def on_end(self, cause: GatewayError | None) -> None:
        self._end(f"stream ended: {cause.code}" if cause is not None else "stream ended")

    def _put_picture(self, unit: AccessUnit, track: Track, pts: int, *, paced: bool) -> None:
        packets = self._packer.picture(unit, track)
        if not packets:
            self._tally.add("webrtc.empty_picture")
            return
        pts = max(pts, self._last_pts + 1)
        self._last_pts = pts
        if self._picture_base is None:
            self._picture_base = pts
        cut = Cut(packets, pts - self._picture_base & 0xFFFFFFFF)
        dropped, is_new = self.video.put(cut, is_keyframe=unit.is_keyframe, paced=paced)
        if dropped:
            self._request.viewer.dropped += dropped
            self._tally.add("webrtc.slow_viewer", dropped)
        if is_new:
            self._request.viewer.skips += 1
            self._viewing.request_keyframe()

    def _put_sound(self, samples: bytes, pts: int, law: Law) -> None:
        """Time stamps count samples, as receivers expect, and follow the camera's only where they have drifted."""
        if law != self.law:
            samples = samples.translate(payloads.MU_FROM_A if law == "PCMA" else payloads.A_FROM_MU)
        if self._sound_base is None:
            self._sound_base = pts
        at = (pts - self._sound_base) * SOUND_HZ // HZ
        if at - self._sound_next > SOUND_DRIFT_SAMPLES:
            self._sound_next = at
        elif self._sound_next - at > SOUND_DRIFT_SAMPLES:
            self._tally.add("webrtc.surplus_sound")
            return
        for piece in payloads.pieces(samples):
            cut = Cut((piece,), self._sound_next & 0xFFFFFFFF)
            dropped, _ = self.audio.put(cut, is_keyframe=True, paced=False)
            self._request.viewer.dropped += dropped
            self._sound_next += len(piece)


class PacketTrack(MediaStreamTrack):
    """An aiortc track that gives Cuts. The queue is bounded in bytes; full, it drops to the next key frame."""

    def __init__(self, kind: str, request: WhepRequest, on_stopped: Callable[[], None]) -> None:
        super().__init__()
        self.kind = kind
        self.queued_bytes = 0
        self._viewer = request.viewer
        self._on_stopped = on_stopped
        self._queue: deque[tuple[Cut, int, bool]] = deque()
        self._ready = asyncio.Event()
        self._held = False
        self._skipping = False

    def put(self, cut: Cut, *, is_keyframe: bool, paced: bool) -> tuple[int, bool]:
        """Queue one unit; return how many were dropped for it, and whether the dropping began with it."""
        size = sum(map(len, cut.payloads))
        dropped = 0
        overflows = bool(self._queue) and self.queued_bytes + size > limits.SUBSCRIPTION_BYTES
        if overflows:
            dropped = len(self._queue)
            self._queue.clear()
            self.queued_bytes = 0
            self._skipping = True
        if self._skipping and not is_keyframe:
            return dropped + 1, overflows
        self._skipping = False
        self._queue.append((cut, size, paced))
        self.queued_bytes += size
        self._ready.set()
        return dropped, False

    def hold(self, is_held: bool) -> None:
        """Give nothing while the socket is full, so that what waits is bounded here."""
        self._held = is_held
        self._ready.set()

    def stop(self) -> None:
        super().stop()
        self._ready.set()
        self._on_stopped()

    async def recv(self) -> Any:
        """The next unit; called by aiortc's sender."""
        while self._held or not self._queue:
            if self.readyState != "live":
                raise MediaStreamError
            self._ready.clear()
            await self._ready.wait()
        cut, size, paced = self._queue.popleft()
        self.queued_bytes -= size
        if paced:
            await asyncio.sleep(size / CATCH_UP_BYTES_PER_SECOND)
        self._viewer.bytes += size
        return cut


def check_internals() -> None:
    """Look for everything internal that can be seen without a connection, and let senders keep more for NACK.

    Raises LocalError `webrtc_version`.
    """
    for owner, names in (
        (RTCPeerConnection, ("_RTCPeerConnection__connect", "_RTCPeerConnection__gather")),
        (rtcrtpsender.RTCRtpSender, ("_send_keyframe", "_next_encoded_frame")),
        (IceConnection, ("get_component_candidates", "check_incoming")),
    ):
        for name in names:
            _internal(owner, name)
    _replace(rtcrtpsender, "RTP_HISTORY_SIZE", limits.WEBRTC_HISTORY)
