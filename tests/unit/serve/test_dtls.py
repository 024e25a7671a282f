"""Profiles by the handshake itself: OpenSSL at both ends, the other one with what a viewer may offer."""

import contextlib

import pytest
from aiortc import rtcdtlstransport
from aiortc.rtcdtlstransport import RTCCertificate
from OpenSSL import SSL

from gbgw.base import limits
from gbgw.base.errors import LocalError
from gbgw.serve.dtls import PREFERENCE, Identities, Identity

GCM_128, GCM_256, CM = PREFERENCE
CHROMIUM = (CM, GCM_256, GCM_128)


def identity() -> Identity:
    return Identities().current(0.0)


def offered(profiles: tuple[bytes, ...]) -> SSL.Connection:
    """A viewer's end of DTLS."""
    made = RTCCertificate.generateCertificate()
    known = {one.openssl_profile: one for one in rtcdtlstransport.SRTP_PROFILES}
    return SSL.Connection(made._create_ssl_context([known[name] for name in profiles]))


def shake(server: SSL.Connection, client: SSL.Connection) -> None:
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(60_000))


@pytest.mark.parametrize(
    ("profiles", "chosen"),
    [(CHROMIUM, GCM_128), ((GCM_256, GCM_128, CM), GCM_128), ((GCM_256, CM), GCM_256), ((CM,), CM)],
)
def test_the_cheapest_profile_of_the_viewer_is_taken(profiles: tuple[bytes, ...], chosen: bytes) -> None:
    context = identity()._create_ssl_context(rtcdtlstransport.SRTP_PROFILES)
    ends = SSL.Connection(context), offered(profiles)
    shake(*ends)
    assert [end.get_selected_srtp_profile() for end in ends] == [chosen, chosen]


def test_without_gcm_in_libsrtp_the_rest_is_there() -> None:
    only = [one for one in rtcdtlstransport.SRTP_PROFILES if one.openssl_profile == CM]
    ends = SSL.Connection(identity()._create_ssl_context(only)), offered(CHROMIUM)
    shake(*ends)
    assert ends[0].get_selected_srtp_profile() == CM


def test_all_connections_share_one_identity_for_a_time() -> None:
    held = Identities()
    first = held.current(5.0)
    assert held.current(5.0 + limits.WEBRTC_IDENTITY_SECONDS) is first
    profiles = rtcdtlstransport.SRTP_PROFILES
    assert first._create_ssl_context(profiles) is first._create_ssl_context(profiles)
    assert first.getFingerprints() is first.getFingerprints()
    later = held.current(6.0 + limits.WEBRTC_IDENTITY_SECONDS)
    assert later is not first
    assert later.getFingerprints() != first.getFingerprints()
    assert held.current(7.0 + limits.WEBRTC_IDENTITY_SECONDS) is later


def test_sessions_are_not_kept_for_viewers_that_come_once() -> None:
    context = identity()._create_ssl_context(rtcdtlstransport.SRTP_PROFILES)
    assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RTCCertificate, "_create_ssl_context")
    with pytest.raises(LocalError) as caught:
        Identities()
    assert caught.value.code == "webrtc_version"
