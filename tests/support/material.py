"""Video made with FFmpeg for tests that need more than hand-built bytes; made once a run, in a temporary folder."""

import atexit
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

from tests.support import build


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(mkdtemp(prefix="gbgw-material-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache(maxsize=16)
def elementary_stream(
    codec: str = "h264", *, seconds: float = 2, gop: int = 25, b_frames: int = 0, size: str = "320x240"
) -> bytes:
    """An Annex B stream of FFmpeg's moving test source, 25 pictures a second, an AUD before each picture."""
    path = _folder() / f"{codec}-{seconds}-{gop}-{b_frames}-{size}.bin"
    x265 = (
        f"log-level=none:keyint={gop}:min-keyint={gop}:bframes={b_frames}:aud=1:repeat-headers=1:scenecut=0:open-gop=0"
    )
    preset = "veryfast" if b_frames else "ultrafast"
    x264 = ["-bf", str(b_frames), "-g", str(gop), "-keyint_min", str(gop), "-sc_threshold", "0"]
    encoder = {
        "h264": ["-c:v", "libx264", "-preset", preset, *x264, "-x264-params", "aud=1:repeat-headers=1"],
        "h265": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", x265],
    }[codec]
    form = {"h264": "h264", "h265": "hevc"}[codec]
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc=size={size}:rate=25:duration={seconds}",
         "-pix_fmt", "yuv420p", *encoder, "-f", form, str(path)],
        check=True,
    )  # fmt: skip
    return path.read_bytes()


@dataclass(frozen=True)
class Picture:
    """One coded picture. pts, dts: 90 kHz ticks."""

    data: bytes
    pts: int
    dts: int
    is_keyframe: bool


def pictures(stream: bytes, codec: str = "h264", *, start: int = 90_000, step: int = 3_600) -> list[Picture]:
    """Cut an Annex B stream at its access unit delimiters; without B-frames pts = dts."""
    aud = b"\0\0\0\1\x09" if codec == "h264" else b"\0\0\0\1\x46\x01"
    cuts = []
    at = stream.find(aud)
    while at >= 0:
        cuts.append(at)
        at = stream.find(aud, at + 1)
    units = [stream[a:b] for a, b in zip(cuts, [*cuts[1:], len(stream)], strict=True)]
    made = []
    for index, unit in enumerate(units):
        key = b"\0\0\1\x67" in unit[:64] if codec == "h264" else b"\0\0\1\x40\x01" in unit[:64]
        made.append(Picture(unit, start + index * step, start + index * step, key))
    return made


def program_stream(
    picture: Picture, codec: str = "h264", *, audio: bytes | None = None, stuffing: bytes = b""
) -> bytes:
    """One pack for one picture: system header and map before key frames, PTS on the first PES."""
    stream_type = build.H264 if codec == "h264" else build.H265
    data = build.pack(picture.dts, stuffing=stuffing)
    if picture.is_keyframe:
        entries = [(stream_type, build.VIDEO_ID)] + ([(build.PCMA, build.AUDIO_ID)] if audio is not None else [])
        data += build.system_header() + build.program_map(entries)
    dts = picture.dts if picture.pts != picture.dts else None
    data += build.pes_run(picture.data, build.VIDEO_ID, picture.pts, dts)
    if audio is not None:
        data += build.pes(audio, build.AUDIO_ID, picture.pts)
    return data
