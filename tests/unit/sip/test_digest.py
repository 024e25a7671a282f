"""Digest against the worked values of the reference (section 2.8) and RFC 2617/7616 examples; the nonce policy."""

import pytest

from gbgw.base.errors import AuthError
from gbgw.sip.digest import (
    Authenticator,
    Authorization,
    Challenge,
    DigestClient,
    NonceStore,
    Verdict,
    ha1,
    response_digest,
)
from gbgw.sip.message import Headers, Response

USER, REALM, PASSWORD = "34020000001320000001", "3402000000", "12345678"
NONCE, URI = "b7c1d94e20af5836", "sip:34020000002000000001@3402000000"
HA1 = {"MD5": ha1(USER, REALM, PASSWORD), "SHA-256": ha1(USER, REALM, PASSWORD, "SHA-256")}


def given(**more: str) -> Authorization:
    fields = {"username": USER, "realm": REALM, "nonce": NONCE, "uri": URI, "response": ""} | more
    return Authorization(**fields)


def test_worked_values() -> None:
    assert ha1(USER, REALM, PASSWORD) == "8258341d7dd730ce4d3b8fd2db050320"
    assert response_digest(HA1["MD5"], "REGISTER", given()) == "a622b4a9ff332ad2749caeb29b7bd2dc"
    with_qop = given(qop="auth", nc="00000001", cnonce="5d41a7c2")
    assert response_digest(HA1["MD5"], "REGISTER", with_qop) == "6a4eeceb0120a6a15eac5e742bf94e35"
    sha = given(qop="auth", nc="00000001", cnonce="5d41a7c2", algorithm="SHA-256")
    expected = "148afc2d54eb5a6c18c3d8c4f2809c3883ae31b76a046b4a15ba16c678869e38"
    assert response_digest(HA1["SHA-256"], "REGISTER", sha) == expected


def test_md5_sess_hashes_the_first_hash_again() -> None:
    import hashlib

    def h(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    session = h(f"{HA1['MD5']}:{NONCE}:5d41a7c2")
    expected = h(f"{session}:{NONCE}:00000001:5d41a7c2:auth:{h('REGISTER:' + URI)}")
    asked = given(qop="auth", nc="00000001", cnonce="5d41a7c2", algorithm="MD5-sess")
    assert response_digest(HA1["MD5"], "REGISTER", asked) == expected


def test_parse_takes_spaces_missing_quotes_and_any_order() -> None:
    text = f'DIGEST  Response=ABC , URI="{URI}",nonce={NONCE}, realm = "{REALM}",username={USER}, qop=auth,nc=00000001'
    parsed = Authorization.parse(text)
    assert (parsed.username, parsed.realm, parsed.nonce, parsed.uri) == (USER, REALM, NONCE, URI)
    assert (parsed.response, parsed.qop, parsed.nc) == ("ABC", "auth", "00000001")


@pytest.mark.parametrize("text", ["Basic dTpw", "Digest", 'Digest username="a",realm="b"', "", "Digest ,,,=,"])
def test_parse_refuses_what_is_no_digest(text: str) -> None:
    with pytest.raises(AuthError):
        Authorization.parse(text)


def exchange(server: Authenticator, client: DigestClient, now: float, **options: object) -> Verdict:
    challenge = Response(Headers([("WWW-Authenticate", server.challenges(now)[0])]), b"", 401)
    name, value = client.answer(challenge, "REGISTER", URI)
    assert name == "Authorization"
    return server.verify(Authorization.parse(value), "REGISTER", HA1, now)


@pytest.mark.parametrize("offer_qop", [True, False])
def test_client_satisfies_server(offer_qop: bool) -> None:
    server = Authenticator(REALM, offer_qop=offer_qop)
    assert exchange(server, DigestClient(USER, PASSWORD), 5.0) is Verdict.OK
    assert exchange(server, DigestClient(USER, "wrong"), 5.0) is Verdict.WRONG


def test_sha256_goes_first_when_offered_first() -> None:
    server = Authenticator(REALM)
    lines = server.challenges(1.0, algorithms=("SHA-256", "MD5"))
    refused = Response(Headers([("WWW-Authenticate", line) for line in lines]), b"", 401)
    credentials = Authorization.parse(DigestClient(USER, PASSWORD).answer(refused, "REGISTER", URI)[1])
    assert credentials.algorithm == "SHA-256"
    assert server.verify(credentials, "REGISTER", HA1, 1.0) is Verdict.OK
    assert server.verify(credentials, "REGISTER", {"MD5": HA1["MD5"]}, 1.0) is Verdict.WRONG


def test_407_is_answered_by_proxy_authorization() -> None:
    line = str(Challenge(REALM, NONCE))
    name, _ = DigestClient(USER, PASSWORD).answer(
        Response(Headers([("Proxy-Authenticate", line)]), b"", 407), "INVITE", URI
    )
    assert name == "Proxy-Authorization"


def test_no_usable_challenge_is_an_error() -> None:
    for line in (
        "Basic realm=x",
        'Digest realm="a",nonce="b",algorithm=AKAv1-MD5',
        'Digest realm="a",nonce="b",qop="auth-int"',
    ):
        with pytest.raises(AuthError):
            DigestClient(USER, PASSWORD).answer(
                Response(Headers([("WWW-Authenticate", line)]), b"", 401), "REGISTER", URI
            )


def signed(server: Authenticator, nonce: str, *, nc: str = "", method: str = "REGISTER", **more: str) -> Authorization:
    extra = {"qop": "auth", "nc": nc, "cnonce": "c0"} if nc else {}
    draft = given(nonce=nonce, **extra, **more)
    digest = response_digest(HA1["MD5"], method, draft)
    return given(nonce=nonce, **extra, **(more | {"response": digest.upper()}))


def test_without_qop_a_nonce_is_good_once() -> None:
    server = Authenticator(REALM)
    credentials = signed(server, server.nonces.issue(10.0))
    assert server.verify(credentials, "REGISTER", HA1, 10.5) is Verdict.OK
    assert server.verify(credentials, "REGISTER", HA1, 10.6) is Verdict.STALE
    assert server.verify(credentials, "REGISTER", HA1, 10.7, nonce_reuse=True) is Verdict.OK


def test_with_qop_the_count_must_rise() -> None:
    server = Authenticator(REALM)
    nonce = server.nonces.issue(10.0)
    verdicts = [server.verify(signed(server, nonce, nc=nc), "REGISTER", HA1, 11.0) for nc in ("00000001", "00000003")]
    assert verdicts == [Verdict.OK, Verdict.OK]
    for nc in ("00000003", "00000002", "00000001", "00000000"):
        assert server.verify(signed(server, nonce, nc=nc), "REGISTER", HA1, 11.0) is Verdict.STALE
    assert server.verify(signed(server, nonce), "REGISTER", HA1, 11.0) is Verdict.STALE  # nor may the count be left out


def test_an_old_or_foreign_nonce_is_stale_only_when_the_digest_is_right() -> None:
    server = Authenticator(REALM, nonces=NonceStore(REALM, lifetime_seconds=60))
    nonce = server.nonces.issue(10.0)
    assert server.verify(signed(server, nonce), "REGISTER", HA1, 70.1) is Verdict.STALE
    assert server.verify(signed(server, NONCE), "REGISTER", HA1, 10.0) is Verdict.STALE
    assert server.verify(signed(server, NonceStore(REALM).issue(10.0)), "REGISTER", HA1, 10.0) is Verdict.STALE
    assert server.verify(given(nonce=nonce, response="00"), "REGISTER", HA1, 10.0) is Verdict.WRONG
    assert server.verify(given(nonce=nonce, response="é"), "REGISTER", HA1, 10.0) is Verdict.WRONG


def test_failures_need_no_memory_and_successes_have_a_ceiling() -> None:
    store = NonceStore(REALM, limit=10)
    server = Authenticator(REALM, nonces=store)
    for step in range(100):
        server.verify(given(nonce=store.issue(step), response="0" * 32), "REGISTER", HA1, step)
    assert len(store) == 0
    first = store.issue(100.0)
    assert store.accept(first, None, 100.0)
    for step in range(30):
        assert store.accept(store.issue(101.0 + step), None, 101.0 + step)
    assert len(store) == 10
    assert not store.accept(first, None, 131.0)  # forgotten, and still used up
    assert len(store) == 10
    assert store.accept(store.issue(1000.0), None, 1000.0)
    assert len(store) == 1  # what is too old is forgotten


def test_the_method_may_count_as_it_was_spelled() -> None:
    server = Authenticator(REALM)
    credentials = signed(server, server.nonces.issue(1.0), method="Register")
    assert server.verify(credentials, "REGISTER", HA1, 1.0) is Verdict.WRONG
    assert server.verify(credentials, "REGISTER", HA1, 1.0, method_text="Register") is Verdict.OK


def test_qop_can_be_required_and_auth_int_is_refused() -> None:
    server = Authenticator(REALM, require_qop=True)
    assert server.verify(signed(server, server.nonces.issue(1.0)), "REGISTER", HA1, 1.0) is Verdict.WRONG
    nonce = server.nonces.issue(1.0)
    assert server.verify(signed(server, nonce, nc="1"), "REGISTER", HA1, 1.0) is Verdict.OK
    for bad in (
        {"qop": "auth-int", "nc": "1", "cnonce": "a"},
        {"qop": "auth", "nc": "x", "cnonce": "a"},
        {"qop": "auth", "nc": "1" * 9, "cnonce": "a"},
        {"algorithm": "SM3"},
        {"realm": "other"},
    ):
        assert server.verify(given(nonce=nonce, **bad), "REGISTER", HA1, 1.0) is Verdict.WRONG


def test_challenge_survives_its_own_text() -> None:
    challenge = Challenge(REALM, NONCE, "MD5", ("auth",), True, "op\\aque")
    assert Challenge.parse(str(challenge)).qop == ("auth",)
    assert Challenge.parse(str(challenge)).stale
    minimal = Challenge.parse(f'Digest realm="{REALM}",nonce="{NONCE}"')
    assert str(minimal) == f'Digest realm="{REALM}",nonce="{NONCE}"'
