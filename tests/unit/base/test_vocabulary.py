"""gbgw.base: codec rows, ticks, tally, errors."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.base import codec, errors, ticks
from gbgw.base.tally import Tally


def test_codec_rows_are_unique_and_survive_pickling() -> None:
    assert len({row.stream_type for row in codec.CODECS}) == len(codec.CODECS)
    assert len({row.name for row in codec.CODECS}) == len(codec.CODECS)
    for row in codec.CODECS:
        assert pickle.loads(pickle.dumps(row)) is row
    assert codec.BY_STREAM_TYPE[0x1B] is codec.H264
    assert codec.BY_STREAM_TYPE[0x90] is codec.PCMA


@given(st.sampled_from([16, 32, 33]), st.integers(0, 1 << 40), st.lists(st.integers(-(1 << 14), 1 << 14), max_size=50))
def test_unwrapping_follows_any_small_steps(bits: int, start: int, steps: list[int]) -> None:
    unwrapper = ticks.Unwrapper(bits)
    first = unwrapper.unwrap(start % (1 << bits))
    value = start
    for step in steps:
        value += step
        assert unwrapper.unwrap(value % (1 << bits)) - first == value - start


def test_rescaling_rounds_half_up() -> None:
    assert ticks.rescale(90_000, 1_000) == 1_000
    assert ticks.rescale(45, 1_000) == 1
    assert ticks.rescale(44, 1_000) == 0
    assert ticks.rescale(-90_000, 8_000) == -8_000


def test_a_tally_speaks_at_most_once_a_second_and_name() -> None:
    said: list[tuple[str, int, str]] = []
    tally = Tally(listener=lambda name, count, detail: said.append((name, count, detail)))
    for now in (0.0, 0.1, 0.9, 1.0, 1.1):
        tally.add("ps.malformed", detail=f"at {now}", now=now)
    assert said == [("ps.malformed", 1, "at 0.0"), ("ps.malformed", 3, "at 1.0")]
    assert tally["ps.malformed"] == 5


def test_a_child_tally_counts_for_its_parent() -> None:
    parent = Tally()
    child = Tally(parent)
    child.add("x", 2)
    child.add("x", 0)
    assert (parent["x"], child["x"]) == (2, 2)


def test_absorbing_takes_only_what_grew() -> None:
    tally = Tally()
    seen: dict[str, int] = {}
    tally.absorb({"a": 3}, seen)
    tally.absorb({"a": 5, "b": 1}, seen)
    assert dict(tally.counts) == {"a": 5, "b": 1}


@pytest.mark.parametrize(
    "kind", [errors.ConfigError, errors.MediaError, errors.PortsExhaustedError, errors.RequestError]
)
def test_errors_carry_a_code_and_a_remedy(kind: type[errors.GatewayError]) -> None:
    error = kind("it broke", remedy="mend it")
    assert error.code == kind.default_code
    assert str(error) == "it broke (mend it)"
    assert isinstance(error, errors.GatewayError)
