"""What viewers decode after loss, reordering and duplication, against what the camera coded, picture by picture."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from gbgw._ps import AccessUnit
from gbgw.base.codec import PCMA, VIDEO
from gbgw.base.ticks import HZ
from gbgw.mux.ps import HIKVISION, PLAIN, Style
from tests.support.lossy import GOP, STRUCTURES, Coded, Run, Sent, coded, decode_strictly, lose, packets_of, reorder
from tests.support.streams import UnitSink, Viewer

STYLES = {"plain": PLAIN, "pes-per-nal": HIKVISION, "unbounded": Style(zero_length=True)}
FORMATS = {"flv": "flv", "mp4": "mp4", "ts": "mpegts"}


def show(run: Run, packets: Sequence[tuple[bytes, float]]) -> dict[str, list[tuple[int, int]]]:
    run.push(packets)
    run.finish()
    return {
        name: decode_strictly(viewer.data, FORMATS[name]) if viewer.data else [] for name, viewer in run.viewers.items()
    }


def marked(packets: Sequence[tuple[bytes, float]], mark: bool) -> Sent:
    return [(one[:1] + bytes((one[1] & 0x7F | mark << 7,)) + one[2:], at) for one, at in packets]


def strangers(stream: Coded, shown: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    genuine = set(stream.pictures.values())
    return [(time, picture) for time, picture in shown if picture not in genuine]


def whole_units(stream: Coded, style: Style, sent: Sent) -> list[AccessUnit]:
    """The units of which every packet is in `sent`."""
    found = {one[2:4] for one, _ in sent}
    out = []
    clean = iter(packets_of(stream, style))
    for unit in stream.units:
        numbers = []
        for one, _ in clean:
            numbers.append(one[2:4])
            if one[1] & 0x80:
                break
        if found.issuperset(numbers):
            out.append(unit)
    return out


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_perfect_network_shows_every_picture(structure: str, style: str) -> None:
    stream = coded(structure)
    run = Run()
    shown = show(run, packets_of(stream, STYLES[style]))
    expected = [picture for _, picture in sorted(stream.pictures.items())]
    assert {name: [picture for _, picture in found] for name, found in shown.items()} == dict.fromkeys(
        FORMATS, expected
    )
    run.receiver.settle_counts()
    assert not [name for name in run.receiver.tally.counts if name.startswith(("timeline", "receiver"))]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("seed", range(3))
def test_freeze_shows_nothing_that_was_not_coded(structure: str, style: str, seed: int) -> None:
    stream = coded(structure)
    sent = lose(packets_of(stream, STYLES[style]), 0.02 if structure != "h264-intra-refresh" else 0.005, seed)
    run = Run()
    sink = UnitSink()
    run.stream.attach(sink)
    for name, shown in show(run, sent).items():
        if structure == "h264-intra-refresh":  # a refresh flits by, in sixteenths of a picture's time
            times = [time for time, _ in shown]
            last = {time: after - time for time, after in pairwise(times)}
            assert all(last.get(time, 0) <= 3 for time, _ in strangers(stream, shown)), name
            continue
        assert not strangers(stream, shown), name
        # A key frame that came whole brings the picture back at once: within one GOP of the hole.
        back = {unit.pts for unit in whole_units(stream, STYLES[style], sent) if is_key(unit)}
        assert back <= {unit.pts for unit in sink.units if is_key(unit)}
        # Open GOPs of H.264 leave a decoder in doubt about the order of pictures (section 8.2.1.1), whatever one does.
        if structure != "h264-open-gop":
            assert {stream.pictures[pts or 0] for pts in back} <= {picture for _, picture in shown}, name


def is_key(unit: AccessUnit) -> bool:
    return unit.codec.kind is VIDEO and unit.is_keyframe


def test_a_hole_of_unknown_length_before_an_open_gop() -> None:
    """H.265 counts pictures modulo 256 here: a decoder that was not told of the hole takes the count for another."""
    stream = coded("h265-open-gop", 14 * GOP, sound=False)
    sent = packets_of(stream)
    begin, end = 100 + 1 + 1.5 * GOP / 25, 100 + 1 + 8.5 * GOP / 25
    run = Run(formats=("flv", "ts"))
    shown = show(run, [one for one in sent if not begin <= one[1] < end])
    back = [picture for pts, picture in sorted(stream.pictures.items()) if pts / HZ >= 1 + 9 * GOP / 25]
    for found in shown.values():
        assert not strangers(stream, found)
        assert [picture for _, picture in found][-len(back) :] == back


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("fps", [25, 5])
@pytest.mark.parametrize("mark", [None, False, True])
@pytest.mark.parametrize("structure", ["h264", "h264-slices", "h265"])
def test_markers_and_rates_change_nothing(structure: str, style: str, fps: int, mark: bool | None) -> None:
    """Markers never set, or on every packet; pictures further apart than the silence that ends a unit."""
    stream = coded(structure)
    for seed, payload in ((0, 400), (1, 1_400), (2, 1_400), (3, 9_000)):
        sent = [
            (one, 100 + (at - 100) * 25 / fps) for one, at in packets_of(stream, STYLES[style], max_payload=payload)
        ]
        if mark is not None:
            sent = marked(sent, mark)
        (shown,) = show(Run(formats=("ts",)), lose(sent, 0.02, seed)).values()
        assert not strangers(stream, shown)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("seed", range(3))
def test_reordering_and_duplicates_leave_no_trace(structure: str, seed: int) -> None:
    sent = packets_of(coded(structure))
    clean, bad = Run(), Run()
    chance = random.Random(seed)
    twice = [one for packet in reorder(sent, 0.05, seed) for one in [packet] * (2 if chance.random() < 0.05 else 1)]
    assert twice != sent
    for run, packets in ((clean, sent), (bad, twice)):
        run.push(packets)
        run.finish()
    for name, viewer in clean.viewers.items():
        assert bad.viewers[name].data == viewer.data, name
    bad.receiver.settle_counts()
    assert bad.receiver.tally["rtp.lost"] == 0
    assert bad.receiver.tally["rtp.duplicate"] > 0
    assert bad.receiver.tally["rtp.reordered"] > 0


@pytest.mark.parametrize("structure", ["h264", "h264-b-frames", "h264-slices", "h265"])
@pytest.mark.parametrize("seed", range(3))
def test_pass_drops_only_units_with_a_hole(structure: str, seed: int) -> None:
    stream = coded(structure)
    clean = packets_of(stream)
    proof = len(
        [one for one in clean if one[1] < clean[0][1] + GOP / 25]
    )  # until the markers are trusted nothing is lost
    sent = clean[:proof] + lose(clean[proof:], 0.02, seed)
    run = Run("pass", formats=())
    sink = UnitSink()
    run.stream.attach(sink)
    run.push(sent)
    run.finish()
    expected = [unit for unit in whole_units(stream, PLAIN, sent) if unit.codec is not PCMA]
    assert [unit.pts for unit in sink.units if unit.codec is not PCMA] == [unit.pts for unit in expected]
    assert run.receiver.tally["receiver.freezes"] == 0


@pytest.mark.parametrize("structure", ["h264-open-gop", "h265-open-gop", "h264-b-frames"])
def test_who_joins_late_gets_no_picture_it_cannot_decode(structure: str) -> None:
    stream = coded(structure)
    sent = packets_of(stream)
    run = Run(formats=())
    viewers: list[tuple[str, Viewer]] = []
    for at, packet in enumerate(sent):
        run.push([packet])
        if at % 31 == 0 and run.stream.published:
            for name in ("flv", "mp4"):
                viewers.append((name, Viewer()))
                run.feeds.get(run.stream, name).attach(viewers[-1][1])
    run.finish()
    assert len(viewers) > 40
    for name, viewer in viewers:
        assert not strangers(stream, decode_strictly(viewer.data, FORMATS[name]))


def test_order_costs_no_time_and_a_hole_only_its_own() -> None:
    """Of a stream in order each unit leaves with its last packet, also soon after a hole."""
    stream = coded("h264")
    sent = packets_of(stream)
    run = Run("pass", formats=())
    came: list[tuple[int, float]] = []

    class Watch(UnitSink):
        def on_unit(self, unit: AccessUnit, track: object) -> None:
            came.append((unit.pts or 0, run.clock.now))

    run.stream.attach(Watch())
    hole = len(sent) // 2
    run.push(sent[:hole] + sent[hole + 1 :])
    run.finish()
    when = sent[hole][1]
    behind = [(100 + pts / HZ, at - (100 + pts / HZ)) for pts, at in came]
    settled = [late for time, late in behind if time > 100 + 1 + GOP / 25 and not when - 0.05 <= time <= when + 0.25]
    assert len(settled) > 100
    assert max(settled) < 0.001
    assert max(late for time, late in behind if time >= when) <= 0.2 + 0.001


def dressed(packets: Sequence[tuple[bytes, float]], seed: int) -> Sent:
    """The same payloads in packets of all kinds: CSRC, extension, padding, other payload types, empty ones between."""
    chance = random.Random(seed)
    out: Sent = []
    number = 65_000
    for packet, at in packets:
        if chance.random() < 0.2:  # keeps a hole in a NAT open
            out.append(
                (packet[:1] + bytes((packet[1] & 0x7F,)) + (number % 65_536).to_bytes(2, "big") + packet[4:12], at)
            )
            number += 1
        sources, extension, padding = chance.randrange(4), chance.randrange(3), chance.choice((0, 0, 1, 4, 255))
        first = 0x80 | sources | bool(extension) << 4 | bool(padding) << 5
        second = packet[1] & 0x80 | chance.choice((96, 97, 33, 127))
        data = bytes((first, second)) + (number % 65_536).to_bytes(2, "big") + packet[4:12] + b"\x07" * 4 * sources
        if extension:
            data += b"\xbe\xde" + (extension - 1).to_bytes(2, "big") + b"\0\0\1\xba" * (extension - 1)
        data += packet[12:] + (bytes(padding - 1) + bytes((padding,)) if padding else b"")
        out.append((data, at))
        number += 1
    return out


@pytest.mark.parametrize("payload", [100, 1_400, 9_000, 60_000])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("structure", ["h264-slices", "h265-b-frames"])
def test_the_dress_of_packets_changes_nothing(structure: str, style: str, payload: int) -> None:
    stream = coded(structure)
    sent = packets_of(stream, STYLES[style], max_payload=payload)
    clean, strange = Run(formats=("flv",)), Run(formats=("flv",))
    clean.push(sent)
    strange.push(dressed(sent, payload))
    for run in (clean, strange):
        run.finish()
    assert len(strange.viewers["flv"].data) > 10_000
    assert strange.viewers["flv"].data == clean.viewers["flv"].data


@pytest.mark.parametrize("seed", range(4))
def test_a_restart_amid_reordering_and_loss(seed: int) -> None:
    """The sequence begins anew, late packets of the old run come after: one restart, and no picture with a hole."""
    stream = coded("h264")
    sent = packets_of(stream, sequence=30_000)
    half = len(sent) // 2
    again = [
        (one[:2] + ((int.from_bytes(one[2:4], "big") - 25_000) % 65_536).to_bytes(2, "big") + one[4:], at)
        for one, at in sent[half:]
    ]
    run = Run(formats=("ts",))
    shown = show(run, lose(reorder([*sent[:half], *again], 0.05, seed, places=20), 0.005, seed))["ts"]
    assert not strangers(stream, shown)
    assert len(shown) > GOP // 2
    run.receiver.settle_counts()
    assert run.receiver.tally["rtp.restart"] == 1
