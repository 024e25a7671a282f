"""MANSRTSP bodies, byte for byte (reference 6.9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.gb import mansrtsp
from gbgw.gb.mansrtsp import Command, Commands, Reply


@pytest.mark.conformance(67)
def test_commands_are_exact_and_numbered_by_themselves() -> None:
    commands = Commands()
    assert commands.resume() == b"PLAY RTSP/1.0\r\nCSeq: 1\r\nRange: npt=now-\r\n\r\n"
    assert commands.pause() == b"PAUSE RTSP/1.0\r\nCSeq: 2\r\nPauseTime: now\r\n\r\n"
    assert commands.scale(2) == b"PLAY RTSP/1.0\r\nCSeq: 3\r\nScale: 2.0\r\n\r\n"
    assert commands.seek(100) == b"PLAY RTSP/1.0\r\nCSeq: 4\r\nRange: npt=100-\r\n\r\n"
    assert commands.seek(1.25) == b"PLAY RTSP/1.0\r\nCSeq: 5\r\nRange: npt=1.25-\r\n\r\n"
    assert commands.seek(0) == b"PLAY RTSP/1.0\r\nCSeq: 6\r\nRange: npt=0-\r\n\r\n"
    assert commands.scale(-1) == b"PLAY RTSP/1.0\r\nCSeq: 7\r\nScale: -1.0\r\n\r\n"
    assert commands.scale(0.25) == b"PLAY RTSP/1.0\r\nCSeq: 8\r\nScale: 0.25\r\n\r\n"


@pytest.mark.conformance(67)
@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (b"", Reply()),
        (b"\r\n", Reply()),
        (b"RTSP/1.0 200 OK\r\nCSeq: 77\r\n\r\n", Reply(200, "OK")),
        (
            b"RTSP/1.0 200 OK\r\nCSeq: 4\r\nRange: npt=100-\r\nRTP-Info: seq=4711;rtptime=2250000000\r\n\r\n",
            Reply(200, "OK", 100.0, None, 4_711, 2_250_000_000),
        ),
        (b"MANSRTSP/1.0 200 OK\nCSeq:1\nrange: ntp=1.5-9\nscale: -1.0\n", Reply(200, "OK", 1.5, -1.0)),
        (b"RTSP/1.0 200 OK\r\nRange: npt=now-\r\n", Reply(200, "OK")),
        (b"RTSP/1.0 454 Session Not Found", Reply(454, "Session Not Found")),
        (b"RTSP/1.0 500", Reply(500)),
        (b"RTSP/1.0 OK", Reply()),
        (b"RTSP/1.0 200 OK\r\nScale: 0\r\nRTP-Info: seq=99999;rtptime=99999999999", Reply(200, "OK")),
        (b"<xml/>", Reply()),
    ],
)
def test_answers_with_and_without_body(body: bytes, reply: Reply) -> None:
    assert mansrtsp.read_reply(body) == reply
    assert reply.refused == (reply.status >= 300)


@pytest.mark.parametrize(
    ("body", "command"),
    [
        (b"PAUSE RTSP/1.0\r\nCSeq: 2\r\nPauseTime: now\r\n\r\n", Command("PAUSE", "2")),
        (b"PLAY MANSRTSP/1.0\r\nCSeq: 3\r\nScale: 2.000000\r\n\r\n", Command("PLAY", "3", None, 2.0)),
        (b"PLAY RTSP/1.0\r\nCSeq: 4\r\nRange: npt=100-\r\n\r\n", Command("PLAY", "4", 100.0)),
        (b"PLAY RTSP/1.0\r\nCSeq: 5\r\nRange: npt=now-\r\n\r\n", Command("PLAY", "5")),
        (b"play rtsp/1.0\nScale: -1.0\nRange: ntp=600-120\n", Command("PLAY", "1", 600.0, -1.0)),
        (b"TEARDOWN RTSP/1.0\r\nCSeq: 9\r\n\r\n", Command("TEARDOWN", "9")),
        (b"RECORD RTSP/1.0\r\nCSeq: 9\r\n\r\n", None),
        (b"PLAY HTTP/1.1\r\n\r\n", None),
        (b"", None),
    ],
)
def test_a_device_reads_commands(body: bytes, command: Command | None) -> None:
    assert mansrtsp.read_command(body) == command


def test_what_a_device_answers_is_read_back() -> None:
    command = Command("PLAY", "4", 100.0, 2.0)
    assert mansrtsp.read_reply(mansrtsp.answer(command, npt=100)) == Reply(200, "OK", 100.0, 2.0)
    assert mansrtsp.read_reply(mansrtsp.answer(command, status=451, reason="No")) == Reply(451, "No")


@given(st.binary(max_size=600))
def test_nothing_raises(body: bytes) -> None:
    mansrtsp.read_reply(body)
    mansrtsp.read_command(body)
    mansrtsp.read_reply(b"RTSP/1.0 200 OK\r\n" + body)


@given(st.floats(min_value=0, max_value=100_000), st.floats(min_value=0.25, max_value=8))
def test_commands_are_read_back(seconds: float, scale: float) -> None:
    commands = Commands()
    sought = mansrtsp.read_command(commands.seek(seconds))
    assert sought is not None
    assert sought.start == pytest.approx(seconds, abs=0.001)
    scaled = mansrtsp.read_command(commands.scale(round(scale, 3)))
    assert scaled is not None
    assert scaled.scale == round(scale, 3)
