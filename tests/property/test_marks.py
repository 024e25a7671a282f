"""Whatever a camera means by the RTP marker, no picture is cut by it, nor two joined (architecture.md decision 11)."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbgw import _ps
from tests.model import ps_model
from tests.support import build


@dataclass(frozen=True)
class Camera:
    """buffers: what is cut into packets in one go: a whole pack, each PES, or all PES of a slice. marks: where the
    marker is. gap: seconds between two packets of a picture; shorter than anybody waits."""

    codec: str
    buffers: str
    marks: str
    pes_bytes: int
    packet_bytes: int
    gap: float
    pictures: tuple[tuple[int, ...], ...]  # bytes of each slice
    sound: bool
    sets_apart: bool

    def picture(self, number: int) -> list[bytes]:
        """Its NAL units, parameter sets first."""
        is_key = number == 0
        first, later = (b"\x65\x88", b"\x65\x10") if is_key else (b"\x41\x9a", b"\x41\x1a")
        sets = build.nals(build.SPS264, build.PPS264)
        if self.codec == "H265":
            first, later = (b"\x26\x01\xaf", b"\x26\x01\x2f") if is_key else (b"\x02\x01\xd0", b"\x02\x01\x50")
            sets = build.nals(build.VPS265, build.SPS265, build.PPS265)
        slices = [
            build.nals((later if at else first) + build.filler(size, 50 * number + at + 1))
            for at, size in enumerate(self.pictures[number])
        ]
        return [sets, *slices] if is_key else slices

    def packets(self, number: int) -> list[tuple[bytes, bool]]:
        """(payload, marker) of one picture and, behind it, its sound."""
        pts = 90_000 + 3_600 * number
        parts = self.picture(number)
        if not self.sets_apart and len(parts) > 1 and number == 0:
            parts[:2] = [parts[0] + parts[1]]
        head = build.pack(pts) + (build.program_map() if number == 0 else b"")
        runs: list[list[bytes]] = []
        for part in parts:
            cut = [part[at : at + self.pes_bytes] for at in range(0, len(part), self.pes_bytes)]
            runs.append([build.pes(one, pts=None if runs or at else pts) for at, one in enumerate(cut)])
        runs[0][0] = head + runs[0][0]
        if self.buffers == "pack":
            buffers = [b"".join(one for run in runs for one in run)]
        else:
            buffers = [one for run in runs for one in run]
        if self.sound:
            buffers.append(build.pes(b"\xd5" * 40, 0xC0, pts))
        out = []
        for buffer in buffers:
            cut = [buffer[at : at + self.packet_bytes] for at in range(0, len(buffer), self.packet_bytes)]
            for at, payload in enumerate(cut):
                marked = {"last": at == len(cut) - 1, "first": at == 0, "every": True, "never": False}[self.marks]
                out.append((payload, marked))
        return out


cameras = st.builds(
    Camera,
    codec=st.sampled_from(("H264", "H265")),
    buffers=st.sampled_from(("pack", "pes")),
    marks=st.sampled_from(("last", "last", "last", "first", "every", "never")),
    pes_bytes=st.sampled_from((60, 130, 300, 5_000)),
    packet_bytes=st.sampled_from((50, 100, 1_400)),
    gap=st.sampled_from((0.0, 0.001, 0.004)),
    pictures=st.lists(
        st.lists(st.integers(10, 400), min_size=1, max_size=4).map(tuple), min_size=2, max_size=14
    ).map(tuple),
    sound=st.booleans(),
    sets_apart=st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize("make", [_ps.Demuxer, ps_model.Demuxer], ids=["core", "model"])
@given(cameras)
@settings(deadline=None)
def test_no_picture_is_cut_or_joined(make: Any, camera: Camera) -> None:
    demuxer, now, seen, delays = make(), 0.0, [], []
    for number in range(len(camera.pictures)):
        now = max(now, number * 0.04)
        for payload, marked in camera.packets(number):
            now += camera.gap
            while demuxer.deadline is not None and demuxer.deadline <= now:
                seen += demuxer.poll(demuxer.deadline)
            seen += demuxer.push(payload, now)
            if marked:
                found = demuxer.mark(now)
                delays += [number for unit in found if unit.track_id == 0xE0]
                seen += found
    seen += demuxer.flush()
    videos = [unit for unit in seen if unit.track_id == 0xE0]
    assert [bytes(unit) for unit in videos] == [b"".join(camera.picture(at)) for at in range(len(camera.pictures))]
    assert [unit.pts for unit in videos] == [90_000 + 3_600 * at for at in range(len(camera.pictures))]
    honest = camera.buffers == "pack" and camera.marks == "last" and not camera.sound
    spans = any(size > 2 * camera.pes_bytes for size in camera.pictures[0])
    if honest and spans and camera.packet_bytes < 200:
        assert delays[0] == 0  # the first picture left at its marker
