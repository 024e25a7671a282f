"""A WebRTC viewer's end of SRTP: a socket, a core Sender that aims at it, and the keys to read what comes."""

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pylibsrtp
from aiortc import rtp

from gbgw._webrtc import Batch, Sender

PROFILES = {
    "cm": (pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    "gcm": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
}
EXTENSION = struct.pack(">HH", 0xBEDE, 2) + b"\x10\x30" + b"\x22" + bytes(3) + bytes(2)
SEND_TIME_AT = 7


def protect_address() -> int:
    from pylibsrtp._binding import ffi, lib

    return int(ffi.cast("uintptr_t", ffi.addressof(lib, "srtp_protect")))


def session_address(session: pylibsrtp.Session) -> int:
    from pylibsrtp._binding import ffi

    return int(ffi.cast("uintptr_t", session._srtp[0]))


def sessions(profile: str = "cm") -> tuple[pylibsrtp.Session, pylibsrtp.Session]:
    """Ours and the viewer's."""
    number, size = PROFILES[profile]
    key = os.urandom(size)
    made = []
    for kind in (pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND):
        policy = pylibsrtp.Policy(key=key, ssrc_type=kind, srtp_profile=number)
        policy.allow_repeat_tx = True
        policy.window_size = 1_024
        made.append(pylibsrtp.Session(policy))
    return made[0], made[1]


@dataclass
class SrtpViewer:
    """`sender` and `repair` aim at it; `read` gives what came, decrypted by pylibsrtp and parsed by aiortc."""

    profile: str = "cm"
    segments: bool = True
    extension: bytes = b""
    family: int = socket.AF_INET
    sequence_number: int = 65_530
    origin: int = 0xFFFFFF00
    batch: Batch = field(init=False)

    def __enter__(self) -> "SrtpViewer":
        own, self.reading = sessions(self.profile)
        host = "127.0.0.1" if self.family == socket.AF_INET else "::1"
        self.out, self.inward = (socket.socket(self.family, socket.SOCK_DGRAM) for _ in range(2))
        for one in (self.out, self.inward):
            one.bind((host, 0))
        self.inward.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.inward.settimeout(2)
        self.batch = Batch(segments=self.segments)
        self.sender = self.made(0xC0FFEE, 96, own)
        self.repair = self.made(0xBEEF, 97, own)
        return self

    def made(self, ssrc: int, payload_type: int, session: pylibsrtp.Session) -> Sender:
        sender = Sender(
            self.batch,
            ssrc=ssrc,
            payload_type=payload_type,
            sequence_number=self.sequence_number,
            timestamp_origin=self.origin,
            protect=protect_address(),
            session=session_address(session),
            owner=session,
            extension=self.extension,
            send_time_at=SEND_TIME_AT if self.extension else -1,
        )
        sender.aim(self.out.fileno(), self.address)
        return sender

    @property
    def address(self) -> bytes:
        port = struct.pack(">H", self.inward.getsockname()[1])
        family = struct.pack("=H", self.family)
        if self.family == socket.AF_INET:
            return family + port + socket.inet_aton("127.0.0.1") + bytes(8)
        return family + port + bytes(4) + socket.inet_pton(socket.AF_INET6, "::1") + bytes(4)

    def __exit__(self, *_: object) -> None:
        self.out.close()
        self.inward.close()

    def read(self, count: int) -> Iterator[rtp.RtpPacket]:
        for _ in range(count):
            yield rtp.RtpPacket.parse(self.reading.unprotect(self.inward.recv(4_000)), EXTENSIONS)

    def silence(self) -> bool:
        self.inward.setblocking(False)
        try:
            self.inward.recv(4_000)
        except BlockingIOError:
            return True
        finally:
            self.inward.settimeout(2)
        return False


def _extensions() -> rtp.HeaderExtensionsMap:
    from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters

    found = rtp.HeaderExtensionsMap()
    uris = ("urn:ietf:params:rtp-hdrext:sdes:mid", "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time")
    found.configure(
        RTCRtpParameters(
            headerExtensions=[RTCRtpHeaderExtensionParameters(id=id_, uri=uri) for id_, uri in enumerate(uris, 1)]
        )
    )
    return found


EXTENSIONS = _extensions()
