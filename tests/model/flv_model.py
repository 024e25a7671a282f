"""The slow twin of `_flv`: FFmpeg's own FLV muxer, a container for each track."""

from collections.abc import Iterable

from gbgw.base.access_unit import AccessUnit
from gbgw.base.codec import H265
from gbgw.media.track import Track
from gbgw.mux import container, flv, fragment


def muxed(track: Track, units: Iterable[AccessUnit], *, legacy: bool = False) -> list[bytes]:
    """The tags that FFmpeg makes of each unit."""
    options = {"flvflags": "no_metadata+no_duration_filesize+no_sequence_end"}
    memory = container._Memory()
    output, (stream,) = container._open(memory, "flv", (track,), options)
    memory.take()
    out = []
    for unit in units:
        sample = fragment.length_prefixed(unit, track.codec) if track.codec is H265 else unit
        output.mux_one(container._packet(unit, sample, stream, unit.pts or 0, unit.dts or 0))
        data = memory.take()
        if track.codec is H265:
            data = flv.without_metadata(data)
            data = flv.legacy_h265(data) if legacy else data
        out.append(data)
    output.close()
    return out
