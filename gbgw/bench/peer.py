"""A WebRTC viewer without a decoder, sans-IO: WHEP offer, ICE (RFC 8445), DTLS (RFC 5764), receiver reports (RFC 3550).

It does what a browser does towards a server, consent checks (RFC 7675) and reports included, and leaves the pictures
sealed: packets are counted by their sequence numbers. Leaves out: candidates other than one host address, trickle,
NACK, key frame requests.
"""

import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Final

import pylibsrtp
from aioice import stun
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from gbgw.base.errors import PeerError

PROFILES: Final = {  # SRTP profiles in Chromium's order -> (of libsrtp, bytes of key and of salt)
    b"SRTP_AES128_CM_SHA1_80": (pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
    b"SRTP_AEAD_AES_256_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
    b"SRTP_AEAD_AES_128_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
}
CONSENT_SECONDS: Final = 5.0  # RFC 7675 section 5.1
REPORT_SECONDS: Final = 1.0
REPEAT_SECONDS: Final = 0.2  # of an unanswered check
PRIORITY: Final = 126 << 24 | 65_535 << 8 | 255  # RFC 8445 section 5.1.2.1: a host address of component 1
DATAGRAM_BYTES: Final = 1_400


class State(Enum):
    NEW = "new"
    CHECKING = "checking"
    HANDSHAKE = "handshake"
    CONNECTED = "connected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Identity:
    """What all viewers of a process share: making a certificate costs more than using it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    context: SSL.Context
    fingerprint: str


@lru_cache(maxsize=1)
def identity() -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gbgw-bench")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .sign(key, hashes.SHA256())
    )
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)  # by fingerprint, below
    context.use_certificate(certificate)
    context.use_privatekey(key)
    context.set_tlsext_use_srtp(b":".join(PROFILES))
    digest = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    return Identity(key, certificate, context, digest)


@dataclass(frozen=True, slots=True)
class Received:
    """What a report says of one RTP stream."""

    ssrc: int
    highest: int
    lost: int


class Viewer:
    """One viewer at `address` (host, port): post `offer`, `accept` the answer, then datagrams in, datagrams out."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.state = State.NEW
        self.remote: tuple[str, int] | None = None
        self.srtp_profile = b""  # as negotiated
        self._address = address
        self._ufrag = secrets.token_hex(4)
        self._password = secrets.token_hex(16)
        self._their_ufrag = ""
        self._their_password = ""
        self._their_fingerprint = ""
        self._is_client = True
        self._ssrc = secrets.randbits(32)
        self._tie_breaker = secrets.randbits(64)
        self._ssl: SSL.Connection | None = None
        self._srtp: pylibsrtp.Session | None = None
        self._check_at = 0.0
        self._consent_at = 0.0
        self._report_at = 0.0

    @property
    def offer(self) -> str:
        """H.264 in the profiles that browsers offer, and G.711; one transport for both."""
        lines = ["v=0", f"o=- {self._tie_breaker >> 2} 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]
        formats = {102: "42e01f", 103: "4d001f", 104: "640028"}
        video = " ".join(map(str, (*formats, *(number + 10 for number in formats))))
        lines += [f"m=video 9 UDP/TLS/RTP/SAVPF {video}", *self._transport(0)]
        lines.append("a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time")
        for number, level in formats.items():
            lines += [
                f"a=rtpmap:{number} H264/90000",
                f"a=fmtp:{number} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={level}",
                *(f"a=rtcp-fb:{number} {kind}" for kind in ("nack", "nack pli", "goog-remb")),
                f"a=rtpmap:{number + 10} rtx/90000",
                f"a=fmtp:{number + 10} apt={number}",
            ]
        lines += ["m=audio 9 UDP/TLS/RTP/SAVPF 8 0", *self._transport(1)]
        return "\r\n".join([*lines, "a=rtpmap:8 PCMA/8000", "a=rtpmap:0 PCMU/8000", ""])

    def _transport(self, mid: int) -> Sequence[str]:
        host, port = self._address
        return (
            "c=IN IP4 0.0.0.0",
            f"a=mid:{mid}",
            "a=recvonly",
            "a=rtcp-mux",
            f"a=ice-ufrag:{self._ufrag}",
            f"a=ice-pwd:{self._password}",
            f"a=fingerprint:sha-256 {identity().fingerprint}",
            "a=setup:actpass",
            f"a=candidate:1 1 udp {PRIORITY} {host} {port} typ host",
        )

    def accept(self, answer: str) -> None:
        """Read the answer; `remote` is where to send from now on. PeerError when it has no address for us."""
        rows = [line.strip() for line in answer.splitlines()]
        values = {name: value for name, _, value in (row.removeprefix("a=").partition(":") for row in reversed(rows))}
        self._their_ufrag = values.get("ice-ufrag", "")
        self._their_password = values.get("ice-pwd", "")
        self._their_fingerprint = values.get("fingerprint", "").partition(" ")[2].upper()
        self._is_client = values.get("setup") != "active"
        for row in rows:
            fields = row.removeprefix("a=").split()
            if row.startswith("a=candidate:") and len(fields) >= 8 and fields[1] == "1" and fields[2].lower() == "udp":
                self.remote = (fields[4], int(fields[5]))
                break
        if self.remote is None or not self._their_password:
            raise PeerError("the answer has no address to play from", code="whep_unusable")
        self.state = State.CHECKING

    def tick(self, now: float, received: Sequence[Received] = ()) -> list[bytes]:
        """Return what is due at `now` (seconds): checks, repetitions, consent, reports."""
        out = []
        if self.state is State.CHECKING and now >= self._check_at:
            self._check_at = now + REPEAT_SECONDS
            out.append(self._check())
        elif self.state is State.HANDSHAKE and self._ssl is not None:
            left = self._ssl.DTLSv1_get_timeout()
            if left is not None and left <= 0:
                self._ssl.DTLSv1_handle_timeout()
                out += self._flight()
        elif self.state is State.CONNECTED:
            if now >= self._consent_at:
                self._consent_at = now + CONSENT_SECONDS
                out.append(self._check())
            if received and now >= self._report_at and self._srtp is not None:
                self._report_at = now + REPORT_SECONDS
                out.append(self._srtp.protect_rtcp(self._report(received)))
        return out

    def push(self, datagram: bytes) -> list[bytes]:
        """Take a datagram that is no RTP; return what goes back."""
        if not datagram:
            return []
        if datagram[0] < 4:
            return self._stun(datagram)
        if 20 <= datagram[0] < 64 and self._ssl is not None:
            self._ssl.bio_write(datagram)
            return self._handshake()
        return []

    def _check(self) -> bytes:
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{self._their_ufrag}:{self._ufrag}"
        request.attributes["PRIORITY"] = PRIORITY
        request.attributes["ICE-CONTROLLING"] = self._tie_breaker
        request.attributes["USE-CANDIDATE"] = None
        request.add_message_integrity(self._their_password.encode())
        return bytes(request)

    def _stun(self, datagram: bytes) -> list[bytes]:
        try:
            message = stun.parse_message(datagram)
        except ValueError:
            return []
        if message.message_class is stun.Class.REQUEST and self.remote is not None:
            if not message.check_message_integrity(self._password.encode()):
                return []
            response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, message.transaction_id)
            response.attributes["XOR-MAPPED-ADDRESS"] = self.remote
            response.add_message_integrity(self._password.encode())
            return [bytes(response)]
        if message.message_class is stun.Class.RESPONSE and self.state is State.CHECKING:
            self.state = State.HANDSHAKE
            self._ssl = SSL.Connection(identity().context, None)
            self._ssl.set_ciphertext_mtu(DATAGRAM_BYTES)
            if self._is_client:
                self._ssl.set_connect_state()
            else:
                self._ssl.set_accept_state()
            return self._handshake()
        return []

    def _handshake(self) -> list[bytes]:
        assert self._ssl is not None
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            return self._flight()
        except SSL.Error:
            self.state = State.FAILED
            return self._flight()
        if self.state is State.HANDSHAKE:
            self._keyed(self._ssl)
        return self._flight()

    def _keyed(self, ssl: SSL.Connection) -> None:
        certificate = ssl.get_peer_certificate(as_cryptography=True)
        print_ = certificate.fingerprint(hashes.SHA256()).hex(":").upper() if certificate is not None else ""
        self.srtp_profile = ssl.get_selected_srtp_profile()
        if print_ != self._their_fingerprint or self.srtp_profile not in PROFILES:
            self.state = State.FAILED
            return
        number, size, salt_size = PROFILES[self.srtp_profile]
        material = ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (size + salt_size))
        side = 0 if self._is_client else 1  # RFC 5764 section 4.2: client key, server key, client salt, server salt
        key = material[side * size : (side + 1) * size]
        salt = material[2 * size + side * salt_size :][:salt_size]
        policy = pylibsrtp.Policy(key=key + salt, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND, srtp_profile=number)
        self._srtp = pylibsrtp.Session(policy)
        self.state = State.CONNECTED

    def _flight(self) -> list[bytes]:
        assert self._ssl is not None
        out = []
        while True:
            try:
                out.append(self._ssl.bio_read(DATAGRAM_BYTES + 100))
            except SSL.WantReadError:
                return out

    def _report(self, received: Sequence[Received]) -> bytes:
        """RFC 3550 section 6.4.2."""
        blocks = b"".join(
            struct.pack(">IIIIII", one.ssrc, min(one.lost, 0x7F_FFFF), one.highest & 0xFFFF_FFFF, 0, 0, 0)
            for one in received[:31]
        )
        count = min(len(received), 31)
        return struct.pack(">BBHI", 0x80 | count, 201, 1 + 6 * count, self._ssrc) + blocks
