"""The next stream goes where there is most to spare."""

import pytest

from gbgw.worker.placement import STREAM_CPU, Load, choose


def test_the_least_loaded_gets_it() -> None:
    assert choose([Load(0, 0.6, 20), Load(1, 0.2, 40)]).number == 1


def test_loads_that_are_nearly_equal_are_told_apart_by_streams_then_bit_rate() -> None:
    assert choose([Load(0, 0.21, 12), Load(1, 0.22, 4)]).number == 1
    assert choose([Load(0, 0.2, 4, bitrate=9e6), Load(1, 0.2, 4, bitrate=4e6)]).number == 1
    assert choose([Load(1), Load(0)]).number == 0


def test_what_was_opened_since_the_measurement_counts() -> None:
    assert Load(0, 0.4, 10, 2).expected_cpu == pytest.approx(0.4 + 2 * 0.05)
    assert Load(0, 0.0, 3, 3).expected_cpu == pytest.approx(3 * STREAM_CPU)
    assert choose([Load(0, 0.1, 14, 10), Load(1, 0.2, 8)]).number == 1


def test_a_burst_of_streams_is_spread_before_anything_is_measured() -> None:
    streams = [0, 0, 0]
    for _ in range(30):
        streams[choose([Load(number, 0.0, count, count) for number, count in enumerate(streams)]).number] += 1
    assert streams == [10, 10, 10]


def test_one_that_refuses_is_the_last_resort() -> None:
    assert choose([Load(0, 0.1, 1, overloaded=True), Load(1, 0.9, 90)]).number == 1
    assert choose([Load(0, 0.9, 1, overloaded=True)]).number == 0


def test_nobody() -> None:
    with pytest.raises(ValueError):
        choose([])
