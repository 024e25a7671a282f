"""Whether WebRTC can carry a stream to the viewer who asks, and what to tell him when it cannot."""

from collections.abc import Iterable

from gbgw.base.codec import H264, H265, PCMA, PCMU
from gbgw.base.errors import RequestError
from gbgw.media import params
from gbgw.media.hub import Stream
from gbgw.media.track import Track
from gbgw.serve import payloads
from gbgw.serve.offer import Law, Served


def check_playable(stream: Stream) -> None:
    video = stream.video
    if video is not None and video.codec not in (H264, H265):
        raise RequestError(
            f"The stream is {video.codec.name}, which no browser plays by WebRTC.",
            status=406,
            code="no_codec_fits",
            remedy="Ask with ?video=h264 where media.transcode allows it, or play by FLV or HLS.",
            stream=stream.key,
        )
    if video is not None and video.reorder_depth > 0:
        raise RequestError(
            "The stream has B-frames, which WebRTC cannot play.",
            status=406,
            code="b_frames_unsupported",
            remedy="Switch B-frames off in the camera, ask with ?video=h264, or play by FLV or HLS.",
            stream=stream.key,
        )
    if video is None and not is_g711(stream.audio):
        raise RequestError(
            "The stream has nothing that WebRTC carries.",
            status=406,
            code="no_codec_fits",
            remedy="Play by FLV or HLS.",
            stream=stream.key,
        )


def check_served(stream: Stream, served: Iterable[Served]) -> None:
    """What is answered must be what the stream has: no session that would stay silent and dark."""
    kinds = {one.line.kind for one in served}
    if not (("video" in kinds and stream.video is not None) or ("audio" in kinds and is_g711(stream.audio))):
        raise RequestError(
            "The offer asks for nothing that the stream has.",
            status=406,
            code="no_codec_fits",
            remedy="Offer recvonly video and audio.",
            stream=stream.key,
        )


def is_g711(track: Track | None) -> bool:
    return track is not None and track.codec in (PCMA, PCMU)


def law(stream: Stream) -> Law:
    return "PCMU" if stream.audio is not None and stream.audio.codec is PCMU else "PCMA"


def profile(stream: Stream) -> int | None:
    """profile_idc of the camera's SPS, of H.265 general_profile_idc (H.265 section 7.3.3)."""
    for nal in stream.video.parameter_sets if stream.video is not None else ():
        if stream.video is not None and stream.video.codec is H265:
            if len(nal) > 3 and (nal[0] & payloads.H265_TYPE) >> 1 == params.H265_SPS:
                return nal[3] & 0x1F
        elif len(nal) > 1 and nal[0] & payloads.NAL_TYPE == 7:
            return nal[1]
    return None
