"""Who we are to WebRTC viewers, and how packets to them are protected: one certificate for all, and SRTP profiles in
the order of what they cost us (RFC 5763, RFC 5764, RFC 7714).

aiortc makes a key, a certificate and an OpenSSL context for each connection and offers AES-256 first. The DTLS server
chooses the profile (RFC 5764 section 4.1.2), so serve.offer makes us that where the viewer leaves it open.
"""

from typing import Any, Final

from aiortc import rtcdtlstransport
from aiortc.rtcdtlstransport import RTCCertificate
from OpenSSL import SSL

from gbgw.base import limits
from gbgw.serve.internals import internal

# A picture of 17 packets costs 15 us by AES-128-GCM, 25 by AES-CM with HMAC-SHA1, which every viewer has.
PREFERENCE: Final = (b"SRTP_AEAD_AES_128_GCM", b"SRTP_AEAD_AES_256_GCM", b"SRTP_AES128_CM_SHA1_80")


class Identity(RTCCertificate):
    """A key, its certificate, and the OpenSSL context that all connections share."""

    _context: SSL.Context | None = None
    _fingerprints: Any = None

    def getFingerprints(self) -> Any:
        if self._fingerprints is None:
            self._fingerprints = super().getFingerprints()
        return self._fingerprints

    def _create_ssl_context(self, srtp_profiles: Any) -> SSL.Context:
        """In the place of aiortc's, which makes one for each connection."""
        if self._context is None:
            context = super()._create_ssl_context(sorted(srtp_profiles, key=_rank))
            context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # a viewer comes once; the cache would keep 20,000
            self._context = context
        return self._context


class Identities:
    """The identity of now: a new one in time, and connections keep the one that they began with."""

    def __init__(self) -> None:
        for name in ("SRTP_PROFILES", "RTCCertificate"):
            internal(rtcdtlstransport, name)
        internal(RTCCertificate, "_create_ssl_context")
        self._identity: Identity | None = None
        self._made_at = 0.0

    def current(self, now: float) -> Identity:
        """now: loop seconds."""
        if self._identity is None or now - self._made_at > limits.WEBRTC_IDENTITY_SECONDS:
            self._identity, self._made_at = Identity.generateCertificate(), now
        return self._identity


def _rank(profile: Any) -> int:
    name: bytes = profile.openssl_profile
    return PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE)
