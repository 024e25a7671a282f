"""Codecs as rows: everything the rest of the program needs to know about a codec, once.

stream_type values: H.222.0 (2021) table 2-34 and GB/T 28181-2022 Annex C; RTP names: GB/T 28181-2022 Annex B, RFC 3551.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    VIDEO = "video"
    AUDIO = "audio"


VIDEO: Final = Kind.VIDEO
AUDIO: Final = Kind.AUDIO


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec.

    stream_type: its number in a program stream map.
    clock: RTP clock in Hz.
    container: FFmpeg's name for it.
    rtpmap: encoding name and clock in SDP.
    sample_rate: Hz, when the codec fixes it; 0 otherwise.
    supported: False for codecs that are recognised only to be refused by name.
    """

    name: str
    kind: Kind
    stream_type: int
    clock: int
    container: str
    rtpmap: str
    sample_rate: int = 0
    supported: bool = True

    def __repr__(self) -> str:
        return f"Codec({self.name})"

    def __reduce__(self) -> tuple[object, ...]:
        return (by_name, (self.name,))


H264: Final = Codec("H264", VIDEO, 0x1B, 90_000, "h264", "H264/90000")
H265: Final = Codec("H265", VIDEO, 0x24, 90_000, "hevc", "H265/90000")
PCMA: Final = Codec("PCMA", AUDIO, 0x90, 8_000, "pcm_alaw", "PCMA/8000", sample_rate=8_000)
PCMU: Final = Codec("PCMU", AUDIO, 0x91, 8_000, "pcm_mulaw", "PCMU/8000", sample_rate=8_000)
AAC: Final = Codec("AAC", AUDIO, 0x0F, 90_000, "aac", "MPEG4-GENERIC/90000")

CODECS: Final[tuple[Codec, ...]] = (
    H264,
    H265,
    PCMA,
    PCMU,
    AAC,
    Codec("MPEG1V", VIDEO, 0x01, 90_000, "mpeg1video", "MPV/90000", supported=False),
    Codec("MPEG2V", VIDEO, 0x02, 90_000, "mpeg2video", "MPV/90000", supported=False),
    Codec("MPEG4", VIDEO, 0x10, 90_000, "mpeg4", "MP4V-ES/90000", supported=False),
    Codec("H266", VIDEO, 0x33, 90_000, "vvc", "H266/90000", supported=False),
    Codec("SVAC", VIDEO, 0x80, 90_000, "", "SVAC/90000", supported=False),
    Codec("MP1A", AUDIO, 0x03, 90_000, "mp2", "MPA/90000", supported=False),
    Codec("MP2A", AUDIO, 0x04, 90_000, "mp2", "MPA/90000", supported=False),
    Codec("AAC-LATM", AUDIO, 0x11, 90_000, "aac_latm", "MP4A-LATM/90000", supported=False),
    Codec("G7221", AUDIO, 0x92, 16_000, "", "G7221/16000", supported=False),
    Codec("G723", AUDIO, 0x93, 8_000, "g723_1", "G723/8000", sample_rate=8_000, supported=False),
    Codec("G729", AUDIO, 0x99, 8_000, "g729", "G729/8000", sample_rate=8_000, supported=False),
    Codec("SVACA", AUDIO, 0x9B, 8_000, "", "SVACA/8000", supported=False),
)

BY_STREAM_TYPE: Final[dict[int, Codec]] = {codec.stream_type: codec for codec in CODECS}
BY_NAME: Final[dict[str, Codec]] = {codec.name: codec for codec in CODECS}


def by_name(name: str) -> Codec:
    """Return the row called `name`; KeyError if there is none. Rows are singletons, also through pickle."""
    return BY_NAME[name]
