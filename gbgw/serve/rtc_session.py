"""One WebRTC viewer from its offer to the end of its connection: aiortc's peer connection, with what is ours put in the
place of what is aiortc's (serve.internals), and the Outlet that feeds it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import pylibsrtp
from aioice.ice import Connection as IceConnection
from aiortc import RTCConfiguration, RTCIceTransport, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError, OperationError
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters
from aiortc.sdp import candidate_from_sdp

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.base.tally import Tally
from gbgw.base.ticks import HZ
from gbgw.observe import log
from gbgw.serve import feedback
from gbgw.serve import offer as sdp
from gbgw.serve.addresses import Addresses
from gbgw.serve.dtls import Identities
from gbgw.serve.feedback import Damaged, Missed, PictureLost, ReceptionReport
from gbgw.serve.internals import internal, replace
from gbgw.serve.lane import NativeLane
from gbgw.serve.lite import LiteConnection
from gbgw.serve.native import NativeSender, Srtp
from gbgw.serve.offer import Served
from gbgw.serve.outlet import SOUND_HZ, Outlet
from gbgw.serve.pacer import Pacer
from gbgw.serve.payloads import Packer
from gbgw.serve.ports import Gathering
from gbgw.serve.source import Viewing
from gbgw.serve.stock import Paced, PacketTrack, Ready
from gbgw.serve.whep import WhepRequest

CONNECT_SECONDS: Final = 15.0  # for ICE and DTLS together
CLOSE_SECONDS: Final = 2.0
_RTCP_SECOND: Final = range(192, 224)  # second byte of RTCP where it shares a port with RTP (RFC 5761 section 4)


@dataclass(frozen=True, slots=True)
class Common:
    """What all sessions of a process share. srtp: None where aiortc's own sender sends."""

    tally: Tally
    packer: Packer
    pacer: Pacer
    srtp: Srtp | None
    addresses: Addresses
    identities: Identities


class Session:
    """One viewer: a peer connection, the Outlet that feeds it, and the right to watch."""

    def __init__(
        self, common: Common, session_id: str, viewing: Viewing, request: WhepRequest, offer: sdp.Offer
    ) -> None:
        self.id = session_id
        self.is_connected = False
        self._common = common
        self._viewing = viewing
        self._request = request
        self._offer = offer
        self._candidates = offer.candidates
        self._ufrags = {line.ufrag for line in offer.lines}
        self._tally = common.tally
        self._settled = asyncio.Event()  # connected, or over
        self._over = asyncio.Event()
        self._done = asyncio.Event()
        self._reason = ""
        self._log = log.get("webrtc").bind(stream=request.key, viewer=request.viewer.id)
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        identity = common.identities.current(asyncio.get_running_loop().time())
        replace(self._peer, "_RTCPeerConnection__certificates", [identity])
        self._peer.on("connectionstatechange", self._on_state)
        self._strays: set[asyncio.Task[Any]] = set()  # tasks of aiortc that nobody else holds
        self._hold("_RTCPeerConnection__connect")
        self._outlet: Outlet | None = None
        self._lanes: dict[int, NativeLane] = {}  # by SSRC
        self._lites: list[LiteConnection] = []

    def _hold(self, name: str) -> None:
        """internal: aiortc starts this method as a task and forgets it; keep the task, and learn how it ended."""
        method: Callable[[], Awaitable[None]] = internal(self._peer, name)

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

        replace(self._peer, name, held)

    @property
    def transports(self) -> list[RTCIceTransport]:
        """internal: those left after bundling."""
        return list(internal(self._peer, "_RTCPeerConnection__iceTransports"))

    async def negotiate(self, served: Iterable[Served]) -> str:
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
        return sdp.answer(
            self._offer, served, str(self._peer.localDescription.sdp), is_lite=self._common.addresses.is_shared
        )

    def _attach(self, served: tuple[Served, ...]) -> Outlet:
        """internal: the codecs of a transceiver were settled by setRemoteDescription; put the viewer's own there."""
        lanes = {"video": self._lane("video"), "audio": self._lane("audio")}
        for transceiver, one in zip(self._peer.getTransceivers(), served, strict=True):
            assert transceiver.mid == one.line.mid
            replace(transceiver, "_codecs", list(codecs(one)))
            transceiver.direction = "sendonly"
            lane = lanes[one.line.kind]
            if isinstance(lane, NativeLane):
                assert self._common.srtp is not None
                sender = NativeSender(self._common.srtp, transceiver.sender, one, lane, self._on_srtp)
                self._lanes[sender.ssrc] = lane
                # internal: ours reads what aiortc leaves out, such as a FIR (RFC 5104 section 4.3.1.2)
                replace(transceiver.sender.transport, "_handle_rtcp_data", self._on_rtcp)
                continue
            stock = transceiver.sender
            stock.replaceTrack(lane)
            # internal: the units are cut already; and the sender would ask its encoder for a key frame
            replace(stock, "_RTCRtpSender__encoder", Ready())
            replace(stock, "_send_keyframe", self._on_picture_lost)
        return Outlet(
            self._viewing,
            self._request.viewer,
            self._common.packer,
            served,
            video=lanes["video"],
            audio=lanes["audio"],
            tally=self._tally,
            end=self.end,
        )

    def _lane(self, kind: str) -> "NativeLane | PacketTrack":
        viewer = self._request.viewer
        if self._common.srtp is not None:
            return NativeLane(viewer, self._tally, self._common.pacer, on_stopped=self._on_lane_stopped)
        return PacketTrack(kind, viewer, self._on_lane_stopped)

    def _on_lane_stopped(self) -> None:
        if self._outlet is not None:
            self._outlet.on_stopped()

    async def _own_addresses(self, served: tuple[Served, ...], outlet: Outlet) -> None:
        """Replace aioice's gathering, which binds every address of the host but loopback, on ephemeral ports; or with
        one port for all viewers, the whole of aioice."""
        bind, hosts = self._common.addresses.hosts(self._request)
        shared = await self._common.addresses.shared_port(bind) if self._common.addresses.is_shared else None
        for transport in self.transports:
            if shared is None:
                ice: IceConnection = internal(transport.iceGatherer, "_connection")
                gathering = Gathering(self._common.addresses, self._tally, ice, bind, hosts, outlet.on_writable)
                replace(ice, "get_component_candidates", gathering)
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
                    replace(owner, name, value)
            if self._common.srtp is None:
                replace(transport, "_send", Paced(internal(transport, "_send")))

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
        held = internal(self._peer, "_RTCPeerConnection__dtlsTransports")
        pumps = {task for transport in held if (task := internal(transport, "_task")) is not None}
        async with asyncio.TaskGroup() as tasks:
            closing = tasks.create_task(self._peer.close(), name=f"webrtc-close:{self._request.viewer.id}")
            await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
            if not closing.done():
                self._tally.add("webrtc.slow_close")
                pumps |= self._abort()
                await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
                closing.cancel()
        # The tasks of aioice (checks, consent) end within Connection.close(); these of aiortc only soon after.
        own_close = internal(self._peer, "_RTCPeerConnection__closeTask")
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
            ice = internal(transport.iceGatherer, "_connection")
            found.append(internal(transport, "_RTCIceTransport__monitor_task"))
            if isinstance(ice, LiteConnection):
                ice.fail()
                continue
            for protocol in internal(ice, "_protocols"):
                protocol.transport.abort()
            found.append(internal(ice, "_query_consent_task"))
        for transceiver in self._peer.getTransceivers():
            found += [internal(transceiver.sender, f"_RTCRtpSender__{name}_task") for name in ("rtp", "rtcp")]
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


def codecs(one: Served) -> Iterable[RTCRtpCodecParameters]:
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
