"""The load generator core: what leaves on the wire, what viewers see of FLV, what ears count."""

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gbgw import _load, _ps
from gbgw.mux.ps import pack_header, pes_packet

TICKS = 9_000  # of one round: 0.1 s


def pack(time: int, payload: bytes) -> bytes:
    """A pack with one video PES; its PTS stands at 23."""
    return pack_header(time) + pes_packet(0xE0, payload, pts=time)


def content(pieces: int = 4, size: int = 3_000) -> _load.Content:
    rows = []
    for number in range(pieces):
        nal = b"\x00\x00\x00\x01" + (b"\x65" if number == 0 else b"\x41") + bytes([number + 1]) * size
        if number == 0:
            nal = b"\x00\x00\x00\x01\x67\x42\x00\x1e\xff" + b"\x00\x00\x00\x01\x68\xce\x06\xe2" + nal
        at = number * TICKS // pieces
        rows.append((at, 90_000 + at, pack(90_000 + at, nal), number == 0, 90_000 + at, 90_000 + at, 23, -1, 0))
    return _load.Content(rows, TICKS)


@contextmanager
def running(core: _load.Source | _load.Drain | _load.Ears) -> Iterator[None]:
    thread = threading.Thread(target=core.run)
    thread.start()
    try:
        yield
    finally:
        core.stop()
        thread.join(5)
        assert not thread.is_alive()


@contextmanager
def udp() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(sender, receiver), connected."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        a.connect(b.getsockname())
        b.connect(a.getsockname())
        b.settimeout(5)
        yield a, b


def until(ready: Callable[[], bool], fd: int, quiet: Callable[[], None]) -> None:
    """Wait on the core's own news."""
    for _ in range(200):
        if ready():
            return
        select.select([fd], [], [], 0.05)
        quiet()
    raise AssertionError("nothing was heard")


def test_packets_of_later_rounds_carry_later_times() -> None:
    made = content()
    first, later = made.packet(0, ssrc=7, number=9), made.packet(0, round=3, ssrc=7, number=10)
    assert first[:4] == b"\x80\x60\x00\x09"
    assert struct.unpack(">II", first[4:12]) == (90_000, 7)
    assert struct.unpack(">II", later[4:12]) == (90_000 + 3 * TICKS, 7)
    assert len(first) == len(later) == 1_412
    assert first[40:] == later[40:]
    assert first[16:22] != later[16:22]


def test_a_demuxer_reads_every_round() -> None:
    made, demuxer = content(), _ps.Demuxer()
    units = []
    for turn in range(3):
        for index in range(len(made)):
            units += demuxer.push(made.packet(index, round=turn)[12:], 0.0)
    units += demuxer.flush()
    assert len(units) == 12
    assert [unit.pts for unit in units] == [90_000 + number * TICKS // 4 for number in range(12)]
    assert [unit.is_keyframe for unit in units] == [True, False, False, False] * 3
    assert bytes(units[1]) == bytes(units[5]) == bytes(units[9])


@pytest.mark.parametrize("times", [(2**33 - 1 - 90_000 - TICKS,)])
def test_times_wrap_as_33_bits(times: tuple[int]) -> None:
    row = (0, 0, pack(0, b"\x00\x00\x01\x65" + bytes(100)), True, times[0], times[0], 23, -1, 0)
    demuxer = _ps.Demuxer()
    turns = 2 + 90_000 // TICKS
    last = _load.Content([row], TICKS).packet(0, round=turns)[12:]
    demuxer.push(last, 0.0)
    (unit,) = demuxer.flush()
    assert unit.pts == (times[0] + turns * TICKS) % 2**33 == 8_999


def test_bad_content_is_refused() -> None:
    good = (0, 0, bytes(2_000), True, -1, -1, 0, -1, 0)
    for rows, duration in (([], 1), ([good], 0), ([(5, *good[1:])], 5), ([(0, 0, b"", False, -1, -1, 0, -1, 0)], 9)):
        with pytest.raises(ValueError):
            _load.Content(rows, duration)
    with pytest.raises(ValueError, match="first packet"):
        _load.Content([(0, 0, bytes(2_000), True, -1, 5, 1_396, -1, 0)], 9)
    with pytest.raises(IndexError):
        content().packet(999)


@pytest.mark.parametrize("segments", [False, True], ids=["single", "gso"])
def test_a_lane_sends_in_order_and_counts(segments: bool) -> None:
    made = content()
    source = _load.Source(made, line_bits=0)
    with udp() as (sender, receiver), running(source):
        lane = source.open(sender.fileno(), 0xABCD, number=65_530, segments=segments)
        got = [receiver.recv(2_048) for _ in range(3 * len(made))]
        source.close(lane)
        figures = source.figures(lane)
    expected = [made.packet(index, round=turn) for turn in range(3) for index in range(len(made))]
    assert [packet[12:] for packet in got] == [packet[12:] for packet in expected]
    assert [packet[4:8] for packet in got] == [packet[4:8] for packet in expected]
    numbers = [int.from_bytes(packet[2:4], "big") for packet in got]
    assert numbers == [(65_530 + n) % 65_536 for n in range(len(got))]
    assert {packet[8:12] for packet in got} == {b"\x00\x00\xab\xcd"}
    assert figures["packets"] >= len(got)
    assert figures["unsent"] == figures["refused"] == figures["error"] == 0
    assert figures["first_at"] <= figures["key_at"]


def test_a_lane_begins_anywhere_and_keeps_the_pace_of_its_port() -> None:
    made = content(size=30_000)
    source = _load.Source(made, line_bits=50e6)
    with udp() as (sender, receiver), running(source):
        asked = _load.now()
        lane = source.open(sender.fileno(), 1, position=0.5)
        first = receiver.recv(2_048)
        source_key = None
        while source_key is None:
            receiver.recv(2_048)
            source_key = source.figures(lane)["key_at"]
        source.close(lane)
    assert int.from_bytes(first[4:8], "big") == 90_000 + TICKS // 2
    # half a round before the key frame, and its 22 packets at 0.24 ms each
    assert source_key - asked >= 0.05 + 0.0045


def test_tcp_is_framed_and_never_waits() -> None:
    made = content()
    source = _load.Source(made, line_bits=0)
    left, right = socket.socketpair()
    with left, right, running(source):
        left.setblocking(False)
        lane = source.open(left.fileno(), 5, tcp=True)
        data = b""
        right.settimeout(5)
        while len(data) < 40_000:
            data += right.recv(65_536)
        source.close(lane)
    expected = b"".join(
        len(packet).to_bytes(2, "big") + packet
        for number, packet in enumerate(
            made.packet(index, round=turn, number=turn * len(made) + index, ssrc=5)
            for turn in range(5)
            for index in range(len(made))
        )
    )
    assert data == expected[: len(data)]


def test_a_tcp_lane_whose_peer_reads_nothing_drops() -> None:
    source = _load.Source(content(pieces=9, size=60_000), line_bits=0)
    left, right = socket.socketpair()
    with left, right, running(source):
        left.setblocking(False)
        lane = source.open(left.fileno(), 5, tcp=True)
        select.select([right], [], [], 5)
        while not (figures := source.figures(lane))["unsent"]:
            select.select([], [], [], 0.01)
        source.close(lane)
    assert figures["packets"] > 0


def test_a_closed_port_is_counted() -> None:
    source = _load.Source(content(), line_bits=0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, running(source):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            sender.connect(gone.getsockname())
        lane = source.open(sender.fileno(), 1)
        while not source.figures(lane)["refused"]:
            select.select([], [], [], 0.01)
        source.close(lane)


def test_lanes_are_bounded() -> None:
    source = _load.Source(content(), capacity=1)
    with udp() as (sender, _):
        lane = source.open(sender.fileno(), 1)
        with pytest.raises(OverflowError):
            source.open(sender.fileno(), 2)
        source.close(lane)
        assert source.open(sender.fileno(), 2) == lane
    with pytest.raises(IndexError):
        source.figures(5)


def tag(kind: int, body: bytes, at: int = 0) -> bytes:
    head = bytes([kind]) + len(body).to_bytes(3, "big") + (at & 0xFFFFFF).to_bytes(3, "big") + bytes(4)
    return head + body + (11 + len(body)).to_bytes(4, "big")


FLV = b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00" + b"".join(
    (
        tag(18, b"\x02\x00\x0aonMetaData"),
        tag(9, b"\x17\x00\x00\x00\x00" + bytes(30)),  # AVC sequence header
        tag(8, b"\x72" + bytes(320)),
        tag(9, b"\x17\x01\x00\x00\x00" + bytes(5_000)),
        tag(9, b"\x27\x01\x00\x00\x00" + bytes(700)),
        tag(8, b""),
        tag(9, b"\x90hvc1" + bytes(40)),  # enhanced sequence start
        tag(9, b"\x91hvc1" + bytes(900)),
        tag(9, b"\xa3hvc1" + bytes(300)),
    )
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\n"


def chunked(data: bytes, size: int) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%X\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


@pytest.mark.parametrize("cut", [1, 7, 100, 10_000])
@pytest.mark.parametrize("chunk", [0, 1, 300])
def test_flv_is_followed_in_any_cut(cut: int, chunk: int) -> None:
    answer = HEAD + (b"Transfer-Encoding: Chunked\r\n\r\n" + chunked(FLV, chunk) if chunk else b"\r\n" + FLV)
    drain = _load.Drain(tick_seconds=0.0)
    left, right = socket.socketpair()
    with left, right, running(drain):
        number = drain.open(right.fileno(), whole=True)
        for at in range(0, len(answer), cut):
            left.sendall(answer[at : at + cut])
        left.shutdown(socket.SHUT_WR)
        until(lambda: drain.figures(number)["ended_at"] is not None, drain.news_fd, drain.heard)
        figures = drain.figures(number)
        drain.close(number)
    assert (figures["status"], figures["bytes"]) == (200, len(FLV))
    assert (figures["tags"], figures["pictures"], figures["keys"]) == (9, 4, 2)
    assert figures["asked_at"] <= figures["head_at"] <= figures["key_at"] <= figures["ended_at"]


def test_what_follows_the_first_key_frame_is_counted_unread() -> None:
    drain = _load.Drain(tick_seconds=0.0)
    left, right = socket.socketpair()
    server = socket.create_server(("127.0.0.1", 0))
    with left, right, server, socket.create_connection(server.getsockname()) as viewer, running(drain):
        peer, _ = server.accept()
        with peer:
            number = drain.open(viewer.fileno())
            peer.sendall(HEAD + b"\r\n" + FLV)
            until(lambda: drain.figures(number)["key_at"] is not None, drain.news_fd, drain.heard)
            peer.sendall(bytes(100_000))
            peer.shutdown(socket.SHUT_WR)
            until(lambda: drain.figures(number)["ended_at"] is not None, drain.news_fd, drain.heard)
            figures = drain.figures(number)
            drain.close(number)
    assert figures["keys"] == 1
    assert figures["bytes"] == len(FLV) + 100_000


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\n\r\nno", b"x" * 10_000, b"nonsense\r\n\r\n"])
def test_what_is_no_picture_ends(answer: bytes) -> None:
    drain = _load.Drain(capacity=1, tick_seconds=0.0)
    left, right = socket.socketpair()
    with left, right, running(drain):
        number = drain.open(right.fileno())
        with pytest.raises(OverflowError):
            drain.open(left.fileno())
        left.sendall(answer)
        until(lambda: drain.figures(number)["ended_at"] is not None, drain.news_fd, drain.heard)
        figures = drain.figures(number)
        drain.close(number)
    assert figures["status"] == (404 if b"404" in answer else 0)
    assert figures["key_at"] is None


def rtp(number: int, ssrc: int = 1, *, marker: bool = False, kind: int = 96) -> bytes:
    return struct.pack(">BBHII", 0x80, kind | (0x80 if marker else 0), number & 0xFFFF, 0, ssrc) + bytes(50)


def test_ears_count_by_number_over_wraps_losses_and_disorder() -> None:
    ears = _load.Ears(tick_seconds=0.0)
    numbers = [65_533, 65_535, 65_534, 1, 2, 5]  # 0, 3 and 4 are missing
    with udp() as (sender, receiver), running(ears):
        receiver.setblocking(False)
        ear = ears.open(receiver.fileno())
        for number in numbers:
            sender.send(rtp(number, marker=number == 2))
        sender.send(rtp(7, 2, kind=8))
        sender.send(b"\x00\x01\x00\x00STUN")
        sender.send(b"\x80\xc8\x00\x01" + bytes(24))
        until(lambda: ears.figures(ear)["packets"] == 7 and len(ears.waiting()) == 1, ears.news_fd, ears.heard)
        taken: list[bytes] = []
        while len(taken) < 2:
            taken += ears.take(ear)
        figures = ears.figures(ear)
        ears.close(ear)
    assert [flow.pop("longest_gap") for flow in figures["flows"]] == [0.0, 0.0]  # one marker, none
    assert figures["flows"] == [
        {"ssrc": 1, "packets": 6, "lost": 3, "markers": 1, "highest": 2 * 65_536 + 5},
        {"ssrc": 2, "packets": 1, "lost": 0, "markers": 0, "highest": 65_536 + 7},
    ]
    assert figures["bytes"] == 7 * 62
    assert [data[:1] for data in taken] == [b"\x00", b"\x80"]
    assert figures["first_at"] <= figures["picture_at"]


def test_ears_tell_the_longest_time_between_pictures() -> None:
    ears = _load.Ears(tick_seconds=0.0)
    with udp() as (sender, receiver), running(ears):
        receiver.setblocking(False)
        ear = ears.open(receiver.fileno())
        begun = time.monotonic()
        for number in range(3):
            sender.send(rtp(number, marker=True))
            until(lambda number=number: ears.figures(ear)["packets"] == number + 1, ears.news_fd, ears.heard)
        (flow,) = ears.figures(ear)["flows"]
        assert 0 < flow["longest_gap"] <= time.monotonic() - begun
        ears.forget_gaps(ear)
        assert ears.figures(ear)["flows"][0]["longest_gap"] == 0.0
        ears.close(ear)


def test_ears_keep_a_bounded_number_of_other_datagrams() -> None:
    ears = _load.Ears(tick_seconds=0.0)
    with udp() as (sender, receiver), running(ears):
        receiver.setblocking(False)
        ear = ears.open(receiver.fileno())
        for _ in range(40):
            sender.send(b"\x16\xfe\xfd")
        sender.send(rtp(1))
        until(lambda: ears.figures(ear)["packets"] == 1, ears.news_fd, ears.heard)
        assert len(ears.take(ear)) == 16
        assert ears.figures(ear)["others"] == 24
        assert ears.waiting() == []
        ears.close(ear)
