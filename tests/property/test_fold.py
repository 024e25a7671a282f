"""_receiver.Fold finds the same as its model, whatever comes in whatever order at whatever time."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gbgw._ps import Demuxer
from gbgw._receiver import Fold
from tests.model import fold_model
from tests.support.program import program

PACKETS = [packet for seed in (5, 6) for packet in program(seed, seconds=1).packets]


def plain(events: Any) -> list[tuple[object, ...]]:
    return [
        (
            one.kind,
            one.at,
            one.timestamp,
            None if one.unit is None else (bytes(one.unit), one.unit.pts, one.unit.is_keyframe, one.unit.discontinuity),
        )
        for one in events
    ]


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[bytes | None, float]]:
    """A run of the stream, damaged here and there, with the clock moving on; None: time alone."""
    out: list[tuple[bytes | None, float]] = []
    now = 0.0
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, len(PACKETS) - 1))
        for packet in PACKETS[begin : begin + draw(st.integers(1, 60))]:
            now += draw(st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.15, 0.3]))
            what = draw(st.sampled_from(["send", "send", "send", "send", "lose", "twice", "cut", "wait", "late"]))
            if what == "wait":
                out.append((None, now))
            if what == "cut":
                packet = packet[: draw(st.integers(0, len(packet)))]
            if what == "late" and out:
                out.insert(len(out) - 1, (packet, out[-1][1]))
            elif what != "lose":
                out += [(packet, now)] * (2 if what == "twice" else 1)
    return out


@given(happenings(), st.sampled_from([0.0, 0.2]), st.sampled_from([(None, "adopt"), (5, "strict"), (5, "latch")]))
@settings(max_examples=150, deadline=None)
def test_core_equals_model(happening: list[tuple[bytes | None, float]], patience: float, source: Any) -> None:
    core = Fold(*source, max_seconds=patience)
    model = fold_model.Fold(Demuxer(), *source, patience)
    for n, (datagram, now) in enumerate(happening):
        for one in (core, model):
            if datagram is None:
                one.poll(now)
            else:
                one.push(datagram, now)
        assert core.deadline == model.deadline
        assert core.heads == model.heads
        if n % 7 == 0:
            assert plain(core.events()) == plain(model.events())
    for one in (core, model):
        one.close(9.0)
    assert plain(core.events()) == plain(model.events())
    assert (core.rtp_counts, core.ps_counts) == (model.rtp_counts, model.ps_counts)
    assert (core.ssrc, core.last_packet_at, core.packs, core.maps) == (
        model.ssrc,
        model.last_packet_at,
        model.packs,
        model.maps,
    )
    assert core.overrun_units == 0
