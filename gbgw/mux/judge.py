"""What a viewer's decoder makes of the units it is given: each picture by its hash, and every complaint.

For measuring, not for showing: damaged pictures come out too, so that they can be told from whole ones. Takes
milliseconds a picture. Leaves out: sound.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import av
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.frame import VideoFrame

from gbgw.base import ticks
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import Codec

_TIME_BASE: Final = Fraction(1, ticks.HZ)


@dataclass(slots=True)
class Verdict:
    """pictures: hash by pts in ticks. complaints: units that the decoder refused or warned about; that a picture refers
    to one it never got, it conceals without a word, so only the hash tells."""

    pictures: dict[int, int] = field(default_factory=dict)
    complaints: int = 0


def judge(units: Iterable[AccessUnit], codec: Codec) -> Verdict:
    """Decode video units in the order given, none of them left out. Not for two threads at once: it listens to all
    that FFmpeg says in this process."""
    verdict = Verdict()
    decoder = av.CodecContext.create(codec.container, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    decoder.flags |= Flags.output_corrupt
    decoder.options = {"err_detect": "crccheck+bitstream+buffer"}
    before = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        for unit in [*units, None]:
            packet = None
            if unit is not None:
                packet = av.Packet(bytes(unit))
                packet.pts, packet.dts, packet.time_base = unit.pts, unit.dts, _TIME_BASE
            with av.logging.Capture(local=False) as said:
                try:
                    frames = decoder.decode(packet)
                except FFmpegError:
                    frames = []
                    verdict.complaints += 1
            damaged = any(line[0] <= av.logging.WARNING for line in said) or any(frame.is_corrupt for frame in frames)
            verdict.complaints += damaged
            for frame in frames:
                if frame.pts is not None:
                    verdict.pictures[frame.pts] = picture_hash(frame)
    finally:
        av.logging.set_level(before)
    return verdict


def picture_hash(frame: VideoFrame) -> int:
    """Equal pictures, equal hashes, within one process."""
    return hash((frame.width, frame.height, frame.to_ndarray(format="yuv420p").tobytes()))
