"""Our own sender behind aiortc's keys: libsrtp by the address of its function, and a NativeLane in the place of a
sender's tasks."""

import os
import secrets
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import pylibsrtp
from aiortc import rtcrtpsender

from gbgw import _webrtc
from gbgw._webrtc import Batch, Sender
from gbgw.serve.internals import changed, internal, replace
from gbgw.serve.lane import NativeLane, Way
from gbgw.serve.lite import LiteConnection
from gbgw.serve.offer import MID_EXTENSION, SEND_TIME_EXTENSION, Line, Served
from gbgw.serve.route import AioiceRoute, LiteRoute


class Srtp:
    """What all our own senders share: libsrtp's function, and memory for packets on their way out.

    Raises LocalError `webrtc_version` when libsrtp is not reached as in the pinned pylibsrtp.
    """

    def __init__(self) -> None:
        binding = internal(pylibsrtp, "_binding")
        self._ffi = internal(binding, "ffi")
        try:
            address = self._ffi.addressof(internal(binding, "lib"), "srtp_protect")
            self.protect = int(self._ffi.cast("uintptr_t", address))
            self._test()
        except (AttributeError, TypeError, KeyError, OSError, pylibsrtp.Error) as error:
            raise changed(pylibsrtp, f"usable srtp_protect ({error})") from error
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
        return int(self._ffi.cast("uintptr_t", internal(made, "_srtp")[0]))


class NativeSender:
    """Puts a NativeLane in the place of one RTCRtpSender's own tasks."""

    def __init__(
        self,
        native: Srtp,
        sender: rtcrtpsender.RTCRtpSender,
        served: Served,
        lane: NativeLane,
        on_srtp: Callable[[pylibsrtp.Session, bytes], None],
    ) -> None:
        self._native = native
        self._sender = sender
        self._served = served
        self._lane = lane
        self.ssrc: int = internal(sender, "_ssrc")
        self._rtx_ssrc: int = internal(sender, "_rtx_ssrc")
        self._on_srtp = on_srtp
        replace(sender, "send", self._start)
        replace(sender, "stop", self._stop)

    async def _start(self, parameters: Any) -> None:
        """In the place of RTCRtpSender.send: DTLS is through, the keys are there."""
        dtls = self._sender.transport
        srtp = internal(dtls, "_tx_srtp")
        ice = internal(dtls.transport.iceGatherer, "_connection")
        route: AioiceRoute | LiteRoute
        if isinstance(ice, LiteConnection):
            route = LiteRoute(ice)
            ice.on_srtcp = partial(self._on_srtp, internal(dtls, "_rx_srtp"))
        else:
            route = AioiceRoute(ice)
        extension, send_time_at = header_extension(self._served.line)
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


def header_extension(line: Line) -> tuple[bytes, int]:
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
