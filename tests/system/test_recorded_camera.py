"""A recorded camera replayed over real sockets by UDP, TCP passive and TCP active comes out byte for byte."""

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H264
from gbgw.base.errors import GatewayError
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.net.media import MediaEndpoint, PortPool
from gbgw.net.receiver import Receiver, new_fold

HOST = "127.0.0.1"
SSRC = 0x0BEBC201


class Recorder:
    def __init__(self) -> None:
        self.video: list[bytes] = []
        self.keys = 0

    def on_tracks(self, tracks: tuple[Track, ...], generation: int) -> None: ...

    def on_unit(self, unit: AccessUnit, track: Track) -> None:
        if unit.codec is H264:
            self.video.append(bytes(unit))
            self.keys += unit.is_keyframe

    def on_end(self, cause: GatewayError | None) -> None: ...


def packets(data: bytes, size: int) -> list[bytes]:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [struct.pack("!BBHII", 0x80, 96, n % 65536, n * 900, SSRC) + piece for n, piece in enumerate(pieces)]


def framed(datagrams: Sequence[bytes]) -> bytes:
    return b"".join(len(one).to_bytes(2, "big") + one for one in datagrams)


@pytest.mark.fixtures
@pytest.mark.parametrize("transport", ["udp", "tcp-passive", "tcp-active"])
@pytest.mark.parametrize(("size", "cut"), [(1400, 1460), (9_000, 777), (1, 0)])
async def test_byte_for_byte(fixtures_dir: Path, transport: str, size: int, cut: int) -> None:
    """size: of a payload; cut: bytes of one write to a TCP connection. (1, 0): the beginning, by single bytes."""
    folder = fixtures_dir / "media/avstackdocs"
    data = next(folder.glob("01e168e1_*.ps")).read_bytes()
    elementary = next(folder.glob("01e168e1_*.264")).read_bytes()
    if size == 1:
        data, cut = data[:80_000], 13
    sent = packets(data, size)
    loop = asyncio.get_running_loop()
    pool = PortPool(range(42300, 42400), host=HOST)
    stream, recorder = Stream("cam"), Recorder()
    stream.attach(recorder)
    receiver = Receiver(stream, loop, fold=new_fold(SSRC, ordered=transport != "udp"), expected_ssrc=SSRC)
    endpoint = MediaEndpoint(pool, receiver, transport=transport, ssrc=SSRC)  # type: ignore[arg-type]

    async def write(writer: asyncio.StreamWriter) -> None:
        everything = framed(sent)
        for at in range(0, len(everything), cut):
            writer.write(everything[at : at + cut])
            if at % (64 * cut) == 0:
                await writer.drain()
        await writer.drain()

    async def arrived() -> None:
        async with asyncio.timeout(30):
            while receiver.counts["rtp.received"] < len(sent):  # noqa: ASYNC110 - the kernel delivers
                await asyncio.sleep(0.002)

    async with endpoint:
        if transport == "udp":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as camera:
                camera.bind((HOST, 0))
                for n, datagram in enumerate(sent):
                    camera.sendto(datagram, (HOST, endpoint.port))
                    if n % 50 == 49:
                        await asyncio.sleep(0.001)
                await arrived()
                assert endpoint.kernel_drops == 0
        elif transport == "tcp-passive":
            _, writer = await asyncio.open_connection(HOST, endpoint.port)
            await write(writer)
            await arrived()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        else:

            async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await write(writer)
                await done.wait()
                writer.close()

            done = asyncio.Event()
            server = await asyncio.start_server(serve, HOST, 0)
            port = server.sockets[0].getsockname()[1]
            await endpoint.answered(address=HOST, port=port, transport="tcp", ssrc=SSRC, sip_host=HOST)
            await arrived()
            done.set()
            server.close()
        receiver.close()
        assert receiver.receiver_report(loop.time())[13:16] == b"\0\0\0"  # nothing lost
    pool.close()

    out = b"".join(recorder.video)
    assert elementary.startswith(out)
    assert len(out) > (0.9 * len(data) if size > 1 else 50_000)  # the beginning ends inside a picture
    assert recorder.keys == (54 if size > 1 else sum(1 for unit in recorder.video if b"\0\0\0\1\x67" in unit[:5]))
    assert endpoint.facts.garbage_bytes == 0
