"""What the simulated camera can do wrong, as rows. Each row changes one thing, so that rows can be combined.

Where a row is something that was seen in the field, docs name the vendor; here stands only what goes over the wire.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal

from gbgw.base.codec import AAC, H264, H265, PCMA, Codec
from gbgw.base.errors import ConfigError
from gbgw.device.clockwork import RIGHT, ClockFault
from gbgw.mux.ps import HIKVISION, PLAIN, Style

if TYPE_CHECKING:
    from gbgw.mux.pattern import PatternSpec

HOUR_SECONDS: Final = 3_600.0
PTS_WRAP_SECONDS: Final = 2**33 / 90_000  # H.222.0 (2021) section 2.4.3.7: 33 bits


@dataclass(frozen=True, slots=True)
class Scene:
    """From `after` seconds on the pattern is another one, which begins with a key frame in the place of the next
    picture.
    """

    after: float
    change: "Callable[[PatternSpec], PatternSpec]"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a device behaves; the default is by the book.

    style: how it writes its program stream.
    wrong_codec: the map and f= name the other video codec.
    empty_promise: the map announces G.711A and none is ever sent.
    mislabelled_audio: the map announces G.711A whatever the sound is.
    b_frames: between references, in the test pattern.
    answer_ssrc: y= of the answer: as offered, left out, or another one that RTP then carries.
    own_ssrc: RTP carries an SSRC that nobody announced.
    answers: how many 200s follow an INVITE.
    reject_status: answer every INVITE with this, 0 for none.
    media: whether anything is sent after the ACK.
    *_after: seconds after the first unit; None for never. returns_after: it is silent no longer.
    open_gop: of the pattern: pictures shown before a key frame refer to what was before it.
    scenes: what the pattern becomes, in the order of their times.
    clock: how the times of its units are wrong.
    """

    style: Style = PLAIN
    wrong_codec: bool = False
    empty_promise: bool = False
    mislabelled_audio: bool = False
    b_frames: int = 0
    answer_ssrc: Literal["offered", "none", "other"] = "offered"
    own_ssrc: bool = False
    answers: int = 1
    reject_status: int = 0
    media: bool = True
    open_gop: bool = False
    audio_after: float | None = None
    audio_silent_after: float | None = None
    silent_after: float | None = None
    returns_after: float | None = None
    ssrc_change_after: float | None = None
    restart_after: float | None = None
    tcp_garbage: bool = False
    scenes: tuple[Scene, ...] = ()
    clock: ClockFault = RIGHT

    def style_for(self, video: Codec) -> Style:
        """Return the style with the lies that depend on what is sent."""
        style = self.style
        if self.wrong_codec:
            style = replace(style, declared_video=H265 if video is H264 else H264)
        if self.empty_promise:
            style = replace(style, promised_audio=PCMA)
        if self.mislabelled_audio:
            style = replace(style, declared_audio=PCMA)
        return style


BY_THE_BOOK: Final = Behaviour()


def _other_codec(spec: "PatternSpec") -> "PatternSpec":
    return replace(spec, video=H265 if spec.video is H264 else H264)


def _scene(after: float, change: "Callable[[PatternSpec], PatternSpec]") -> Callable[[Behaviour], Behaviour]:
    return lambda b: replace(b, scenes=(*b.scenes, Scene(after, change)))


def _clock(fault: ClockFault) -> Callable[[Behaviour], Behaviour]:
    return lambda b: replace(b, clock=fault)


@dataclass(frozen=True, slots=True)
class Quirk:
    """One row: its name on the command line, what it does, and the change."""

    name: str
    description: str
    change: Callable[[Behaviour], Behaviour]


QUIRKS: Final[tuple[Quirk, ...]] = (
    Quirk("no-psm", "no program stream map", lambda b: replace(b, style=replace(b.style, program_map=False))),
    Quirk("own-ssrc", "RTP carries an SSRC that nobody announced", lambda b: replace(b, own_ssrc=True)),
    Quirk("other-y", "the answer's y= and RTP have another SSRC", lambda b: replace(b, answer_ssrc="other")),
    Quirk("no-y", "the answer has no y= line", lambda b: replace(b, answer_ssrc="none")),
    Quirk(
        "zero-length-pes",
        "video in one PES of PES_packet_length 0 for each picture",
        lambda b: replace(b, style=replace(b.style, zero_length=True)),
    ),
    Quirk("bad-crc", "the map's CRC is zero", lambda b: replace(b, style=replace(b.style, valid_crc=False))),
    Quirk(
        "pes-per-nal",
        "each NAL unit in a PES of its own, stuffed pack headers, private streams, no DTS",
        lambda b: replace(b, style=HIKVISION),
    ),
    Quirk(
        "psm-lies-about-audio", "the map announces G.711A that never comes", lambda b: replace(b, empty_promise=True)
    ),
    Quirk(
        "aac-as-g711", "the map announces G.711A whatever the sound is", lambda b: replace(b, mislabelled_audio=True)
    ),
    Quirk("late-audio", "sound starts 2 s after the picture", lambda b: replace(b, audio_after=2.0)),
    Quirk("wrong-codec", "the map and f= name the other video codec", lambda b: replace(b, wrong_codec=True)),
    Quirk("b-frames", "two B-frames between references in the pattern", lambda b: replace(b, b_frames=2)),
    Quirk("tcp-garbage", "bytes of nothing between RTP packets on TCP", lambda b: replace(b, tcp_garbage=True)),
    Quirk("ssrc-change", "another SSRC and sequence after 3 s", lambda b: replace(b, ssrc_change_after=3.0)),
    Quirk(
        "restart-mid-stream", "encoder starts anew, times from 0, after 3 s", lambda b: replace(b, restart_after=3.0)
    ),
    Quirk(
        "open-gop",
        "two B-frames, and pictures before a key frame refer across it (CRA with RASL in H.265)",
        lambda b: replace(b, b_frames=2, open_gop=True),
    ),
    Quirk(
        "returns-after-silence", "silent for 3 s after 3 s", lambda b: replace(b, silent_after=3.0, returns_after=6.0)
    ),
    Quirk(
        "reboot",
        "silent after 3 s; another SSRC and sequence, times from 0, after 6 s",
        lambda b: replace(b, silent_after=3.0, returns_after=6.0, restart_after=6.0, ssrc_change_after=6.0),
    ),
    Quirk("audio-vanishes", "no more sound after 4 s", lambda b: replace(b, audio_silent_after=4.0)),
    Quirk("audio-to-aac", "the sound is AAC after 4 s", _scene(4.0, lambda spec: replace(spec, audio=AAC))),
    Quirk(
        "resolution-change",
        "the pattern is 1280x720 after 4 s, without a gap",
        _scene(4.0, lambda spec: replace(spec, width=1_280, height=720)),
    ),
    Quirk(
        "frame-rate-change",
        "the pattern has 15 pictures a second after 4 s",
        _scene(4.0, lambda spec: replace(spec, frame_rate=15, gop=15)),
    ),
    Quirk(
        "codec-change",
        "the pattern is in the other video codec after 4 s, and back after 14 s",
        lambda b: replace(b, scenes=(*b.scenes, Scene(4.0, _other_codec), Scene(14.0, _other_codec))),
    ),
    Quirk(
        "other-set-ids",
        "H.264 parameter sets have other ids after 4 s",
        _scene(4.0, lambda spec: replace(spec, set_id=spec.set_id + 1)),
    ),
    Quirk(
        "slow-clock",
        "12 pictures a second after 4 s, and times that count for 25",
        lambda b: replace(
            b,
            scenes=(*b.scenes, Scene(4.0, lambda spec: replace(spec, frame_rate=12, gop=12))),
            clock=ClockFault(rate_after=4.0, picture_rate=Fraction(12, 25)),
        ),
    ),
    Quirk("clock-forward", "the clock is set forward by an hour after 4 s", _clock(ClockFault(0.0, 4.0, HOUR_SECONDS))),
    Quirk(
        "clock-back",
        "the clock is set back by an hour after 4 s",
        _clock(ClockFault(2 * HOUR_SECONDS, 4.0, -HOUR_SECONDS)),
    ),
    Quirk("pts-wrap", "PTS wraps after 4 s", _clock(ClockFault(PTS_WRAP_SECONDS - 4.0))),
    Quirk("clock-stands", "all times are the same after 4 s", _clock(ClockFault(stands_after=4.0))),
    Quirk(
        "drift",
        "the clock of the sound is 0.02 % faster than that of the picture",
        _clock(ClockFault(sound_rate=Fraction(10_002, 10_000))),
    ),
    Quirk("no-media", "answers and never sends", lambda b: replace(b, media=False)),
    Quirk("silent-after", "sends nothing more after 3 s", lambda b: replace(b, silent_after=3.0)),
    Quirk("no-answer", "never answers an INVITE", lambda b: replace(b, answers=0)),
    Quirk("double-answer", "answers an INVITE twice, with two tags", lambda b: replace(b, answers=2)),
    Quirk("reject-486", "answers every INVITE with 486", lambda b: replace(b, reject_status=486)),
)
BY_NAME: Final = {quirk.name: quirk for quirk in QUIRKS}


def behaviour(names: Iterable[str]) -> Behaviour:
    """Return the behaviour of a device with these quirks, whatever their order; ConfigError for an unknown one."""
    wanted = set(names)
    unknown = sorted(wanted - BY_NAME.keys())
    if unknown:
        raise ConfigError(f"no quirk is called {unknown[0]}", remedy="gbgw device --quirk list names them.")
    result = Behaviour()
    # A row that replaces the whole style goes first, so that rows that change one thing of it still count.
    for quirk in sorted(QUIRKS, key=lambda row: row.name != "pes-per-nal"):
        if quirk.name in wanted:
            result = quirk.change(result)
    return result
