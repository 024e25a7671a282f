"""WebRTC play on aiortc: H.264, H.265 and G.711 passed through, addresses and ports of our own choosing (architecture
decision 4).

aiortc and aioice make ICE, DTLS and the keys; what leaves is chosen by serve.outlet and sent by serve.lane, or by
aiortc's own sender where `webrtc.sender` says so. The only file that touches internals of aiortc, aioice and pylibsrtp:
each place goes through `_internal` or `_replace`, which name the version when it has changed, and is held by a test.
Offers are read by serve.offer; aiortc sees none of their text. Leaves out: H.265 for viewers that do not offer it
(refused, or asked for as `?video=h264`), AAC, TURN towards viewers behind symmetric NAT.
"""

import asyncio
import errno
import ipaddress
import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from importlib import metadata
from types import TracebackType
from typing import Any, Final, Self

import pylibsrtp
from aioice.candidate import Candidate
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

from gbgw import _webrtc
from gbgw._webrtc import Batch, Sender
from gbgw.base import limits
from gbgw.base.codec import H264, H265, PCMA, PCMU
from gbgw.base.config import WebRtcConfig, port_range
from gbgw.base.errors import LocalError, RequestError
from gbgw.base.strict import is_strict
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.media import params
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.observe import log
from gbgw.serve import feedback, payloads
from gbgw.serve import offer as sdp
from gbgw.serve.feedback import Damaged, Missed, PictureLost, ReceptionReport
from gbgw.serve.ice import Source
from gbgw.serve.lane import Destination, NativeLane, Way
from gbgw.serve.lite import LiteConnection, SharedPort, host_candidates, open_port
from gbgw.serve.offer import MID_EXTENSION, SEND_TIME_EXTENSION, Law
from gbgw.serve.outlet import CATCH_UP_BYTES_PER_SECOND, SOUND_HZ, Cut, CutQueue, Outlet
from gbgw.serve.pacer import Pacer
from gbgw.serve.source import Sample, Viewing
from gbgw.serve.viewers import Viewer
from gbgw.serve.whep import WhepRequest

CONNECT_SECONDS: Final = 15.0  # for ICE and DTLS together
CLOSE_SECONDS: Final = 2.0
PINNED: Final = "aiortc 1.16 and aioice 0.13"
_RTCP_SECOND: Final = range(192, 224)  # second byte of RTCP where it shares a port with RTP (RFC 5761 section 4)
_LOSSES: Final = (  # figure, event, what it is
    ("packets_lost", "webrtc.lost", "Packets that did not reach viewers, before repair."),
    ("packets_nacked", "webrtc.nacked", "Packets that viewers asked for again."),
    ("packets_resent", "webrtc.resent", "Packets sent again."),
)


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

    def __init__(self, config: WebRtcConfig, *, tally: Tally, mark: str = "") -> None:
        """mark: the ids of its sessions begin with it."""
        check_internals()
        self._mark = mark
        self.tally = tally
        self.packer = payloads.Packer()
        self.native = _Native() if config.sender == "native" else None
        self.pacer: Pacer
        self._config = config
        self._ports = _Ports(config.ports)
        self._shared: dict[str, SharedPort] = {}  # by the address they are bound to
        self._opening = asyncio.Lock()
        self._sessions: dict[str, _Session] = {}
        self._tasks = asyncio.TaskGroup()
        self._stopping = False
        self._log = log.get("webrtc")

    async def __aenter__(self) -> Self:
        self.pacer = Pacer()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        for session in list(self._sessions.values()):
            session.end("stopping")
        await self._tasks.__aexit__(None, None, None)
        self.pacer.close()
        for port in self._shared.values():
            port.close()

    def __len__(self) -> int:
        return len(self._sessions)

    def samples(self) -> Iterable[Sample]:
        """Figures of /metrics."""
        connected = sum(1 for session in self._sessions.values() if session.is_connected)
        yield Sample("webrtc_sessions", connected, labels={"state": "connected"}, help="WebRTC sessions.")
        yield Sample("webrtc_sessions", len(self._sessions) - connected, labels={"state": "connecting"})
        for name, event, text in _LOSSES:
            yield Sample(f"webrtc_{name}", self.tally[event], kind="counter", help=text)
        for by in ("pli", "fir"):
            yield Sample(
                "webrtc_pictures_lost",
                self.tally[f"webrtc.{by}"],
                kind="counter",
                labels={"by": by},
                help="Key frames that viewers asked for.",
            )

    def ice_servers(self) -> tuple[str, ...]:
        return self._config.ice_servers

    async def answer(self, viewing: Viewing, offer_sdp: str, request: WhepRequest) -> tuple[str, str]:
        """Answer an offer; see WhepBackend."""
        if self._stopping:
            raise LocalError("The gateway is stopping.", code="stopping", remedy="Try again.", stream=request.key)
        _check_playable(viewing.stream)
        offer = sdp.parse(offer_sdp, stream=request.key)
        if offer.is_lite and self.is_shared:
            raise RequestError(
                "The viewer is ICE lite, and so is this gateway on a single port: nobody would ask first.",
                code="sdp_offer_invalid",
                remedy="Use a full ICE agent, or give webrtc.ports a range.",
                stream=request.key,
            )
        served = sdp.choose(
            offer,
            profile=_profile(viewing.stream),
            law=_law(viewing.stream),
            video="H265" if viewing.stream.video is not None and viewing.stream.video.codec is H265 else "H264",
            stream=request.key,
        )
        _check_served(viewing.stream, served)
        session = _Session(self, self._mark + secrets.token_urlsafe(24), viewing, request, offer)
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
        if self.is_shared and socket.has_dualstack_ipv6():
            return "::", hosts  # one socket, whatever address is told first
        return ("::" if any(":" in host for host in hosts) else "0.0.0.0"), hosts

    @property
    def is_shared(self) -> bool:
        """One port for all viewers."""
        return self._ports.single is not None

    async def shared_port(self, bind: str) -> SharedPort:
        """The one port on this address, opened for its first viewer. Raises LocalError."""
        assert self._ports.single is not None
        async with self._opening:
            port = self._shared.get(bind)
            if port is None:
                port = self._shared[bind] = await open_port(self.tally, bind, self._ports.single)
            return port

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
    if video is not None and video.codec not in (H264, H265):
        raise RequestError(
            f"The stream is {video.codec.name}, which no browser plays by WebRTC.",
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
    """profile_idc of the camera's SPS, of H.265 general_profile_idc (H.265 section 7.3.3)."""
    for nal in stream.video.parameter_sets if stream.video is not None else ():
        if stream.video is not None and stream.video.codec is H265:
            if len(nal) > 3 and (nal[0] & payloads.H265_TYPE) >> 1 == params.H265_SPS:
                return nal[3] & 0x1F
        elif len(nal) > 1 and nal[0] & payloads.NAL_TYPE == 7:
            return nal[1]
    return None


class _Ports:
    """UDP ports of viewers: ephemeral, the free ones of a range in turn, or a single one for all (`single`)."""

    def __init__(self, ports: str) -> None:
        self._range = port_range(ports) if ports else None
        self.single = self._range[0] if self._range is not None and len(self._range) == 1 else None
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
            remedy="Widen webrtc.ports, or name a single port, which all viewers share.",
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
        self._lanes: dict[int, NativeLane] = {}  # by SSRC
        self._lites: list[LiteConnection] = []

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
            self._outlet = self._attach(served)
            await self._own_addresses(served, self._outlet)
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except (ValueError, AssertionError, ConnectionError, OperationError, InvalidStateError) as error:
            self._log.warning("aiortc refused the offer", error=repr(error))
            raise RequestError(
                "The SDP offer cannot be used.",
                code="sdp_offer_invalid",
                remedy="Offer recvonly audio and video as browsers do.",
                stream=self._request.key,
            ) from error
        return sdp.answer(self._offer, served, str(self._peer.localDescription.sdp), is_lite=self._owner.is_shared)

    def _attach(self, served: tuple[sdp.Served, ...]) -> Outlet:
        """internal: the codecs of a transceiver were settled by setRemoteDescription; put the viewer's own there."""
        lanes = {"video": self._lane("video"), "audio": self._lane("audio")}
        for transceiver, one in zip(self._peer.getTransceivers(), served, strict=True):
            assert transceiver.mid == one.line.mid
            _replace(transceiver, "_codecs", list(_codecs(one)))
            transceiver.direction = "sendonly"
            # what no aiortc receiver of ours is asked for: 1,000 objects to estimate what the viewer might send
            _replace(transceiver.receiver, "_RTCRtpReceiver__remote_bitrate_estimator", None)
            lane = lanes[one.line.kind]
            if isinstance(lane, NativeLane):
                assert self._owner.native is not None
                sender = _NativeSender(self._owner.native, transceiver.sender, one, lane, self._on_srtp)
                self._lanes[sender.ssrc] = lane
                # internal: ours reads what aiortc leaves out, such as a FIR (RFC 5104 section 4.3.1.2)
                _replace(transceiver.sender.transport, "_handle_rtcp_data", self._on_rtcp)
                continue
            stock = transceiver.sender
            stock.replaceTrack(lane)
            # internal: the units are cut already; and the sender would ask its encoder for a key frame
            _replace(stock, "_RTCRtpSender__encoder", _Ready())
            _replace(stock, "_send_keyframe", self._on_picture_lost)
        return Outlet(
            self._viewing,
            self._request.viewer,
            self._owner.packer,
            served,
            video=lanes["video"],
            audio=lanes["audio"],
            tally=self._tally,
            end=self.end,
        )

    def _lane(self, kind: str) -> "NativeLane | PacketTrack":
        viewer = self._request.viewer
        if self._owner.native is not None:
            return NativeLane(viewer, self._tally, self._owner.pacer, on_stopped=self._on_lane_stopped)
        return PacketTrack(kind, viewer, self._on_lane_stopped)

    def _on_lane_stopped(self) -> None:
        if self._outlet is not None:
            self._outlet.on_stopped()

    async def _own_addresses(self, served: tuple[sdp.Served, ...], outlet: Outlet) -> None:
        """Replace aioice's gathering, which binds every address of the host but loopback, on ephemeral ports; or with
        one port for all viewers, the whole of aioice."""
        bind, hosts = self._owner.candidate_hosts(self._request)
        shared = await self._owner.shared_port(bind) if self._owner.is_shared else None
        for transport in self.transports:
            if shared is None:
                ice: IceConnection = _internal(transport.iceGatherer, "_connection")
                gathering = _Gathering(self._owner, ice, bind, hosts, outlet.on_writable)
                _replace(ice, "get_component_candidates", gathering)
            else:
                mids = {
                    one.mid for one in self._peer.getTransceivers() if one.receiver.transport.transport is transport
                }
                theirs = next(one.transport for one in served if one.line.mid in mids)
                lite = LiteConnection(shared, hosts, theirs.ufrag, theirs.password, outlet.on_writable)
                self._lites.append(lite)
                for owner, name, value in (
                    (transport.iceGatherer, "_connection", lite),
                    (transport, "_connection", lite),
                    (transport, "_recv", lite.recv),
                    (transport, "_send", lite.send),
                ):
                    _replace(owner, name, value)
            if self._owner.native is None:
                _replace(transport, "_send", _Paced(_internal(transport, "_send")))

    async def _on_rtcp(self, packet: bytes) -> None:
        """In the place of RTCDtlsTransport._handle_rtcp_data: a compound packet, decrypted."""
        self.on_rtcp(packet)

    def _on_srtp(self, srtp: pylibsrtp.Session, data: bytes) -> None:
        """Past aiortc's queue and tasks: SRTCP of the viewer."""
        try:
            if len(data) < 2 or data[1] not in _RTCP_SECOND:
                self._tally.add("webrtc.stray")
            else:
                self.on_rtcp(srtp.unprotect_rtcp(data))
        except pylibsrtp.Error:
            self._tally.add("webrtc.srtcp_refused")

    def on_rtcp(self, packet: bytes) -> None:
        try:
            for told in feedback.read(packet):
                lane = self._lanes.get(told.ssrc)
                if lane is None:  # a stream of retransmissions, or none of ours
                    continue
                if isinstance(told, Missed):
                    lane.on_missed(told)
                elif isinstance(told, ReceptionReport):
                    lane.on_report(told)
                elif self._outlet is not None and lane is self._outlet.video:
                    self._on_picture_lost(told)
        except Damaged:
            self._tally.add("webrtc.rtcp_malformed")

    def _on_picture_lost(self, told: PictureLost | None = None) -> None:
        """The camera's owner asks it at most once in a while, for all viewers together."""
        self._request.viewer.plis += 1
        self._tally.add("webrtc.fir" if told is not None and told.by == "fir" else "webrtc.pli")
        self._viewing.request_keyframe()

    def _on_state(self) -> None:
        state = self._peer.connectionState
        if state == "connected" and not self._over.is_set():
            self.is_connected = True
            for lite in self._lites:
                lite.agent.is_proven = True
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
            found.append(_internal(transport, "_RTCIceTransport__monitor_task"))
            if isinstance(ice, LiteConnection):
                ice.fail()
                continue
            for protocol in _internal(ice, "_protocols"):
                protocol.transport.abort()
            found.append(_internal(ice, "_query_consent_task"))
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


class _Native:
    """What all our own senders share: libsrtp's function, and memory for packets on their way out.

    Raises LocalError `webrtc_version` when libsrtp is not reached as in the pinned pylibsrtp.
    """

    def __init__(self) -> None:
        binding = _internal(pylibsrtp, "_binding")
        self._ffi = _internal(binding, "ffi")
        try:
            address = self._ffi.addressof(_internal(binding, "lib"), "srtp_protect")
            self.protect = int(self._ffi.cast("uintptr_t", address))
            self._test()
        except (AttributeError, TypeError, KeyError, OSError, pylibsrtp.Error) as error:
            raise _changed(pylibsrtp, f"usable srtp_protect ({error})") from error
        self.batch = Batch()

    def _test(self) -> None:
        """Protect a packet by address, and read it back by the library's own front door."""
        key = os.urandom(30)
        ways = [
            pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=kind))
            for kind in (pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND)
        ]
        packet = struct.pack(">BBHII", 0x80, 96, 1, 2, 3) + b"a payload"
        if ways[1].unprotect(_webrtc.protected(self.protect, self.session(ways[0]), packet)) != packet:
            raise OSError("a packet came back changed")

    def session(self, made: pylibsrtp.Session) -> int:
        """Address of the srtp_t of a session, valid as long as the object lives."""
        return int(self._ffi.cast("uintptr_t", _internal(made, "_srtp")[0]))


class _NativeSender:
    """Puts a NativeLane in the place of one RTCRtpSender's own tasks."""

    def __init__(
        self,
        native: _Native,
        sender: rtcrtpsender.RTCRtpSender,
        served: sdp.Served,
        lane: NativeLane,
        on_srtp: Callable[[pylibsrtp.Session, bytes], None],
    ) -> None:
        self._native = native
        self._sender = sender
        self._served = served
        self._lane = lane
        self.ssrc: int = _internal(sender, "_ssrc")
        self._rtx_ssrc: int = _internal(sender, "_rtx_ssrc")
        self._on_srtp = on_srtp
        _replace(sender, "send", self._start)
        _replace(sender, "stop", self._stop)

    async def _start(self, parameters: Any) -> None:
        """In the place of RTCRtpSender.send: DTLS is through, the keys are there."""
        dtls = self._sender.transport
        srtp = _internal(dtls, "_tx_srtp")
        ice = _internal(dtls.transport.iceGatherer, "_connection")
        route: _AioiceRoute | _LiteRoute
        if isinstance(ice, LiteConnection):
            route = _LiteRoute(ice)
            ice.on_srtcp = partial(self._on_srtp, _internal(dtls, "_rx_srtp"))
        else:
            route = _AioiceRoute(ice)
        extension, send_time_at = _extension(self._served.line)
        shared = {
            "protect": self._native.protect,
            "session": self._native.session(srtp),
            "owner": srtp,
            "extension": extension,
            "send_time_at": send_time_at,
        }
        number = self._served.format.payload_type
        repair = self._served.format.repair
        self._lane.start(
            Way(
                self._made(self.ssrc, number, **shared),
                None if repair is None else self._made(self._rtx_ssrc, repair, **shared),
                route.destination,
                lambda packet: route.send(srtp.protect_rtcp(packet)),
                str(parameters.rtcp.cname),
            )
        )

    def _made(self, ssrc: int, payload_type: int, **shared: Any) -> Sender:
        return Sender(
            self._native.batch,
            ssrc=ssrc,
            payload_type=payload_type,
            sequence_number=secrets.randbelow(1 << 15),  # the lower half, so that a wrap is not among the first
            timestamp_origin=secrets.randbits(32),
            **shared,
        )

    async def _stop(self) -> None:
        """In the place of RTCRtpSender.stop."""
        self._lane.stop()


class _AioiceRoute:
    """Where aioice sends now."""

    def __init__(self, ice: IceConnection) -> None:
        self._ice = ice
        self._destination: Destination | None = None
        self._pair: Any = None
        self._transport: asyncio.DatagramTransport | None = None

    def destination(self) -> Destination | None:
        pair = self._ice._nominated.get(1)  # internal, held by a test
        if pair is not self._pair:
            self._pair, self._destination = pair, None
            if pair is not None:
                self._transport = pair.protocol.transport
                sock = self._transport.get_extra_info("socket")
                self._destination = Destination(sock.fileno(), _sockaddr(sock.family, pair.remote_addr))
        if self._transport is None or self._transport.is_closing():
            return None
        return self._destination

    def send(self, data: bytes) -> None:
        if self.destination() is not None and self._transport is not None:
            self._transport.sendto(data, self._pair.remote_addr)


class _LiteRoute:
    """Where a viewer of the shared port is now."""

    def __init__(self, ice: LiteConnection) -> None:
        self._ice = ice
        self._source: Source | None = None
        self._destination: Destination | None = None

    def destination(self) -> Destination | None:
        port, source = self._ice.port, self._ice.agent.selected
        if source is None or port.fd < 0:
            return None
        if source != self._source:
            self._source = source
            self._destination = Destination(port.fd, _sockaddr(port.family, source))
        return self._destination

    def send(self, data: bytes) -> None:
        source = self._ice.agent.selected
        if source is not None:
            self._ice.port.send(data, source)


def _sockaddr(family: int, address: Source) -> bytes:
    """struct sockaddr_in or sockaddr_in6 of Linux."""
    host, port = address[:2]
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)
    name, _, zone = host.partition("%")
    if ":" not in name:
        name = "::ffff:" + name
    scope = address[3] if len(address) > 3 else 0
    if zone:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    there = socket.inet_pton(socket.AF_INET6, name)
    return struct.pack("=H", family) + struct.pack(">HI", port, 0) + there + struct.pack("=I", scope)


def _extension(line: sdp.Line) -> tuple[bytes, int]:
    """The header extension of every packet, and where the send time stands in it (RFC 8285 section 4.2); b"", -1:
    none."""
    elements, send_time_at = b"", -1
    for number, uri in line.extensions:
        if not 1 <= number <= 14:
            continue
        if uri == MID_EXTENSION and 0 < len(line.mid) <= 16:
            elements += bytes((number << 4 | len(line.mid) - 1,)) + line.mid.encode()
        elif uri == SEND_TIME_EXTENSION:
            send_time_at = 4 + len(elements) + 1
            elements += bytes((number << 4 | 2,)) + bytes(3)
    if not elements:
        return b"", -1
    elements += bytes(-len(elements) % 4)
    return struct.pack(">HH", 0xBEDE, len(elements) // 4) + elements, send_time_at


def _codecs(one: sdp.Served) -> Iterable[RTCRtpCodecParameters]:
    """The payload type to send, and that of its retransmissions, in aiortc's words."""
    number = one.format.payload_type
    if one.law is not None:
        yield RTCRtpCodecParameters(f"audio/{one.law}", clockRate=SOUND_HZ, channels=1, payloadType=number)
        return
    feedback = [kind.partition(" ") for kind in one.format.feedback]
    yield RTCRtpCodecParameters(
        f"video/{one.format.video}",
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
        candidates = host_candidates(self._hosts, port)
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


class _Ready:
    """Stands in for the encoder of a sender whose track gives Cuts."""

    def pack(self, cut: Cut) -> tuple[list[bytes], int]:
        return list(cut.payloads), cut.timestamp


class PacketTrack(MediaStreamTrack):
    """An aiortc track that gives Cuts to aiortc's own sender; serve.outlet.Lane."""

    def __init__(self, kind: str, viewer: Viewer, on_stopped: Callable[[], None]) -> None:
        super().__init__()
        self.kind = kind
        self._viewer = viewer
        self._on_stopped = on_stopped
        self._queue = CutQueue()
        self._ready = asyncio.Event()
        self._held = False

    @property
    def queued_bytes(self) -> int:
        return self._queue.bytes

    def put(self, cut: Cut, *, is_keyframe: bool, is_paced: bool) -> tuple[int, bool]:
        result = self._queue.put(cut, is_keyframe=is_keyframe, is_paced=is_paced)
        self._ready.set()
        return result

    def hold(self, is_held: bool) -> None:
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
        cut, is_paced = self._queue.take()
        if is_paced:
            await asyncio.sleep(cut.payloads.size / CATCH_UP_BYTES_PER_SECOND)
        self._viewer.bytes += cut.payloads.size
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
