"""The access unit: the one thing that flows from a camera to every viewer.

The class lives in `gbgw._ps`, which makes most of them; everything else names this Protocol.
"""

from typing import Protocol

from gbgw.base.codec import Codec


class AccessUnit(Protocol):
    """One picture, or one piece of sound. Immutable; its bytes are owned by it and shared by everybody downstream.

    The bytes are read by the buffer protocol (`memoryview(unit)`, `bytes(unit)`, `av.Packet(unit)`) and are
      - H.264, H.265: Annex B with start codes, one whole picture, parameter sets in place where the camera sent them;
      - G.711: samples, one byte each;
      - AAC: ADTS frames as they leave `_ps`; one raw frame (no ADTS header) once past `media.timeline`.
    """

    @property
    def codec(self) -> Codec: ...
    @property
    def track_id(self) -> int:
        """PES stream_id it came from (0xE0.., 0xC0..); units of one track_id form one track."""

    @property
    def pts(self) -> int | None:
        """Presentation time, 90 kHz ticks, unwrapped; None only between `_ps` and `media.timeline`."""

    @property
    def dts(self) -> int | None:
        """Decoding time, 90 kHz ticks, unwrapped; None where the camera sent none and `media.timeline` has not yet
        derived it."""

    @property
    def is_keyframe(self) -> bool:
        """True where decoding may begin, and for all audio: an IDR, any IRAP of H.265, an H.264 I picture with its
        parameter sets or a recovery point, and where a gradual refresh begins (`refresh`). What follows in decoding
        order and is shown before it may refer to what came before it (leading pictures)."""

    @property
    def refresh(self) -> int:
        """Of a key frame: pictures to decode before one is whole (recovery point SEI: H.264 section D.2.8); 0: none."""

    @property
    def parameter_sets(self) -> tuple[bytes, ...]:
        """NAL units without start codes, in stream order, of the VPS, SPS and PPS found in this unit.

        Empty for audio, but for AAC past `media.timeline`, whose one entry is the AudioSpecificConfig.
        """

    @property
    def discontinuity(self) -> bool:
        """True when units before this one were lost or dropped."""

    @property
    def arrived(self) -> float:
        """Loop seconds at which its last byte arrived."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

    def with_times(self, pts: int, dts: int) -> "AccessUnit":
        """Return a unit with other times that shares this one's bytes."""
