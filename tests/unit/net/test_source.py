"""gbgw/net/source: whose datagrams belong to the stream."""

import struct
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from gbgw.base import limits
from gbgw.net.source import Address, SourceLock

CAMERA: Address = ("10.0.0.7", 15060)
MOVED: Address = ("10.0.0.7", 40001)
THIRD: Address = ("10.0.0.7", 40002)
KNOWN: Address = ("10.0.0.8", 9000)
STRANGER: Address = ("10.9.9.9", 9000)
SILENCE = limits.SOURCE_SILENCE_SECONDS


def packet(number: int, *, ssrc: int = 5, size: int = 4) -> bytes:
    return struct.pack("!BBHII", 0x80, 96, number % 65536, 0, ssrc) + bytes(size)


@dataclass
class Lock:
    refused: list[Address] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = SourceLock([KNOWN[0], ""], lambda address, now: self.refused.append(address), ssrc=5)

    def push(self, number: int, address: Address, now: float, *, ssrc: int = 5, size: int = 4) -> list[int]:
        """Send a packet; return the sequence numbers that were let through."""
        taken = self.lock.push(packet(number, ssrc=ssrc, size=size), address, now)
        return [int.from_bytes(one[2:4], "big") for one in taken]


def test_the_first_source_is_taken_where_nothing_is_known() -> None:
    lock = SourceLock([], lambda address, now: None)
    assert lock.push(packet(1), STRANGER, 0.0) == (packet(1),)
    assert lock.address == STRANGER


def test_a_camera_is_known_by_its_host_or_its_ssrc() -> None:
    lock = Lock()
    assert lock.push(1, KNOWN, 0.0, ssrc=99) == [1]
    lock = Lock()
    assert lock.push(1, CAMERA, 0.0) == [1]
    assert lock.refused == []


def test_an_unknown_first_source_waits_for_a_better_one_and_loses_nothing() -> None:
    lock = Lock()
    let_through = [number for i in range(20) for number in lock.push(i, STRANGER, i / 20, ssrc=99)]
    assert let_through == list(range(20))
    assert lock.lock.address == STRANGER
    assert lock.push(7, STRANGER, 1.1, ssrc=99) == [7]


def test_the_camera_comes_before_an_unknown_source() -> None:
    lock = Lock()
    assert lock.push(1, STRANGER, 0.0, ssrc=99) == []
    assert lock.push(1, MOVED, 0.1, ssrc=98) == []  # one unknown at a time
    assert lock.push(1, CAMERA, 0.2) == [1]
    assert lock.refused == [MOVED, STRANGER]
    assert lock.push(2, STRANGER, 0.6, ssrc=99) == []


def test_an_unknown_source_that_falls_silent_makes_room() -> None:
    lock = Lock()
    lock.push(1, STRANGER, 0.0, ssrc=99)
    lock.push(1, MOVED, SILENCE + 0.01, ssrc=98)
    assert lock.refused == [STRANGER]
    assert lock.push(2, MOVED, SILENCE + 0.02 + limits.SOURCE_UNKNOWN_SECONDS, ssrc=98) == [1, 2]


def test_one_packet_in_sequence_does_not_take_a_stream_over() -> None:
    lock = Lock()
    lock.push(1, CAMERA, 0.0)
    assert lock.push(2, MOVED, 0.01) == []
    assert lock.push(3, MOVED, 0.02) == []
    assert lock.push(4, MOVED, 0.03) == []
    assert lock.push(2, CAMERA, 0.04) == [2]
    assert lock.refused == [MOVED] * 3  # what was held back is counted when it is dropped
    assert lock.lock.address == CAMERA


def test_a_new_port_follows_a_silent_one_and_loses_nothing() -> None:
    lock = Lock()
    lock.push(65_535, CAMERA, 0.0)
    let_through = [number for i in range(20) for number in lock.push(65_536 + i, MOVED, 0.02 * (i + 1))]
    assert let_through == list(range(20))
    assert lock.lock.address == MOVED
    assert lock.refused == []


def test_silence_alone_is_no_proof() -> None:
    lock = Lock()
    lock.push(1, CAMERA, 0.0)
    assert lock.push(2, MOVED, SILENCE + 0.01) == []
    assert lock.push(3, MOVED, SILENCE + 0.02) == []
    assert lock.push(4, MOVED, SILENCE + 0.03) == [2, 3, 4]


def test_another_ssrc_or_a_jump_is_refused() -> None:
    lock = Lock()
    lock.push(1, CAMERA, 0.0)
    assert lock.push(2, MOVED, 1.0, ssrc=6) == []
    assert lock.push(2_000, MOVED, 1.0) == []
    assert lock.refused == [MOVED, MOVED]


def test_there_is_one_rival_at_a_time_and_a_silent_one_is_forgotten() -> None:
    lock = Lock()
    lock.push(1, CAMERA, 0.0)
    lock.push(2, MOVED, 0.01)
    assert lock.push(2, THIRD, 0.02) == []
    assert lock.refused == [THIRD]
    for number in (2, 3):
        assert lock.push(number, THIRD, 0.5) == []
    assert lock.refused == [THIRD, MOVED]
    assert lock.push(4, THIRD, 0.51) == [2, 3, 4]


def test_after_long_silence_any_stream_of_a_known_host_is_taken_at_once() -> None:
    lock = Lock()
    lock.push(1, CAMERA, 0.0)
    assert lock.push(9_000, STRANGER, 100.0) == []
    assert lock.push(9_000, KNOWN, limits.MEDIA_STALLED_SECONDS, ssrc=9) == [9_000]


def test_an_expected_host_displaces_a_stranger_at_once() -> None:
    lock = Lock()
    lock.push(1, STRANGER, 0.0)
    assert lock.push(700, KNOWN, 0.001, ssrc=9) == [700]
    assert lock.push(2, STRANGER, 0.002) == []


def test_what_is_held_back_is_bounded() -> None:
    lock = Lock()
    lock.push(0, CAMERA, 0.0)
    for number in range(1, limits.SOURCE_HELD_PACKETS + 101):
        assert lock.push(number, MOVED, 0.1) == []
    assert lock.refused == [MOVED] * 100
    lock = Lock()
    lock.push(0, CAMERA, 0.0)
    for number in range(1, 40):
        lock.push(number, MOVED, 0.1, size=60_000)
    assert len(lock.refused) >= 39 - limits.SOURCE_HELD_BYTES // 60_000


@given(st.lists(st.tuples(st.sampled_from([CAMERA, MOVED, THIRD, STRANGER]), st.integers(-3, 3), st.booleans())))
def test_nobody_stops_a_source_that_keeps_sending(events: list[tuple[Address, int, bool]]) -> None:
    lock = Lock()
    lock.push(0, CAMERA, 0.0)
    now, sent = 0.0, 0
    for address, offset, same_ssrc in events:
        if address == CAMERA:
            sent += 1
            now += SILENCE * 0.9  # the slowest source that still counts as sending
            assert lock.push(sent, CAMERA, now) == [sent % 65_536]
        else:
            assert lock.push(sent + 1 + offset, address, now, ssrc=5 if same_ssrc else 6) == []
    assert lock.lock.address == CAMERA
