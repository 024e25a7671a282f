"""Fuzz target for the program stream map in gbgw/_ps: the model's streams, at any cut."""

from gbgw import _ps
from tests.fuzz import fuzz_ps
from tests.model import ps_model
from tests.support import build

PICTURE = build.pes(build.nals(b"\x65\x88\x84\x21\x43\x65"), pts=32_768)
SOUND = build.pes(b"\xd5" * 8, build.AUDIO_ID)
LENGTH = 1_200


def stream(data: bytes) -> bytes:
    """A program stream whose map is `data` from behind its length on; a picture and sound follow it."""
    data = data[:LENGTH]
    head = build.pack(32_768) + b"\0\0\1\xbc" + len(data).to_bytes(2, "big")
    return head + data + PICTURE + SOUND + build.pack(32_768) + b"\0\0\1\xba"


def check(data: bytes) -> None:
    """Read the input as a map."""
    program = stream(data)
    core, model = _ps.Demuxer(), ps_model.Demuxer()
    assert [*core.push(program, 0.0), *core.flush()] == [*model.push(program, 0.0), *model.flush()]
    assert core.counts == model.counts
    told = [(one.stream_id, one.declared, one.detected) for one in core.streams]
    assert told == [(one.stream_id, one.declared, one.detected) for one in model.streams]
    assert all(0xC0 <= stream_id < 0xF0 for stream_id, _, _ in told)
    fuzz_ps.check(program)
