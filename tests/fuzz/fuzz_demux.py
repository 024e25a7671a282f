"""Fuzz target for gbgw/serve/lite: where a datagram on the port of all viewers goes, by its source and its first byte.

Input: one doing after the other, of one byte of what, one of length, and bytes. Bits 0, 1 of what: from which of four
sources, of which the first two proved to be the first viewer's, the third the second's. Bit 2: this viewer's keys are
there. Bits 3, 4: 0 a datagram; 1 the handshake reads one; 2 the socket is full, 3 it is not. Bit 7: a viewer leaves.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

from gbgw.base import limits
from gbgw.base.tally import Tally
from gbgw.serve.ice import Source
from gbgw.serve.lite import LiteConnection, SharedPort
from gbgw.serve.turns import Turns

SOURCES: tuple[Source, ...] = (("192.0.2.1", 4_000), ("192.0.2.1", 4_001), ("198.51.100.9", 4_000), ("2001:db8::1", 9))
OWNERS = (0, 0, 1, None)
NOW = 100.0


class _Socket:
    """Takes all."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Source]] = []

    def sendto(self, data: bytes, source: Source) -> None:
        self.sent.append((data, source))


async def _port() -> SharedPort:
    return SharedPort(Tally(), Turns())


def shared(socket: _Socket) -> SharedPort:
    """A port without a network or a clock."""
    port = LOOP.run_until_complete(_port())
    loop: Any = SimpleNamespace(time=lambda: NOW, call_later=lambda *_: None)
    transport: Any = socket
    port._loop, port._transport = loop, transport
    return port


LOOP = asyncio.new_event_loop()


class Viewer:
    """What should have reached one viewer, beside what did."""

    def __init__(self, port: SharedPort, number: int) -> None:
        self.heard: list[bytes] = []
        self.writable: list[bool] = []
        self.connection = LiteConnection(
            port, ("192.0.2.10",), f"them{number}", "24 letters of a password", self.writable.append
        )
        self.sealed: list[bytes] = []
        self.handshake: list[bytes] = []
        self.flood = 0

    def expect(self, data: bytes) -> None:
        if self.connection.on_srtcp is not None and 128 <= data[0] < 192:
            self.sealed.append(data)
        elif len(self.handshake) < limits.WEBRTC_DATAGRAMS:
            self.handshake.append(data)
        else:
            self.flood += 1

    def read(self) -> None:
        if self.handshake:
            reading = self.connection.recv()
            found = b""
            try:
                reading.send(None)
            except StopIteration as done:
                found = done.value
            assert found == self.handshake.pop(0)


def check(data: bytes) -> None:
    """Each datagram reaches the viewer whose source it is, once and in order, or nobody; none is kept without bound."""
    socket = _Socket()
    port = shared(socket)
    viewers: list[Viewer | None] = [Viewer(port, number) for number in range(2)]
    for source, owner in zip(SOURCES, OWNERS, strict=True):
        if owner is not None and (viewer := viewers[owner]) is not None:
            assert port.responder._claim(viewer.connection.agent, source, NOW)
    at = 0
    while at + 2 <= len(data):
        what, length = data[at], data[at + 1]
        datagram = data[at + 2 : at + 2 + length]
        at += 2 + length
        owner = OWNERS[what & 3]
        viewer = None if owner is None else viewers[owner]
        if viewer is not None:
            if what & 4:
                viewer.connection.on_srtcp = viewer.heard.append
            if what & 0x18 == 8:
                viewer.read()
        if what & 0x10:
            port.resume_writing() if what & 8 else port.pause_writing()
            assert all(one is None or one.writable[-1] == bool(what & 8) for one in viewers)
        if what & 0x80 and owner is not None and viewer is not None:
            viewer.connection.fail()
            assert not viewer.connection.is_open
            viewers[owner] = viewer = None
        if not what & 0x18:
            before = len(socket.sent)
            port.datagram_received(datagram, SOURCES[what & 3])
            assert len(socket.sent) == before  # nothing here is signed
            if viewer is not None and datagram and datagram[0] >= 4:
                viewer.expect(datagram)
        for one in viewers:
            if one is not None:
                assert one.heard == one.sealed
                assert list(one.connection._queue) == one.handshake
    assert len(port) == sum(one is not None for one in viewers)
    counts = port.tally.counts
    assert counts.get("webrtc.flood", 0) >= sum(one.flood for one in viewers if one is not None)
    for one in viewers:
        if one is not None:
            one.connection.fail()
    assert (len(port), port.responder.sources) == (0, 0)
    port.turns.close()
