"""gbgw/_fanout: what the sockets take, and what is told of those that take less, equal the slow twin's."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from gbgw import _fanout
from tests.model import fanout_model

SendAll = Callable[[list[int], bytes], list[tuple[int, int]]]


@pytest.fixture(params=[_fanout.send_all, fanout_model.send_all], ids=["core", "model"])
def send_all(request: pytest.FixtureRequest) -> SendAll:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def pairs() -> Iterator[Callable[[int], list[tuple[socket.socket, socket.socket]]]]:
    with ExitStack() as stack:

        def make(count: int) -> list[tuple[socket.socket, socket.socket]]:
            made = [socket.socketpair() for _ in range(count)]
            for pair in made:
                for one in pair:
                    stack.enter_context(one)
            return made

        yield make


def test_every_socket_gets_the_bytes(send_all: SendAll, pairs: Callable[..., list[tuple[socket.socket, ...]]]) -> None:
    made = pairs(300)  # more than one turn
    assert send_all([near.fileno() for near, _ in made], b"chunk") == []
    assert [far.recv(99) for _, far in made] == [b"chunk"] * 300


def test_who_takes_less_is_told(send_all: SendAll, pairs: Callable[..., list[tuple[socket.socket, ...]]]) -> None:
    made = pairs(140)
    fds = [near.fileno() for near, _ in made]
    while send_all([fds[130]], bytes(4096)) == []:
        continue
    made[3][1].close()  # its reader has gone
    bad = [*fds[:7], -1, *fds[8:]]
    assert send_all(bad, b"chunk") == [(3, 0), (7, 0), (130, 0)]
    assert made[4][1].recv(99) == made[139][1].recv(99) == b"chunk"


def test_a_part_is_told(send_all: SendAll, pairs: Callable[..., list[tuple[socket.socket, ...]]]) -> None:
    ((near, far),) = pairs(1)
    data = bytes(range(256)) * 40_000
    ((at, sent),) = send_all([near.fileno()], data)
    assert at == 0
    assert 0 < sent < len(data)
    assert far.recv(sent, socket.MSG_WAITALL) == data[:sent]


def test_nothing_to_send_is_no_matter(send_all: SendAll) -> None:
    assert send_all([], b"chunk") == []


def test_other_bytes_are_refused() -> None:
    with pytest.raises(TypeError):
        _fanout.send_all([1], bytearray(b"x"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _fanout.send_all(["x"], b"x")  # type: ignore[list-item]
    with pytest.raises(OverflowError):
        _fanout.send_all([1 << 40], b"x")
