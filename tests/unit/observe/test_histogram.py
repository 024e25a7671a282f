from hypothesis import given
from hypothesis import strategies as st

from gbgw.observe.histogram import Histogram


def test_bounds_are_upper_and_inclusive() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.buckets == ((1.0, 2), (2.0, 4), (float("inf"), 5))
    assert histogram.count == 5
    assert histogram.sum == 7.5


@given(st.lists(st.floats(-10, 10)))
def test_buckets_rise_to_the_count(values: list[float]) -> None:
    histogram = Histogram((-1.0, 0.0, 1.0))
    for value in values:
        histogram.observe(value)
    counts = [count for _, count in histogram.buckets]
    assert counts == sorted(counts)
    assert counts[-1] == histogram.count == len(values)
    for bound, count in histogram.buckets:
        assert count == sum(value <= bound for value in values)
