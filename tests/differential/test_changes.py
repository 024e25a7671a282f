"""Streams that become another in mid-stream: whoever watches goes on with what comes, or is told to open it again."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gbgw._ps import AccessUnit
from gbgw.base.codec import AAC, PCMA, PCMU, VIDEO, Codec
from gbgw.base.ticks import HZ
from gbgw.device.sender import Packetiser
from gbgw.mux.flv import AUDIO_TAG, FILE_HEADER, tags
from gbgw.mux.loop import encode_sound
from gbgw.mux.pattern import PatternSpec, tone
from gbgw.mux.ps import Muxer
from tests.support.lossy import GOP, STEP, Coded, Run, Sent, coded, decode_strictly
from tests.support.streams import Viewer, ffmpeg

LENGTH = 4 * GOP * STEP  # of one part, ticks
FORMATS = {"flv": "flv", "mp4": "mp4", "ts": "mpegts"}


def without_sound(part: Coded) -> Coded:
    return replace(part, units=tuple(unit for unit in part.units if unit.codec.kind is VIDEO))


def with_sound(part: Coded, codec: Codec) -> Coded:
    """The same pictures with the pattern's tone."""
    start = min(unit.pts or 0 for unit in part.units)
    pieces = encode_sound(tone(PatternSpec(audio=codec)), codec, seamless=True)
    sounds = [
        AccessUnit(data, codec, start + pts, start + pts, is_keyframe=True, track_id=0xC0)
        for data, pts in pieces
        if pts < LENGTH
    ]
    pictures = [unit for unit in part.units if unit.codec.kind is VIDEO]
    return replace(part, units=tuple(sorted((*pictures, *sounds), key=lambda unit: unit.dts or 0)))


def sent(parts: Sequence[Coded], *, restart: bool = False) -> Sent:
    """One part after another by one camera; restart: which starts anew with each, by SSRC, sequence and clock."""
    out: Sent = []
    muxer: Muxer | None = None
    packetiser = Packetiser(5, sequence=65_500, max_payload=400)
    for number, part in enumerate(parts):
        sound = next((unit.codec for unit in part.units if unit.codec.kind is not VIDEO), None)
        if muxer is None or restart:
            muxer = Muxer(part.codec, sound)
        else:
            muxer.retrack(part.codec, sound)
        if restart:
            packetiser = Packetiser(5 + number, sequence=1_000 * number, max_payload=400)
        back = number * LENGTH if restart else 0
        for unit in part.units:
            at = 100 + (unit.dts or 0) / HZ + (4.0 * number if restart else 0.0)
            moved = unit.with_times((unit.pts or 0) - back, (unit.dts or 0) - back)
            out += [(one, at) for one in packetiser.packets(muxer.push(moved), moved.pts or 0)]
    return out


def watched(parts: Sequence[Coded], *, restart: bool = False) -> Run:
    run = Run()
    run.push(sent(parts, restart=restart))
    run.finish()
    return run


def pictures(parts: Sequence[Coded]) -> list[int]:
    return [picture for part in parts for _, picture in sorted(part.pictures.items())]


def seen(viewer: Viewer, name: str) -> list[int]:
    return [picture for _, picture in decode_strictly(viewer.data, FORMATS[name])]


def ends(viewer: Viewer) -> list[str]:
    return [cause.code for cause in viewer.ends if cause is not None]


LARGER = coded("h264", size=(320, 192), start=HZ + LENGTH)
SAME_CODEC = {
    "h264, larger": (coded("h264"), LARGER),
    "h264, larger and back": (coded("h264"), LARGER, coded("h264", start=HZ + 2 * LENGTH)),
    "h264, B-frames begin": (coded("h264"), coded("h264-b-frames", start=HZ + LENGTH)),
    "h264, B-frames end": (coded("h264-b-frames"), coded("h264", start=HZ + LENGTH)),
    "h264, another PPS": (coded("h264"), coded("h264-other-pps", start=HZ + LENGTH)),
    "h265, larger": (coded("h265"), coded("h265", size=(320, 192), start=HZ + LENGTH)),
}


@pytest.mark.parametrize("name", SAME_CODEC)
def test_other_parameter_sets_of_the_same_codec(name: str) -> None:
    """FLV and TS go on, decoded as one recording by two generations of FFmpeg; HTTP-fMP4 ends and goes on anew."""
    parts = SAME_CODEC[name]
    run = watched(parts)
    assert run.stream.generation == len(parts)
    for form in ("flv", "ts"):
        assert seen(run.viewers[form], form) == pictures(parts)
        assert ends(run.viewers[form]) == []
        if form == "ts" or "h264" in name:  # the older FFmpeg does not know H.265 in FLV
            told = ffmpeg(
                *("-xerror", "-f", FORMATS[form], "-i", "-", "-map", "0:v", "-f", "null", "-"),
                stdin=run.viewers[form].data,
            )
            assert (told.returncode, told.stderr) == (0, b"")
    assert seen(run.viewers["mp4"], "mp4") == pictures(parts[:1])
    assert ends(run.viewers["mp4"]) == ["tracks_changed"]


@pytest.mark.parametrize("structures", [("h264", "h265"), ("h265", "h264")])
def test_another_codec_ends_every_answer_and_the_next_one_begins_with_it(structures: tuple[str, str]) -> None:
    first, second = coded(structures[0]), coded(structures[1], start=HZ + LENGTH)
    run = Run()
    packets = sent((first, second))
    change = next(at for at, (_, time) in enumerate(packets) if time >= 100 + (HZ + LENGTH) / HZ + 0.5)
    run.push(packets[:change])
    for form, viewer in run.viewers.items():
        assert seen(viewer, form) == pictures([first])
        assert ends(viewer) == ["tracks_changed"]
    again = {form: Viewer() for form in FORMATS}
    for form, viewer in again.items():
        run.feeds.get(run.stream, form).attach(viewer)
    run.push(packets[change:])
    run.finish()
    for form, viewer in again.items():
        assert seen(viewer, form) == pictures([second])
        assert ends(viewer) == []


def test_the_same_parameter_sets_again_are_no_change() -> None:
    parts = (coded("h264"), coded("h264", start=HZ + LENGTH))
    run = watched(parts)
    assert run.stream.generation == 1
    for form, viewer in run.viewers.items():
        assert seen(viewer, form) == pictures(parts)
        assert [chunk.is_init for chunk in viewer.chunks].count(True) == 1


@pytest.mark.parametrize("structure", ["h264", "h264-b-frames", "h265"])
def test_a_camera_that_starts_anew(structure: str) -> None:
    """Another SSRC, sequence and clock after four seconds of silence, on the same port: nobody has to do anything."""
    parts = (coded(structure), coded(structure, start=HZ + LENGTH))
    run = watched(parts, restart=True)
    assert run.stream.generation == 1
    run.receiver.settle_counts()
    assert run.receiver.tally["rtp.ssrc_change"] == 1
    assert run.receiver.tally["timeline.jump"] == 1
    for form, viewer in run.viewers.items():
        got = seen(viewer, form)
        assert got == [picture for picture in pictures(parts) if picture in set(got)]
        assert len(got) >= len(pictures(parts)) - 2  # one picture may not have been ended when it began anew
        assert ends(viewer) == []


SOUNDS: dict[str, tuple[Codec | None, Codec | None]] = {
    "appears": (None, PCMA),
    "vanishes": (PCMA, None),
    "a-law to mu-law": (PCMA, PCMU),
    "to AAC": (PCMA, AAC),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_changes_and_the_picture_goes_on(name: str) -> None:
    before, after = SOUNDS[name]
    longer = [coded("h264", start=HZ + n * LENGTH) for n in range(4)]
    parts = [
        without_sound(part) if codec is None else with_sound(part, codec)
        for part, codec in zip(longer, (before, after, after, after), strict=True)
    ]
    run = Run(formats=("flv", "ts"))
    packets = sent(parts)
    run.push(packets)
    run.finish()
    found = run.stream.audio
    assert (found.codec if found is not None else None) is after
    flv = run.viewers["flv"]
    if before is not None and after is not None:
        assert ends(flv) == ["tracks_changed"]
        assert seen(flv, "flv") == pictures(parts)[: len(seen(flv, "flv"))]
        return
    assert ends(flv) == []
    told = ffmpeg("-xerror", "-f", "flv", "-i", "-", "-map", "0:v", "-f", "framecrc", "-", stdin=flv.data)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count(b"\n0,") == len(pictures(parts))
    kinds = [kind for kind, _, _ in tags(flv.data[FILE_HEADER:])]
    assert (AUDIO_TAG in kinds[-GOP:]) is (after is not None)
    assert (AUDIO_TAG in kinds[:GOP]) is (before is not None)
