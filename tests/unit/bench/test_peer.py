"""A viewer against the other side's half of ICE and DTLS, played here by the libraries themselves."""

import contextlib
import struct

import pylibsrtp
import pytest
from aioice import stun
from OpenSSL import SSL

from gbgw.base.errors import PeerError
from gbgw.bench.peer import PROFILES, Received, State, Viewer, identity
from gbgw.serve import offer as sdp

PASSWORD = "p" * 24


class Server:
    """One DTLS end; its certificate is the viewers' own, which has one fingerprint for both."""

    def __init__(self, *, active: bool, profile: bytes = b"SRTP_AES128_CM_SHA1_80") -> None:
        own = identity()
        context = SSL.Context(SSL.DTLS_METHOD)
        context.use_certificate(own.certificate)
        context.use_privatekey(own.key)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        context.set_tlsext_use_srtp(profile)
        self.ssl = SSL.Connection(context, None)
        self.ssl.set_ciphertext_mtu(1_400)
        if active:
            self.ssl.set_connect_state()
        else:
            self.ssl.set_accept_state()

    def push(self, datagrams: list[bytes]) -> list[bytes]:
        for datagram in datagrams:
            self.ssl.bio_write(datagram)
        with contextlib.suppress(SSL.WantReadError):
            self.ssl.do_handshake()
        out = []
        while True:
            try:
                out.append(self.ssl.bio_read(1_500))
            except SSL.WantReadError:
                return out


def answer(setup: str = "passive", fingerprint: str = "") -> str:
    return "\r\n".join(
        (
            *("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "m=video 9 UDP/TLS/RTP/SAVPF 104"),
            *("a=ice-ufrag:them", f"a=ice-pwd:{PASSWORD}", f"a=setup:{setup}"),
            f"a=fingerprint:sha-256 {fingerprint or identity().fingerprint}",
            "a=candidate:9 1 tcp 1 127.0.0.1 9 typ host tcptype active",
            "a=candidate:1 1 udp 2130706431 127.0.0.1 5004 typ host",
            "a=candidate:2 1 udp 2130706430 127.0.0.2 5004 typ host",
        )
    )


def checked(viewer: Viewer) -> list[bytes]:
    """Answer its check; what it sends then."""
    (check,) = viewer.tick(0.0)
    request = stun.parse_message(check)
    assert request.check_message_integrity(PASSWORD.encode())
    assert str(request.attributes["USERNAME"]).startswith("them:")
    assert "USE-CANDIDATE" in request.attributes
    response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
    response.attributes["XOR-MAPPED-ADDRESS"] = ("127.0.0.1", 4_000)
    response.add_message_integrity(PASSWORD.encode())
    return viewer.push(bytes(response))


def connected(setup: str, profile: bytes = b"SRTP_AES128_CM_SHA1_80") -> tuple[Viewer, Server]:
    viewer = Viewer(("127.0.0.1", 4_000))
    viewer.accept(answer(setup))
    assert viewer.remote == ("127.0.0.1", 5_004)
    server = Server(active=setup == "active", profile=profile)
    waiting = checked(viewer)
    for _ in range(20):
        if viewer.state is State.CONNECTED:
            break
        waiting = [reply for datagram in server.push(waiting) for reply in viewer.push(datagram)]
    server.push(waiting)
    return viewer, server


def test_the_offer_is_understood_and_has_a_profile_for_cameras() -> None:
    offer = sdp.parse(Viewer(("127.0.0.1", 4_000)).offer)
    served = sdp.choose(offer, profile=100, law="PCMA")
    assert [one.line.kind for one in served] == ["video", "audio"]
    assert served[0].format.profile == "640028"
    assert served[0].format.repair is not None
    assert served[0].line.candidates[0].port == 4_000


@pytest.mark.parametrize("setup", ["passive", "active"])
@pytest.mark.parametrize("profile", PROFILES)
def test_it_connects_and_reports(setup: str, profile: bytes) -> None:
    viewer, server = connected(setup, profile)
    assert viewer.state is State.CONNECTED
    assert viewer.srtp_profile == server.ssl.get_selected_srtp_profile() == profile
    out = viewer.tick(10.0, [Received(0x1234, 70_000, 3)])
    assert len(out) == 2  # consent, report
    assert viewer.tick(10.5, [Received(0x1234, 70_000, 3)]) == []
    number, size, salt = PROFILES[profile]
    material = server.ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (size + salt))
    keys, salts = material[: 2 * size], material[2 * size :]
    key = keys[:size] + salts[:salt] if setup == "passive" else keys[size:] + salts[salt:]
    policy = pylibsrtp.Policy(key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND, srtp_profile=number)
    plain = pylibsrtp.Session(policy).unprotect_rtcp(out[1])
    assert plain[:4] == b"\x81\xc9\x00\x07"
    assert struct.unpack(">III", plain[8:20]) == (0x1234, 3, 70_000)


def test_it_answers_checks_of_those_who_know_its_password() -> None:
    viewer = Viewer(("127.0.0.1", 4_000))
    viewer.accept(answer())
    password = next(row for row in viewer.offer.splitlines() if row.startswith("a=ice-pwd:")).partition(":")[2]
    for known, count in ((password, 1), ("wrong" * 5, 0)):
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.add_message_integrity(known.encode())
        replies = viewer.push(bytes(request))
        assert len(replies) == count
    assert viewer.push(b"") == viewer.push(b"\x00\x01nonsense") == viewer.push(b"\x16early") == []


def test_checks_are_repeated_until_answered() -> None:
    viewer = Viewer(("127.0.0.1", 4_000))
    viewer.accept(answer())
    assert [len(viewer.tick(moment)) for moment in (0.0, 0.1, 0.25, 0.3, 0.5)] == [1, 0, 1, 0, 1]


def test_another_certificate_than_announced_fails() -> None:
    viewer = Viewer(("127.0.0.1", 4_000))
    viewer.accept(answer(fingerprint=":".join(["00"] * 32)))
    server = Server(active=False)
    waiting = checked(viewer)
    for _ in range(20):
        if viewer.state is not State.HANDSHAKE:
            break
        waiting = [reply for datagram in server.push(waiting) for reply in viewer.push(datagram)]
    assert viewer.state is State.FAILED


@pytest.mark.parametrize("text", ["", "v=0\r\na=ice-pwd:x", answer().replace(" udp ", " tcp ")])
def test_an_answer_without_an_address_is_refused(text: str) -> None:
    with pytest.raises(PeerError):
        Viewer(("127.0.0.1", 4_000)).accept(text)
