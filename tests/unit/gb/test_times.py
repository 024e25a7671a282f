"""Local time on the wire, Unix seconds inside."""

import pytest

from gbgw.gb import times

NOON = 1_770_091_200  # 2026-02-03T12:00:00 in Beijing


def test_what_is_written_is_what_the_schema_wants() -> None:
    assert times.write_local(NOON) == "2026-02-03T12:00:00"
    assert times.read_local(times.write_local(NOON)) == NOON


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-02-03T12:00:00", NOON),
        (" 2026-02-03 12:00:00 ", NOON),
        ("2026-2-3T12:0:0", NOON),
        ("2026-02-03T12:00:00.999", NOON),
        ("2026-02-03T04:00:00Z", NOON),
        ("2026-02-03T05:00:00+01:00", NOON),
        ("2026-02-03T00:00:00-0400", NOON),
        ("2026/02/03 12:00", NOON),
        ("2026-02-03", NOON - 43_200),
        ("2026-02-03T24:00:00", NOON + 43_200),
        ("", None),
        ("yesterday", None),
        ("2026-13-03T12:00:00", None),
        ("2026-02-30T12:00:00", None),
        ("2026-02-03T25:00:00", None),
        ("2026-02-03T12:61:00", None),
        ("0000-00-00T00:00:00", None),
        ("2026-02-03T12:00:00+99:99", None),
        ("9999-12-31T24:00:00", None),
        ("２０２６-02-03", None),
    ],
)
def test_reading_forgives_what_devices_write(text: str, seconds: int | None) -> None:
    assert times.read_local(text) == seconds


def test_spans_are_cut_at_the_midnights_of_beijing() -> None:
    midnight = NOON + 43_200
    assert times.days(NOON, NOON + 60) == [(NOON, NOON + 60)]
    assert times.days(NOON, midnight) == [(NOON, midnight)]
    assert times.days(NOON, midnight + 86_401) == [
        (NOON, midnight),
        (midnight, midnight + 86_400),
        (midnight + 86_400, midnight + 86_401),
    ]
    assert times.days(NOON, NOON) == []
