"""Access units of one video track to pictures as numpy arrays, for snapshots and for programs that look at them.

Decoding takes milliseconds a picture: call it in a thread, never on the event loop; one Decoder is used by one thread
at a time. Leaves out: sound, hardware decoders, showing damaged pictures.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.error import FFmpegError

from gbgw.base import limits, ticks
from gbgw.base.access_unit import AccessUnit
from gbgw.base.errors import RequestError
from gbgw.base.tally import Tally
from gbgw.media.track import Track

_TIME_BASE: Final = Fraction(1, ticks.HZ)
_START_CODE: Final = b"\0\0\0\1"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One decoded picture.

    pixels: height x width x 3, RGB, 8 bits each; owned by the receiver.
    pts: 90 kHz ticks, as the unit it was decoded from.
    is_keyframe: True where that unit could be decoded by itself.
    """

    pixels: npt.NDArray[np.uint8]
    pts: int
    is_keyframe: bool


class Decoder:
    """Decodes one Track; another generation of the Stream needs another Decoder.

    Starts at a key frame, and again after every hole and every unit that could not be decoded, so that no picture is
    built on one that was lost. Damage is tallied as decode.error, never raised; units passed over as decode.skipped.
    Raises RequestError for a track that is no video, or of a codec that is only named.
    """

    def __init__(self, track: Track, *, tally: Tally | None = None) -> None:
        if not track.is_video or not track.codec.supported:
            raise RequestError(
                f"{track.codec.name} cannot be decoded to pictures.", code="codec_unsupported", status=415
            )
        self.track = track
        self.tally = tally if tally is not None else Tally()
        self._context: av.VideoCodecContext | None = None
        self._waiting = True

    def push(self, unit: AccessUnit) -> list[Picture]:
        """Decode one unit; return the pictures it completed, in output order: one, or with B-frames none or several."""
        if not len(unit):
            return []  # to FFmpeg an empty packet is the end
        if unit.is_keyframe:
            fresh = self._waiting
            self._waiting = False
        else:
            self._waiting = self._waiting or unit.discontinuity
            if self._waiting:
                self.tally.add("decode.skipped")
                return []
            fresh = False
        pictures: list[Picture] = []
        if fresh:
            pictures = self.flush()
        data = bytes(unit)
        if fresh and len(unit.parameter_sets) < len(self.track.parameter_sets):
            data = b"".join(_START_CODE + nal for nal in self.track.parameter_sets) + data
        packet = av.Packet(data)
        packet.pts, packet.dts, packet.time_base = unit.pts, unit.dts, _TIME_BASE
        return pictures + self._decode(packet)

    def flush(self) -> list[Picture]:
        """The stream ends or is cut here: return the pictures still held. The next unit must be a key frame."""
        pictures = self._decode(None) if self._context is not None else []
        self.close()
        return pictures

    def close(self) -> None:
        """Drop the decoder and what it holds. May be called again; a later push starts afresh at its key frame."""
        self._context = None

    def _decode(self, packet: "av.Packet[Any] | None") -> list[Picture]:
        if self._context is None:
            self._context = self._open()
        try:
            return [picture for frame in self._context.decode(packet) if (picture := self._picture(frame)) is not None]
        except (FFmpegError, ValueError, MemoryError):
            self.tally.add("decode.error")
            self._waiting = True
            self._context = None
            return []

    def _open(self) -> av.VideoCodecContext:
        context = cast(av.VideoCodecContext, av.CodecContext.create(self.track.codec.container, "r"))
        # one thread: frame threads hold a picture each, and a stream of a camera is a small part of one core
        context.thread_count = 1
        context.options = {"max_pixels": str(limits.DECODE_PIXELS), "err_detect": "crccheck+bitstream+buffer"}
        if self.track.reorder_depth == 0:
            context.flags |= Flags.low_delay  # else an SPS without bitstream_restriction makes it hold pictures
        return context

    def _picture(self, frame: av.VideoFrame) -> Picture | None:
        if frame.is_corrupt:
            self.tally.add("decode.error")
            self._waiting = True
            return None
        if frame.pts is None:
            return None
        pixels = cast(npt.NDArray[np.uint8], frame.to_ndarray(format="rgb24"))
        return Picture(pixels, frame.pts, bool(frame.key_frame))
