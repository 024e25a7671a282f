import io
import json

import pytest
from rich.console import Console

from gbgw.bench.report import Report, as_json, merge, show, shown


def report(value: float | None, warning: str = "") -> Report:
    made = Report("title", {"command": "gbgw bench x", "config": ("a=1", "b=2")})
    made.add("CPU", value, "ms", "a note")
    made.add("always", 1)
    if warning:
        made.warnings.append(warning)
    return made


def test_medians_of_runs_have_a_spread() -> None:
    merged = merge([report(3.0, "odd"), report(1.0), report(2.0, "odd")])
    assert merged.value("CPU") == 2.0
    assert merged.figures[0].spread == (1.0, 3.0)
    assert merged.warnings == ["odd"]
    assert merged.conditions["runs"] == 3


def test_what_was_not_measured_stays_empty() -> None:
    merged = merge([report(None), report(None)])
    with pytest.raises(KeyError):
        merged.value("CPU")
    assert merge([report(None), report(5.0)]).value("CPU") == 5.0


def test_table_and_json_say_the_same() -> None:
    out = io.StringIO()
    runs = [[report(3.0)], [report(1.0, "beware")]]
    merged = [merge([run[0] for run in runs])]
    show(merged, Console(file=out, width=120))
    for word in ("title", "CPU", "2", "1 to 3", "a note", "! beware", "gbgw bench x", "a=1 b=2"):
        assert word in out.getvalue()
    document = json.loads(as_json(merged, runs))
    assert document["reports"][0]["figures"][0]["value"] == 2.0
    assert [run[0]["figures"][0]["value"] for run in document["runs"]] == [3.0, 1.0]
    assert document["conditions"]["command"] == "gbgw bench x"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (12_345.0, "12 345"),
        (1234.56, "1235"),
        (123.45, "123.5"),
        (1.234, "1.23"),
        (0.1234, "0.123"),
    ],
)
def test_three_digits(value: float | None, text: str) -> None:
    assert shown(value) == text
