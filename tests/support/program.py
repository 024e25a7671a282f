"""A program stream in RTP, made from the test pattern: what a camera sends, and what must come out."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from gbgw.base.codec import H264, PCMA
from gbgw.device.sender import Packetiser
from gbgw.mux.pattern import PatternSpec, pattern_loop
from gbgw.mux.ps import Muxer


@dataclass(frozen=True)
class Program:
    """packets: RTP of the whole loop, in order; by_unit: the same by access unit; pictures: their bytes as muxed."""

    by_unit: tuple[tuple[bytes, ...], ...]
    pictures: tuple[bytes, ...]

    @property
    def packets(self) -> list[bytes]:
        return [packet for unit in self.by_unit for packet in unit]


@cache
def program(ssrc: int = 5, *, sequence: int = 65_500, seconds: int = 4, audio: Any = PCMA) -> Program:
    units = pattern_loop(PatternSpec(audio=audio, width=320, height=180, seconds=seconds, gop=25)).units
    muxer, packetiser = Muxer(H264, audio), Packetiser(ssrc, sequence=sequence)
    by_unit = tuple(tuple(packetiser.packets(muxer.push(unit), unit.pts or 0)) for unit in units)
    return Program(by_unit, tuple(muxer.elementary(unit) for unit in units if unit.codec is H264))
