"""One elementary stream of a published Stream, with everything a muxer or an SDP needs to know of it (RFC 6381, ISO/IEC
14496-15 annex E).
"""

from dataclasses import dataclass

from gbgw.base.codec import AAC, H264, H265, PCMA, PCMU, VIDEO, Codec
from gbgw.media import params


@dataclass(frozen=True, slots=True)
class Track:
    """One codec of a Stream. A change of any field makes another Track, and with it another generation of the Stream.

    track_id: PES stream_id (0xE0.., 0xC0..).
    parameter_sets: NAL units without start codes, VPS before SPS before PPS; empty for audio.
    config: AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1); empty for everything but AAC.
    width, height: pixels after cropping; 0 for audio.
    sample_rate, channels: 0 for video.
    reorder_depth: pictures that may precede another in decoding order and follow it in output order; 0: no B-frames.
    """

    track_id: int
    codec: Codec
    parameter_sets: tuple[bytes, ...] = ()
    config: bytes = b""
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    reorder_depth: int = 0

    @property
    def is_video(self) -> bool:
        return self.codec.kind is VIDEO

    @property
    def rfc6381(self) -> str:
        """The codecs= parameter of RFC 6381 ("avc1.4d401f", "hvc1.1.6.L93.B0", "mp4a.40.2", "alaw"); "" where it cannot
        be known.
        """
        if self.codec is H264:
            sps = next((nal for nal in self.parameter_sets if params.h264_type(nal) == params.H264_SPS), b"")
            return f"avc1.{sps[1:4].hex()}" if len(sps) >= 4 else ""
        if self.codec is H265:
            nal = next((nal for nal in self.parameter_sets if params.h265_type(nal) == params.H265_SPS), None)
            parsed = params.parse_h265_sps(nal) if nal is not None else None
            return parsed.rfc6381 if parsed is not None else ""
        if self.codec is AAC:
            return f"mp4a.40.{self.config[0] >> 3}" if self.config else "mp4a.40.2"
        return {PCMA: "alaw", PCMU: "ulaw"}.get(self.codec, "")
