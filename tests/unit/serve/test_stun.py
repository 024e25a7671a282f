"""STUN: the samples of RFC 5769, aioice as the other end, and damage."""

import aioice.stun as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.serve import stun
from gbgw.serve.stun import Malformed

KEY = b"VOkJxbRl1RmTxUk/WvJxBt"
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
REQUEST = bytes.fromhex(  # RFC 5769 section 2.1
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b1"
    "51263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE = bytes.fromhex(  # section 2.2
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643000800142b91f599"
    "fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)


def request(**attributes: object) -> bytes:
    """What aioice would ask."""
    message = oracle.Message(oracle.Method.BINDING, oracle.Class.REQUEST, transaction_id=TRANSACTION)
    message.attributes = {name.replace("_", "-"): value for name, value in attributes.items()}
    message.add_message_integrity(KEY)
    return bytes(message)


def test_the_samples_of_the_standard() -> None:
    asked = stun.parse(REQUEST)
    assert (asked.kind, asked.transaction, asked.usernames) == ("request", TRANSACTION, ("evtj", "h6vY"))
    assert asked.is_from(KEY)
    assert not asked.is_from(KEY[:-1])
    assert stun.ICE_CONTROLLED in asked.attributes
    assert not asked.nominates
    assert asked.unknown == ()
    answered = stun.parse(RESPONSE)
    assert answered.kind == "success"
    assert answered.is_from(KEY)
    made = stun.parse(stun.success(asked, "192.0.2.1", 32_853, KEY))
    assert made.attributes[stun.XOR_MAPPED_ADDRESS] == answered.attributes[stun.XOR_MAPPED_ADDRESS]


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1234:5678:11:2233:4455:6677", "2001:db8:1234:5678:11:2233:4455:6677"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_a_source_is_told_how_it_is_seen(host: str, seen: str) -> None:
    answer = oracle.parse_message(stun.success(stun.parse(REQUEST), host, 32_853, KEY))
    assert answer.message_class is oracle.Class.RESPONSE
    assert answer.transaction_id == TRANSACTION
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == (seen, 32_853)
    assert answer.check_message_integrity(KEY)


def test_what_aioice_asks_is_read() -> None:
    asked = stun.parse(request(USERNAME="a:b", PRIORITY=1, ICE_CONTROLLING=5, USE_CANDIDATE=None))
    assert asked.usernames == ("a", "b")
    assert asked.nominates
    assert asked.is_from(KEY)


@pytest.mark.parametrize(("error", "code"), [(stun.ROLE_CONFLICT, 487), (stun.UNKNOWN_ATTRIBUTE, 420)])
def test_errors_are_read_by_both(error: tuple[int, str], code: int) -> None:
    data = stun.failure(stun.parse(REQUEST), error, KEY)
    assert stun.parse(data).error == code
    if code == 487:
        told = oracle.parse_message(data)
        assert told.error_code == code
        assert told.check_message_integrity(KEY)


def test_what_must_be_understood_is_named() -> None:
    data = stun.build("request", TRANSACTION, [(stun.USERNAME, b"a:b"), (0x0031, b"xyz"), (0xC057, b"")], KEY)
    asked = stun.parse(data)
    assert asked.unknown == (0x0031,)
    told = stun.parse(stun.failure(asked, stun.UNKNOWN_ATTRIBUTE, KEY))
    assert told.attributes[stun.UNKNOWN_ATTRIBUTES] == b"\0\x31"
    many = stun.build("request", TRANSACTION, [(number, b"") for number in range(0x100, 0x200)], KEY)
    assert len(stun.failure(stun.parse(many), stun.UNKNOWN_ATTRIBUTE, KEY)) < len(many)


def test_what_is_not_covered_is_not_believed() -> None:
    """USE-CANDIDATE put behind MESSAGE-INTEGRITY, with a fingerprint made anew."""
    whole = stun.build("request", TRANSACTION, [(stun.USERNAME, b"a:b")], KEY)
    body = whole[20:-8] + b"\0\x25\0\0"
    head = whole[:2] + (len(body) + 8).to_bytes(2, "big") + whole[4:20]
    sealed = head + body + b"\x80\x28\0\4" + stun._fingerprint(head + body).to_bytes(4, "big")
    asked = stun.parse(sealed)
    assert asked.is_from(KEY)
    assert not asked.nominates


def test_nothing_without_integrity_is_from_anybody() -> None:
    head = b"\0\1\0\x08\x21\x12\xa4\x42" + TRANSACTION
    bare = stun.parse(head + b"\x80\x28\0\4" + stun._fingerprint(head).to_bytes(4, "big"))
    assert not bare.is_from(b"")
    assert bare.usernames == ("", "")
    assert bare.error == 0


@given(st.integers(0, len(REQUEST) - 1), st.integers(1, 255))
def test_one_wrong_byte_is_noticed(at: int, mask: int) -> None:
    damaged = bytearray(REQUEST)
    damaged[at] ^= mask
    with pytest.raises(Malformed):
        stun.parse(bytes(damaged))


@given(st.integers(0, len(REQUEST) - 1))
def test_every_cut_is_noticed(length: int) -> None:
    with pytest.raises(Malformed):
        stun.parse(REQUEST[:length])


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_malformed(body: bytes) -> None:
    body += bytes(-len(body) % 4)
    head = b"\0\1" + (len(body) + 8).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + TRANSACTION + body
    try:
        stun.parse(head + b"\x80\x28\0\4" + stun._fingerprint(head).to_bytes(4, "big")).is_from(KEY)
    except Malformed:
        return
