"""Fuzz target for gbgw/_webrtc: the packets of a Sender are those that struct.pack would write.

Input: the first byte chooses a header extension; then two bytes a doing. Bits 6, 7 of the first both set: a packet is
asked for again, so many back as the second says. Else a picture of as many payloads as bits 0..5 say, of sizes that
grow from eight times the second by what bits 6, 7 say, sent in runs as long as the byte behind decides.
"""

import ctypes
import struct
from collections.abc import Iterator

from gbgw._webrtc import MAX_PAYLOAD_BYTES, Batch, Payloads, Sender

EXTENSION = b"\xbe\xde\x00\x02\x10\x30\x22\0\0\0\0\0"
SEND_TIME_AT = 7
SSRC, ORIGIN, FIRST = 0xC0FFEE, 0xFFFFFF00, 65_530
VOLUME_BYTES = 6_144
PACKET_VOLUME = 64
NO_SOCKET = 0x7FFF0000  # the kernel refuses it: what is looked at is what libsrtp would be given

_written: list[bytes] = []


def _protect(_session: int, packet: int, length: "ctypes._Pointer[ctypes.c_int]") -> int:
    _written.append(ctypes.string_at(packet, length[0]))
    ctypes.memset(packet + length[0], 0xA5, 144)
    length[0] += 144
    return 0


PROTECT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(_protect)
BATCH = Batch()


def doings(data: bytes) -> Iterator[tuple[int, list[int], int]]:
    """(how far back, sizes of payloads, how many at once); none at once: asked for again."""
    volume = 0
    for at in range(1, len(data) - 1, 2):
        first, second = data[at], data[at + 1]
        if first & 0xC0 == 0xC0:
            yield second, [], 0
            continue
        sizes = [(8 * second + index * (first >> 6)) % (MAX_PAYLOAD_BYTES + 1) for index in range(first & 0x3F)]
        volume += sum(sizes) + PACKET_VOLUME * len(sizes)
        if volume > VOLUME_BYTES:
            return
        yield 0, sizes, 1 + (data[at + 2] if at + 2 < len(data) else 63) % 64


def packet(number: int, timestamp: int, payload: bytes, *, marker: bool, extension: bytes) -> bytes:
    first, second = 0x90 if extension else 0x80, 96 | (0x80 if marker else 0)
    return struct.pack(">BBHII", first, second, number & 0xFFFF, timestamp & 0xFFFFFFFF, SSRC) + extension + payload


def check(data: bytes) -> None:
    """Send and send again; every packet is as it should be."""
    extension = EXTENSION if data and data[0] & 1 else b""
    patched = extension[:SEND_TIME_AT] + (77).to_bytes(3, "big") + extension[SEND_TIME_AT + 3 :] if extension else b""
    blank = extension
    sender = Sender(
        BATCH,
        ssrc=SSRC,
        payload_type=96,
        sequence_number=FIRST,
        timestamp_origin=ORIGIN,
        protect=ctypes.cast(PROTECT, ctypes.c_void_p).value or 0,
        session=1,
        extension=extension,
        send_time_at=SEND_TIME_AT if extension else -1,
    )
    sender.aim(NO_SOCKET, b"\x02\0\x12\x34\x7f\0\0\1" + bytes(8))
    number, timestamp = FIRST, 0
    sent: dict[int, bytes] = {}
    for back, sizes, run in doings(data):
        _written.clear()
        if not run:
            asked = (number - 1 - back) & 0xFFFF
            found = sender.find(asked)
            if found is not None:
                sender.resend(*found, asked)
                sender.resend(*found, asked, repair=True)
                old = sent[asked]
                head = 12 + len(extension)
                assert _written[0][head:] == old[head:]
                again = struct.pack(">H", asked) + old[head:]
                repair = packet(number, found[2], again, marker=bool(old[1] & 0x80), extension=blank)
                assert _written[1] == repair
                number += 1
            continue
        timestamp += 3_600
        parts = [bytes((index,)) * size for index, size in enumerate(sizes)]
        payloads = Payloads(parts)
        assert (len(payloads), payloads.size, list(payloads)) == (len(parts), sum(sizes), parts)
        for begin in range(0, len(parts), run):
            taken = sender.send(payloads, timestamp, begin, min(begin + run, len(parts)), 77)
            assert taken == 0
        expected = [
            packet(number + index, ORIGIN + timestamp, part, marker=index == len(parts) - 1, extension=patched)
            for index, part in enumerate(parts)
        ]
        assert _written == expected
        sent.update({(number + index) & 0xFFFF: one for index, one in enumerate(expected)})
        number += len(parts)
    assert sender.sequence_number == number & 0xFFFF
    assert sender.packets == number - FIRST
