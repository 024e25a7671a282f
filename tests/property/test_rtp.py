"""gbgw/_rtp against its model, under loss, duplication, reordering, rival sources, garbage and any cut."""

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbgw import _rtp
from tests.model import rtp_model

FIELDS = (
    *("payload_type", "marker", "sequence_number", "extended_sequence_number"),
    *("timestamp", "ssrc", "payload", "lost_before"),
)


def packet(number: int, ssrc: int = 5, timestamp: int = 0, payload: bytes = b"x", flags: int = 0x80) -> bytes:
    return struct.pack("!BBHII", flags, 96, number % 65536, timestamp % 2**32, ssrc) + payload


def plain(packets: Sequence[Any]) -> list[tuple[object, ...]]:
    return [tuple(getattr(one, field) for field in FIELDS) for one in packets]


def rtcp_plain(found: Sequence[Any]) -> list[tuple[object, ...]]:
    fields = ("ssrc", "ntp", "timestamp", "packet_count", "octet_count")
    return [tuple(getattr(one, field, None) for field in fields) for one in found]


def frame(one: bytes, dollar: bool = False) -> bytes:
    return b"$\0" * dollar + len(one).to_bytes(2, "big") + one


def cuts_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


@st.composite
def events(draw: st.DrawFn) -> list[tuple[bytes | None, float]]:
    """What a hostile network delivers: (datagram, or None for poll, at a time), around one or two running sequences."""
    number, now = draw(st.integers(0, 65535)), 1.0
    out: list[tuple[bytes | None, float]] = []
    for _ in range(draw(st.integers(0, 60))):
        kind = draw(st.integers(0, 19))
        now += draw(st.sampled_from([0.0, 0.0, 0.001, 0.05, 0.19, 0.2, 3.0]))
        timestamp = draw(st.sampled_from([0, 3600, int(now * 90000), 2**32 - 1]))
        if kind < 9:
            number += 1
            out.append((packet(number, timestamp=timestamp), now))
        elif kind < 12:
            number += draw(st.integers(2, 40))
            out.append((packet(number, timestamp=timestamp, payload=bytes(draw(st.integers(0, 90)))), now))
        elif kind < 15:
            out.append((packet(number - draw(st.integers(0, 60)), timestamp=timestamp), now))
        elif kind == 15:
            number += draw(st.sampled_from([999, 1000, 1001, 1002, 30000, 32767, 32768, -999, -1000, -1001, -1002]))
            out.append((packet(number, timestamp=timestamp), now))
        elif kind < 18:
            base, ssrc = draw(st.integers(0, 65535)), draw(st.sampled_from([0, 6, 2**32 - 1]))
            for n in range(draw(st.integers(1, 10))):
                out.append((packet(base + n, ssrc=ssrc, timestamp=timestamp + n), now))
        elif kind == 18:
            out.append((draw(st.binary(max_size=40)), now))
        else:
            out.append((None, now))
    return out


@given(
    events(),
    st.sampled_from([(None, "adopt"), (5, "adopt"), (6, "adopt"), (None, "latch"), (5, "strict"), (6, "strict")]),
    st.sampled_from([1, 2, 7, 32, 512]),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.sampled_from([0, 100, 4 << 20]),
)
@settings(max_examples=300, deadline=None)
def test_core_equals_model(
    happenings: list[tuple[bytes | None, float]], source: tuple[Any, Any], window: int, seconds: float, ceiling: int
) -> None:
    limits = {"max_packets": window, "max_seconds": seconds, "max_bytes": ceiling}
    core = _rtp.JitterBuffer(*source, **limits)  # type: ignore[arg-type]
    model = rtp_model.JitterBuffer(*source, **limits)  # type: ignore[arg-type]
    for datagram, now in happenings:
        if datagram is None:
            assert plain(core.poll(now)) == plain(model.poll(now))
            assert core.receiver_report(9, now) == model.receiver_report(9, now)
        else:
            assert plain(core.push(datagram, now)) == plain(model.push(datagram, now))
        assert core.counts == model.counts
        assert (core.depth, core.buffered, core.deadline, core.ssrc) == (
            model.depth,
            model.buffered,
            model.deadline,
            model.ssrc,
        )
        assert core.depth < window or core.depth == 0
        assert core.buffered <= ceiling
        assert core.jitter_seconds == pytest.approx(model.jitter_seconds)
    assert plain(core.flush()) == plain(model.flush())
    assert core.counts == model.counts


@given(st.data(), st.integers(0, 65535), st.integers(2, 200), st.integers(1, 16))
@settings(deadline=None)
def test_reordering_and_duplication_inside_the_window_leave_no_trace(
    data: st.DataObject, start: int, count: int, distance: int
) -> None:
    """Wherever the sequence wraps. The first packet stays first: it alone says where the stream begins."""
    keys = data.draw(st.lists(st.integers(0, distance), min_size=count, max_size=count))
    twice = data.draw(st.sets(st.integers(0, count - 1)))
    order = sorted(range(1, count), key=lambda n: n + keys[n])
    buffer = _rtp.JitterBuffer(max_packets=64)
    out: list[_rtp.RtpPacket] = []
    for n in [0, *order]:
        for _ in range(1 + (n in twice)):
            out += buffer.push(packet(start + n, payload=b"%d" % n), 0.0)
    assert [(one.payload, one.lost_before) for one in out] == [(b"%d" % n, 0) for n in range(count)]
    assert [one.extended_sequence_number for one in out] == list(range(start, start + count))
    assert buffer.counts["rtp.duplicate"] == len(twice)
    assert buffer.counts["rtp.lost"] == buffer.counts["rtp.late"] == 0
    assert buffer.deadline is None


@given(st.data(), st.integers(0, 65535), st.integers(2, 100))
@settings(deadline=None)
def test_every_hole_is_marked_once(data: st.DataObject, start: int, count: int) -> None:
    gone = data.draw(st.sets(st.integers(1, count - 2)) if count > 2 else st.just(set()))
    buffer = _rtp.JitterBuffer()
    out: list[_rtp.RtpPacket] = []
    for n in range(count):
        if n not in gone:
            out += buffer.push(packet(start + n), 0.0)
    out += buffer.poll(1.0)
    assert len(out) == count - len(gone)
    position = start - 1
    for one in out:
        assert one.extended_sequence_number == position + 1 + one.lost_before
        position = one.extended_sequence_number
    assert buffer.counts["rtp.lost"] == len(gone)


@given(events(), st.lists(st.integers(0, 100)))
@settings(deadline=None)
def test_when_poll_is_called_does_not_matter(happenings: list[tuple[bytes | None, float]], extra: list[int]) -> None:
    def run(polls: set[int]) -> list[tuple[object, ...]]:
        buffer = _rtp.JitterBuffer()
        out: list[_rtp.RtpPacket] = []
        for n, (datagram, now) in enumerate(happenings):
            if n in polls:
                out += buffer.poll(now)
            if datagram is not None:
                out += buffer.push(datagram, now)
        return plain([*out, *buffer.flush()])

    assert run(set()) == run(set(extra))


@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda flags, body: packet(1, payload=body, flags=flags), st.integers(0, 255), st.binary(max_size=90)
        ),
    )
)
def test_parse_equals_model(datagram: bytes) -> None:
    core, model = _rtp.parse(datagram), rtp_model.parse(datagram)
    assert (core is None) == (model is None)
    if core is not None and model is not None:
        assert plain([core]) == plain([model])
    assert _rtp.is_rtcp(datagram) == rtp_model.is_rtcp(datagram)


@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda count, kind, body: (
                    struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body[: len(body) // 4 * 4]
                ),
                st.integers(0, 31),
                st.integers(199, 205),
                st.binary(max_size=60),
            ),
            st.binary(max_size=6),
        ),
        max_size=4,
    )
)
def test_rtcp_equals_model(parts: list[bytes]) -> None:
    datagram = b"".join(parts)
    assert rtcp_plain(_rtp.parse_rtcp(datagram)) == rtcp_plain(rtp_model.parse_rtcp(datagram))


@st.composite
def byte_streams(draw: st.DrawFn) -> bytes:
    """Frames of RFC 4571 and "$", RTCP, empty frames, garbage that looks like all of them."""
    parts = []
    number = draw(st.integers(0, 65535))
    for _ in range(draw(st.integers(0, 20))):
        kind = draw(st.integers(0, 9))
        if kind < 5:
            number += 1
            payloads = [b"", b"\0\0\1\xba", b"\0\0\1\xbbx", b"\x24\0\0\x10" + bytes(12), bytes(0x2400)]
            one = packet(number, draw(st.sampled_from([5, 5, 5, 5, 6])), payload=draw(st.sampled_from(payloads)))
            parts.append(frame(one, draw(st.booleans())))
        elif kind == 5:
            parts.append(frame(struct.pack("!BBHI", 0x80, 200 + number % 5, 1, draw(st.sampled_from([5, 7])))))
        elif kind == 6:
            parts.append(bytes(draw(st.integers(1, 4))))
        elif kind == 7:
            parts.append(draw(st.binary(max_size=30)))
        elif kind == 8:
            parts.append(frame(packet(number))[: draw(st.integers(0, 14))])
        else:
            parts.append(bytes([1, 0, 0x80]) + bytes(253))
    return b"".join(parts)


@given(byte_streams(), st.lists(st.integers(0, 1 << 20), max_size=12), st.sampled_from([None, 5, 9]))
@settings(max_examples=200, deadline=None)
def test_framer_equals_model_and_no_cut_matters(data: bytes, cuts: list[int], ssrc: int | None) -> None:
    model = rtp_model.Framer(ssrc)
    expected = list(model.push(data))
    for pieces in ([data], cuts_of(data, cuts)):
        core = _rtp.Framer(ssrc)
        assert [one for piece in pieces for one in core.push(piece)] == expected
        assert core.counts == model.counts
        assert core.buffered == model.buffered


@given(st.lists(st.integers(0, 400), min_size=3, max_size=12), st.binary(max_size=200), st.integers(0, 65535))
@settings(deadline=None)
def test_framer_finds_every_frame_again_after_garbage(sizes: list[int], garbage: bytes, start: int) -> None:
    """Nothing real is lost, whatever came before it, when the source is known."""
    ssrc = 0x0BEBC201
    packets = [packet(start + n, ssrc, payload=bytes(size)) for n, size in enumerate(sizes)]
    core = _rtp.Framer(ssrc)
    out = [*core.push(garbage), *core.push(b"".join(map(frame, packets)))]
    for _ in range(3):  # a garbage header may claim up to 64 KiB before it is found out
        out += core.push(b"".join(frame(packet(n, ssrc, payload=bytes(1400))) for n in range(50)))
    mine = [one for one in out if one in packets]
    assert mine == packets


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from([None, 0, 5]))
def test_random_bytes_never_raise(pieces: list[bytes], ssrc: int | None) -> None:
    buffer, framer = _rtp.JitterBuffer(ssrc), _rtp.Framer(ssrc)
    for n, piece in enumerate(pieces):
        for datagram in (piece, *framer.push(piece)):
            buffer.push(datagram, n * 0.1)
            _rtp.parse_rtcp(datagram)
    buffer.flush()
    assert framer.buffered <= 131072
