"""A WebRTC viewer on aiortc, over loopback, that keeps the RTP packets as they came."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtcpPsfbPacket, RtpPacket


@dataclass
class Player:
    """Offers `kinds` to receive; `async with` closes it and waits for what aiortc started."""

    kinds: Sequence[str] = ("video", "audio")
    host: str = "127.0.0.1"
    channel: bool = False
    packets: dict[str, list[RtpPacket]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        if self.channel:
            self.peer.createDataChannel("anything")
        for kind in self.kinds:
            transceiver = self.peer.addTransceiver(kind, direction="recvonly")
            transceiver.receiver._handle_rtp_packet = self._keeper(kind)  # type: ignore[method-assign]

    def _keeper(self, kind: str) -> Any:
        async def keep(packet: RtpPacket, arrival_time_ms: int) -> None:
            self.packets[kind].append(packet)

        return keep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def offer(self) -> str:
        """The offer, candidates of `host` alone included."""
        for transport in self.peer._RTCPeerConnection__iceTransports:  # type: ignore[attr-defined]
            ice = transport.iceGatherer._connection
            gather = ice.get_component_candidates

            async def only(component: int, addresses: list[str], timeout: int = 5, gather: Any = gather) -> Any:
                return await gather(component, [self.host], timeout)

            ice.get_component_candidates = only
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    @property
    def state(self) -> str:
        return str(self.peer.connectionState)

    async def lose_picture(self) -> None:
        """Send a PLI."""
        transceiver = next(one for one in self.peer.getTransceivers() if one.kind == "video")
        packet = RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=self.packets["video"][0].ssrc)
        await transceiver.receiver.transport._send_rtp(bytes(packet))

    def vanish(self) -> None:
        """Leave without a word: close the socket under ICE."""
        for transport in self.peer._RTCPeerConnection__iceTransports:  # type: ignore[attr-defined]
            for protocol in transport.iceGatherer._connection._protocols:
                protocol.transport.abort()

    async def close(self) -> None:
        before = asyncio.all_tasks()
        await self.peer.close()
        own = {task for task in before if "aiortc" in repr(task.get_coro()) or "RTC" in repr(task.get_coro())}
        if own:
            await asyncio.wait(own, timeout=2)

    @property
    def sound(self) -> bytes:
        return b"".join(packet.payload for packet in self.packets["audio"])

    @property
    def pictures(self) -> list[tuple[int, list[bytes]]]:
        """(time stamp, NAL units) of every picture whose marker came, by RFC 6184 read the plain way."""
        found: list[tuple[int, list[bytes]]] = []
        nals: list[bytes] = []
        for packet in self.packets["video"]:
            payload = packet.payload
            kind = payload[0] & 31
            if kind == 24:
                at = 1
                while at < len(payload):
                    size = int.from_bytes(payload[at : at + 2], "big")
                    nals.append(payload[at + 2 : at + 2 + size])
                    at += 2 + size
            elif kind == 28:
                if payload[1] & 0x80:
                    nals.append(bytes([payload[0] & 0xE0 | payload[1] & 0x1F]))
                nals[-1] += payload[2:]
            else:
                nals.append(payload)
            if packet.marker:
                found.append((packet.timestamp, nals))
                nals = []
        return found
