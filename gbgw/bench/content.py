"""What the simulated cameras send: one round of real H.264 and G.711 as a program stream, shared by all of them."""

from collections.abc import Sequence

from gbgw._load import Content
from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import Kind
from gbgw.base.ticks import HZ
from gbgw.mux.loop import Loop
from gbgw.mux.ps import Muxer

Piece = tuple[int, int, bytes, bool, int, int, int, int, int]


def content_of(loop: Loop, *, max_payload: int = 1_400, payload_type: int = 96) -> Content:
    """Return one round of `loop` in packets: a pack for each unit, as GB/T 28181-2022 Annex C has it."""
    return Content(pieces_of(loop), loop.duration, max_payload=max_payload, payload_type=payload_type)


def pieces_of(loop: Loop) -> Sequence[Piece]:
    """Return what _load.Content takes. Times begin one second in, so that no clock has to run before zero."""
    muxer = Muxer(loop.video, loop.audio)
    pieces = []
    for unit in loop.units:
        pts, dts = _times(unit)
        is_video = unit.codec.kind is Kind.VIDEO
        timed = unit.with_times(pts + HZ, dts + HZ)
        data = muxer.push(timed)
        pts_at, dts_at = find_times(data)
        pieces.append(
            (
                dts if is_video else pts - loop.delay,
                pts + HZ,
                data,
                is_video and unit.is_keyframe,
                read_scr(data),
                pts + HZ,
                pts_at,
                dts + HZ if dts_at else -1,
                dts_at,
            )
        )
    return pieces


def _times(unit: AccessUnit) -> tuple[int, int]:
    if unit.pts is None or unit.dts is None:
        raise ValueError("a unit of a loop has no time")
    return unit.pts, unit.dts


def read_scr(pack: bytes) -> int:
    """Return the base of a pack's system clock reference (H.222.0 (2021) table 2-39)."""
    first = int.from_bytes(pack[4:9], "big")
    return (first >> 35 & 0x07) << 30 | (first >> 19 & 0x7FFF) << 15 | first >> 3 & 0x7FFF


def find_times(pack: bytes) -> tuple[int, int]:
    """Return where PTS and DTS of a pack's first PES packet stand; 0 for one that it does not have."""
    at = 14 + (pack[13] & 0x07)
    while pack[at + 3] in (0xBB, 0xBC):  # system header, program stream map
        at += 6 + int.from_bytes(pack[at + 4 : at + 6], "big")
    flags = pack[at + 7]
    return (at + 9 if flags & 0x80 else 0), (at + 14 if flags & 0xC0 == 0xC0 else 0)
