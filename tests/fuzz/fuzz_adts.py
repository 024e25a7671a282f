"""Fuzz target for AdtsSplitter of gbgw/media/params: frames of the input, each once, and nothing unaccounted for."""

from gbgw.media import params
from gbgw.media.params import AdtsFrame, AdtsSplitter

HELD_BYTES = 8_191
CUTS = (1, 7, 160)


def split(data: bytes, size: int) -> tuple[list[AdtsFrame], AdtsSplitter]:
    splitter = AdtsSplitter()
    frames: list[AdtsFrame] = []
    for at in range(0, len(data), size):
        frames += splitter.push(data[at : at + size])
        assert len(splitter._carry) <= HELD_BYTES
    return frames, splitter


def plain(frames: list[AdtsFrame]) -> list[tuple[bytes, bytes, int, int]]:
    return [(one.data, one.config, one.sample_rate, one.channels) for one in frames]


def check(data: bytes) -> None:
    """A stream without damage gives the same frames at any cut; a damaged one, frames that are in it in this order."""
    whole, splitter = split(data, len(data) or 1)
    frames, cut = split(data, CUTS[len(data) % len(CUTS)])
    if not splitter.skipped and not splitter.refused:
        assert plain(frames) == plain(whole)
    for found, left in ((whole, splitter), (frames, cut)):
        at = 0
        for frame in found:
            at = data.index(frame.data, at) + len(frame.data)
            assert params.parse_audio_config(frame.config) == (frame.sample_rate, frame.channels)
        left.reset()
        headers = len(data) - left.skipped - sum(len(frame.data) for frame in found)
        if not left.refused:
            assert 7 * len(found) <= headers <= 9 * len(found)
