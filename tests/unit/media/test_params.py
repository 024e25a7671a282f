import ast
import random
from pathlib import Path

import pytest

from gbgw._ps import AccessUnit
from gbgw.base import limits
from gbgw.base.codec import H264, H265, PCMA
from gbgw.media import params
from gbgw.media.params import AdtsSplitter
from tests.support import nal


class TestNalUnits:
    @pytest.mark.parametrize(
        ("stream", "expected"),
        [
            (b"", []),
            (b"\x67\x42", []),
            (b"\0\0\1", []),
            (b"\0\0\1\x67", [b"\x67"]),
            (b"\0\0\0\1\x67\x42\0\0\0\1\x68\xce", [b"\x67\x42", b"\x68\xce"]),
            (b"\xff\0\0\1\x67\x42\0\0\1\x68\xce\0", [b"\x67\x42", b"\x68\xce"]),
            (b"\0\0\1\0\0\1\0\0\0\1\x65\x88\0\0\0\0\0", [b"\x65\x88"]),
            (b"\0\0\1\x65\0\0\3\1\0\0\0\0\1\x41", [b"\x65\0\0\3\1", b"\x41"]),
        ],
    )
    def test_cuts(self, stream: bytes, expected: list[bytes]) -> None:
        assert [bytes(unit) for unit in params.nal_units(stream)] == expected

    def test_takes_access_units(self) -> None:
        unit = AccessUnit(b"\0\0\0\1\x09\xf0\0\0\1\x65\x88", H264, 0)
        assert [bytes(found) for found in params.nal_units(unit)] == [b"\x09\xf0", b"\x65\x88"]

    def test_is_bounded(self) -> None:
        assert len(list(params.nal_units(b"\0\0\1\x41" * (limits.NAL_UNITS + 10)))) == limits.NAL_UNITS
        assert list(params.nal_units(b"\0\0\1" * 2_000_000)) == []

    def test_a_long_zero_tail_is_cut(self) -> None:
        assert [bytes(unit) for unit in params.nal_units(b"\0\0\1\x65" + bytes(1 << 20))] == [b"\x65"]


@pytest.mark.parametrize(
    ("escaped", "rbsp"),
    [
        (b"\x67\0\0\3\1", b"\x67\0\0\1"),
        (b"\0\0\3\0\0\3\0\0\3", b"\0\0\0\0\0\0"),
        (b"\0\0\3\3", b"\0\0\3"),
        (b"\x67\x42", b"\x67\x42"),
        (b"\0\0\3", b"\0\0"),
    ],
)
def test_unescape(escaped: bytes, rbsp: bytes) -> None:
    assert params.unescape(escaped) == rbsp


class TestH264:
    def test_size_without_cropping(self) -> None:
        sps = params.parse_h264_sps(nal.h264_sps(width_mbs=20, height_map_units=15))
        assert sps is not None
        assert (sps.width, sps.height, sps.sps_id, sps.rfc6381) == (320, 240, 0, "avc1.4d001f")
        assert sps.frame_rate is None

    @pytest.mark.parametrize(
        ("chroma", "frames_only", "crop", "size"),
        [
            (1, True, (0, 0, 0, 4), (1_920, 1_080)),
            (1, False, (0, 0, 0, 2), (1_920, 2 * 1_088 - 8)),
            (2, True, (1, 1, 0, 8), (1_916, 1_080)),
            (3, True, (1, 2, 3, 5), (1_917, 1_080)),
            (0, True, (1, 2, 3, 5), (1_917, 1_080)),
        ],
    )
    def test_cropping_by_chroma_format(
        self, chroma: int, frames_only: bool, crop: tuple[int, int, int, int], size: tuple[int, int]
    ) -> None:
        data = nal.h264_sps(
            profile=244, chroma=chroma, frames_only=frames_only, crop=crop, width_mbs=120, height_map_units=68
        )
        sps = params.parse_h264_sps(data)
        assert sps is not None
        assert (sps.width, sps.height) == size

    @pytest.mark.parametrize(
        ("fields", "depth"),
        [
            ({"reorder": 2}, 2),
            ({"reorder": 0}, 0),
            ({}, None),
            ({"order": 2}, 0),
            ({"order": 1}, None),
            ({"profile": 66}, 0),
            ({"references": 0}, 0),
            ({"profile": 110, "constraints": 0x10}, 0),
            ({"profile": 100, "ticks": (1, 50)}, None),
        ],
    )
    def test_reorder_depth(self, fields: dict[str, int], depth: int | None) -> None:
        sps = params.parse_h264_sps(nal.h264_sps(**fields))  # type: ignore[arg-type]
        assert sps is not None
        assert sps.reorder_depth == depth

    def test_everything_at_once(self) -> None:
        data = nal.h264_sps(
            profile=100, scaling=True, order=1, ticks=(1_001, 60_000), hrd=True, reorder=3, sps_id=31, level=51
        )
        sps = params.parse_h264_sps(data)
        assert sps is not None
        assert (sps.reorder_depth, sps.sps_id, sps.rfc6381) == (3, 31, "avc1.640033")
        assert sps.frame_rate == pytest.approx(29.97, abs=0.001)

    def test_absurd_frame_rates_are_none(self) -> None:
        for ticks in ((0, 50), (1, 0xFFFF_FFFF), (0xFFFF_FFFF, 1)):
            sps = params.parse_h264_sps(nal.h264_sps(ticks=ticks, reorder=1))
            assert sps is not None
            assert sps.frame_rate is None
            assert sps.reorder_depth == 1

    def test_a_cut_vui_costs_only_the_vui(self) -> None:
        whole = nal.h264_sps(ticks=(1, 50), reorder=2)
        sps = params.parse_h264_sps(whole[:-3])
        assert sps is not None
        assert (sps.width, sps.height, sps.frame_rate, sps.reorder_depth) == (320, 240, 25.0, None)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x67",
            b"\x68\xce\x38\x80",
            nal.h264_sps()[:6],
            b"\xe7" + nal.h264_sps()[1:],
            b"\x67" + bytes(200),
            b"\x67\xff" * 3_000,
            nal.h264_sps(crop=(0, 200, 0, 0)),
            nal.h264_sps(width_mbs=2_000),
            nal.h264_sps(sps_id=32),
        ],
    )
    def test_damage_is_none(self, data: bytes) -> None:
        assert params.parse_h264_sps(data) is None


class TestH265:
    @pytest.mark.parametrize("scaling", [False, True])
    @pytest.mark.parametrize("predicted_sets", [False, True])
    def test_fields(self, predicted_sets: bool, scaling: bool) -> None:
        data = nal.h265_sps(ticks=(1_001, 30_000), predicted_sets=predicted_sets, scaling=scaling, sps_id=3)
        sps = params.parse_h265_sps(data)
        assert sps is not None
        assert (sps.width, sps.height, sps.reorder_depth, sps.sps_id) == (1_920, 1_080, 2, 3)
        assert sps.rfc6381 == "hvc1.1.6.L93.B0"
        assert sps.frame_rate == pytest.approx(29.97, abs=0.001)

    def test_sub_layers_count_by_the_highest(self) -> None:
        sps = params.parse_h265_sps(nal.h265_sps(sub_layers=2, reorder=(0, 1, 4), ticks=(1, 25)))
        assert sps is not None
        assert (sps.reorder_depth, sps.frame_rate) == (4, 25.0)

    @pytest.mark.parametrize(
        ("chroma", "size"), [(0, (1_918, 1_083)), (1, (1_916, 1_078)), (2, (1_916, 1_083)), (3, (1_918, 1_083))]
    )
    def test_window_by_chroma_format(self, chroma: int, size: tuple[int, int]) -> None:
        sps = params.parse_h265_sps(nal.h265_sps(chroma=chroma, window=(1, 1, 0, 5)))
        assert sps is not None
        assert (sps.width, sps.height) == size

    def test_a_cut_behind_the_ordering_costs_only_the_rate(self) -> None:
        sps = params.parse_h265_sps(nal.h265_sps(ticks=(1, 25))[:-8])
        assert sps is not None
        assert (sps.width, sps.reorder_depth, sps.frame_rate) == (1_920, 2, None)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x42",
            b"\x42\x01",
            nal.h265_sps()[:20],
            b"\x42\x01" + bytes(100),
            nal.h265_pps(),
            nal.h265_sps(window=(0, 2_000, 0, 0)),
        ],
    )
    def test_damage_is_none(self, data: bytes) -> None:
        assert params.parse_h265_sps(data) is None

    def test_video_parameter_set(self) -> None:
        vps = params.parse_h265_vps(nal.h265_vps(ticks=(1, 30), sub_layers=1))
        assert vps is not None
        assert (vps.vps_id, vps.frame_rate, vps.profile.rfc6381) == (0, 30.0, "hvc1.1.6.L93.B0")
        assert params.parse_h265_vps(nal.h265_sps()) is None
        assert params.parse_h265_vps(nal.h265_vps()[:8]) is None
        without_rate = params.parse_h265_vps(nal.h265_vps())
        assert without_rate is not None
        assert without_rate.frame_rate is None


def test_dispatch_by_codec() -> None:
    assert params.parse_sps(H264, nal.h264_sps()) == params.parse_h264_sps(nal.h264_sps())
    assert params.parse_sps(H265, nal.h265_sps()) == params.parse_h265_sps(nal.h265_sps())
    assert params.parse_sps(PCMA, nal.h264_sps()) is None


def test_parameter_set_keys() -> None:
    sets = [nal.h265_pps(5), nal.h265_sps(sps_id=2), nal.h265_vps()]
    assert [params.parameter_set_key(H265, found) for found in sets] == [(34, 5), (33, 2), (32, 0)]
    assert [params.parameter_set_key(H264, found) for found in (nal.h264_sps(sps_id=7), nal.h264_pps(200))] == [
        (7, 7),
        (8, 200),
    ]
    for codec, damaged in (
        (H264, b""),
        (H264, b"\x67\x4d\x00\x1f"),
        (H264, b"\x65\x88"),
        (H265, b"\x40\x01"),
        (H265, b"\x42\x01\x00"),
        (PCMA, b"\x67"),
    ):
        assert params.parameter_set_key(codec, damaged) is None


class TestAdts:
    def test_one_frame(self) -> None:
        splitter = AdtsSplitter()
        (frame,) = splitter.push(nal.adts(b"raw frame"))
        assert (frame.data, frame.sample_rate, frame.channels, frame.carried) == (b"raw frame", 44_100, 2, False)
        assert frame.config == b"\x12\x10"
        assert params.parse_audio_config(frame.config) == (44_100, 2)

    def test_crc_is_stripped(self) -> None:
        (frame,) = AdtsSplitter().push(nal.adts(b"raw", crc=True))
        assert frame.data == b"raw"

    def test_eight_channels_and_core_rate(self) -> None:
        (frame,) = AdtsSplitter().push(nal.adts(b"raw", layout=7, rate_index=11))
        assert (frame.channels, frame.sample_rate) == (8, 8_000)
        assert params.parse_audio_config(frame.config) == (8_000, 8)

    @pytest.mark.parametrize("cut", range(1, 60))
    def test_any_cut(self, cut: int) -> None:
        stream = nal.adts(b"first" * 3) + nal.adts(b"\xff\xf1\x50\x80 second") + nal.adts(b"third")
        splitter = AdtsSplitter()
        before, after = splitter.push(stream[:cut]), splitter.push(stream[cut:])
        assert [frame.data for frame in (*before, *after)] == [b"first" * 3, b"\xff\xf1\x50\x80 second", b"third"]
        assert all(not frame.carried for frame in before)
        starts = (0, 22, 40)
        assert [frame.carried for frame in after] == [start < cut for start in starts][len(before) :]

    def test_garbage_is_skipped_and_counted(self) -> None:
        splitter = AdtsSplitter()
        frames = splitter.push(b"garbage\xff\xff\xf1" + nal.adts(b"one") + nal.adts(b"two"))
        assert [frame.data for frame in frames] == [b"one", b"two"]
        assert splitter.skipped == 10

    def test_what_cannot_be_played_is_refused(self) -> None:
        splitter = AdtsSplitter()
        frames = splitter.push(nal.adts(b"layout", layout=0) + nal.adts(b"blocks", blocks=2) + nal.adts(b"good"))
        assert [frame.data for frame in frames] == [b"good"]
        assert (splitter.refused, splitter.skipped) == (2, 0)

    def test_holds_less_than_a_frame(self) -> None:
        splitter = AdtsSplitter()
        held = nal.adts(bytes(8_000))[:7_000]
        assert splitter.push(held) == []
        splitter.reset()
        assert splitter.skipped == 7_000
        assert [frame.data for frame in splitter.push(nal.adts(b"next"))] == [b"next"]

    @pytest.mark.parametrize("config", [b"", b"\x12", b"\x17\x90", b"\x12\x00", b"\x12\x48"])
    def test_foreign_configs_are_refused(self, config: bytes) -> None:
        assert params.parse_audio_config(config) is None


def _never_crashes(data: bytes) -> None:
    for codec in (H264, H265):
        params.parse_sps(codec, data)
        params.parameter_set_key(codec, data)
    params.parse_h265_vps(data)
    params.unescape(data)
    list(params.nal_units(data))
    params.parse_audio_config(data)
    splitter = AdtsSplitter()
    splitter.push(data)
    assert len(splitter._carry) <= 8_191


@pytest.mark.parametrize("seed", range(8))
def test_damaged_parameter_sets_never_crash(seed: int) -> None:
    chance = random.Random(seed)
    sources = [
        nal.h264_sps(profile=100, scaling=True, ticks=(1, 50), hrd=True, reorder=2),
        nal.h264_sps(order=1, crop=(0, 0, 0, 1)),
        nal.h265_sps(predicted_sets=True, scaling=True, ticks=(1, 25), sub_layers=2, reorder=(0, 1, 2)),
        nal.h265_vps(ticks=(1, 25)),
        nal.adts(b"raw") * 3,
    ]
    for _ in range(300):
        data = bytearray(chance.choice(sources))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.choice((0, 0xFF, chance.randrange(256)))
        _never_crashes(bytes(data[: chance.randrange(len(data) + 1)]))


@pytest.mark.fixtures
def test_fuzz_seeds_never_crash(fixtures_dir: Path) -> None:
    seeds = 0
    for path in sorted((fixtures_dir / "fuzz").rglob("*")):
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            if line.startswith("[]byte(") and line.endswith(")"):
                literal = ast.literal_eval(f"b{line[7:-1]}") if line[7:-1].isascii() else line[8:-2].encode()
                _never_crashes(literal)
                for head in (b"\x67", b"\x42\x01", b"\x40\x01", b"\0\0\1"):
                    _never_crashes(head + literal)
                seeds += 1
    assert seeds > 50
