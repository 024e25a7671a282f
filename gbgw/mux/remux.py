"""The program that makes an MP4 of what was downloaded: `python -m gbgw.mux.remux SOURCE TARGET`.

Pictures and AAC are copied, G.711 becomes AAC. A process of its own, as for all coding (architecture.md decision 7): it
can be killed, and a file that brings it down costs one download. Importing this module loads no PyAV.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

AAC_RATE = 16_000  # hertz, of G.711 made AAC: what every player takes


def remux(source: str, target: str) -> None:
    """Write `target` with its index at the front. Raises av.FFmpegError or ValueError where `source` is no video."""
    import av

    with av.open(source) as read, av.open(target, "w", format="mp4", options={"movflags": "faststart"}) as write:
        _copy(read, write)


def _copy(read: "InputContainer", write: "OutputContainer") -> None:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream

    video = next(iter(read.streams.video), None)
    if video is None:
        raise ValueError("no video was downloaded")
    sound = next(iter(read.streams.audio), None)
    picture_out = write.add_stream_from_template(video)
    sound_out: AudioStream | None = None
    resampler: AudioResampler | None = None
    if sound is not None and sound.codec_context.name == "aac":
        sound_out = write.add_stream_from_template(sound)
    elif sound is not None:
        sound_out = write.add_stream("aac", rate=AAC_RATE, layout="mono")
        resampler = AudioResampler(format="fltp", layout="mono", rate=AAC_RATE)
    for packet in read.demux(*([video, sound] if sound is not None else [video])):
        if packet.dts is None:
            continue  # the end of a stream
        if packet.stream is video:
            packet.stream = picture_out
            write.mux(packet)
        elif sound_out is not None and resampler is None:
            packet.stream = sound_out
            write.mux(packet)
        elif sound_out is not None and resampler is not None:
            for frame in packet.decode():
                assert isinstance(frame, AudioFrame)
                for piece in resampler.resample(frame):
                    write.mux(sound_out.encode(piece))
    if sound_out is not None and resampler is not None:
        for piece in resampler.resample(None):
            write.mux(sound_out.encode(piece))
        write.mux(sound_out.encode(None))


if __name__ == "__main__":
    remux(*sys.argv[1:3])
