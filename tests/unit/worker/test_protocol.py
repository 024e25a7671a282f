"""Messages between control and workers survive any cut; what is no message ends the channel and nothing else."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.base import errors, limits
from gbgw.base.codec import H264, PCMA
from gbgw.base.errors import GatewayError, LocalError, MediaError, RequestError
from gbgw.media.track import Track
from gbgw.serve.source import Sample
from gbgw.worker import tickets
from gbgw.worker.base import IngestFigures, IngestSpec
from gbgw.worker.protocol import (
    Answered,
    CloseIngest,
    Decoder,
    Diagnosis,
    Done,
    Failed,
    Failure,
    Message,
    OpenIngest,
    ProtocolError,
    Report,
    Sit,
    Start,
    Step,
    Stop,
    StreamFigures,
    TrackRow,
    Tracks,
    ViewerCame,
    ViewerFigures,
    ViewerLeft,
    encode,
)

TRACKS = (
    Track(224, H264, (b"\x67\x4d\xff\x00", b"\x68\xee"), width=1920, height=1080, reorder_depth=2),
    Track(192, PCMA, sample_rate=8_000, channels=1),
)
FIGURES = StreamFigures(3, 12.5, IngestFigures(1, 2, 3, 4, 5, 6, 0.25, 8), 9, 1, 4e6, 2.0, 25.0)
MESSAGES: list[Message] = [
    Start(1, '{"media": {}}', (2, 3), ask=1),
    OpenIngest(3, IngestSpec("KEY", "tcp-passive", 7, "192.0.2.1", "pass", False), ask=2),
    Answered(3, "192.0.2.1", 5_000, "udp", None, "192.0.2.1", ask=3),
    CloseIngest(3, Failure.of(MediaError("no media \u6444\u50cf", code="no_media", remedy="look"))),
    Tracks(3, tuple(TrackRow.of(track) for track in TRACKS)),
    Sit(5, "KEY", 6, ask=4),
    Step(3, "published", 1.25),
    ViewerCame("abc", "KEY", "flv", "192.0.2.9"),
    ViewerLeft(ViewerFigures("abc", {"bytes": 1 << 40})),
    ViewerLeft(ViewerFigures("abc", {"bytes": 1}, round_trip=0.021)),
    Report(
        1.0, 2.5, 1, 2, 3, (FIGURES,), (), {"rtp.lost": 2},
        (Sample("x", float("inf"), labels={"a": "b"}, buckets=((0.1, 1), (float("inf"), 2)), merge="max"),),
    ),
    Done(4, 30_000),
    Diagnosis(5, Failure("LocalError", "x", "y")),
    Failed(6, Failure("LimitError", "transcode_limit", "all taken")),
    Stop(),
]  # fmt: skip


@given(cuts=st.lists(st.integers(0, 4_000), max_size=30))
def test_any_cut_gives_the_same_messages(cuts: list[int]) -> None:
    data = b"".join(map(encode, MESSAGES))
    decoder = Decoder()
    found: list[Message] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        found += decoder.push(data[start:end])
    assert found == MESSAGES


def test_tracks_arrive_as_they_were() -> None:
    (message,) = Decoder().push(encode(MESSAGES[4]))
    assert isinstance(message, Tracks)
    assert tuple(row.track() for row in message.tracks) == TRACKS


def test_a_codec_that_nobody_knows() -> None:
    with pytest.raises(ProtocolError):
        TrackRow(224, "H299", (), b"", 0, 0, 0, 0, 0).track()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"Step",
        b"Step ",
        b"Step []",
        b'Step {"ingest":"x"}',
        b"\xff\xfe",
        b"Done {}",
        b'None {"to":1}',
        b"Message {}",
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        list(decoder.push(len(body).to_bytes(4, "big") + body))


def test_a_length_beyond_the_limit_is_not_waited_for() -> None:
    with pytest.raises(ProtocolError):
        list(Decoder().push((limits.WORKER_MESSAGE_BYTES + 1).to_bytes(4, "big")))


def test_a_message_beyond_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_MESSAGE_BYTES", 100)
    with pytest.raises(ProtocolError):
        encode(Start(1, "x" * 200))


def test_tickets() -> None:
    assert tickets.read(tickets.write(77, 5)) == (77, 5)
    assert tickets.read(tickets.write(77)) == (77, 0)
    assert tickets.read("") == (0, 0)


KINDS = sorted(
    (
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, GatewayError) and found is not GatewayError
    ),
    key=lambda found: found.__name__,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_the_same_on_the_other_side(kind: type[GatewayError]) -> None:
    error = kind("what happened", code="a_code", remedy="what to try")
    error.stream = "KEY"
    told = Failure.of(error).exception()
    assert type(told) is kind
    assert (told.message, told.code, told.remedy, told.stream) == ("what happened", "a_code", "what to try", "KEY")


def test_the_status_of_a_request_error_travels_and_unknown_classes_become_local() -> None:
    told = Failure.of(RequestError("no", status=404, code="unknown_channel")).exception()
    assert isinstance(told, RequestError)
    assert told.status == 404

    class Odd(GatewayError):
        pass

    assert type(Failure.of(Odd("x")).exception()) is LocalError


def test_it_is_a_name_and_json_behind_a_length() -> None:
    data = encode(Done(4, 7))
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    name, _, text = data[4:].partition(b" ")
    assert (name, json.loads(text)) == (b"Done", {"to": 4, "value": 7})
