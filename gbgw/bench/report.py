"""What a benchmark found: figures with unit and note, the conditions beside them, as a table or as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from gbgw.bench.statistics import median

WIDTH = 150


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. name: unique in its report. value None: not measured, the note says why.

    spread: smallest and largest of several runs.
    """

    name: str
    value: float | None
    unit: str = ""
    note: str = ""
    spread: tuple[float, float] | None = None


@dataclass(slots=True)
class Report:
    """One benchmark's result. conditions: all that a repetition needs to know. warnings: why not to believe it."""

    title: str
    conditions: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, value: float | None, unit: str = "", note: str = "") -> None:
        self.figures.append(Figure(name, value, unit, note))

    def value(self, name: str) -> float:
        """Return a figure's value; KeyError where there is none."""
        for figure in self.figures:
            if figure.name == name and figure.value is not None:
                return figure.value
        raise KeyError(name)


def merge(reports: Sequence[Report]) -> Report:
    """Return the medians of several runs of one benchmark, each with its spread."""
    first = reports[0]
    if len(reports) == 1:
        return first
    merged = Report(first.title, first.conditions | {"runs": len(reports)})
    for figure in first.figures:
        found = [other.value for report in reports for other in report.figures if other.name == figure.name]
        values = [value for value in found if value is not None]
        middle = median(values) if values else None
        spread = (min(values), max(values)) if values else None
        merged.figures.append(Figure(figure.name, middle, figure.unit, figure.note, spread))
    for report in reports:
        merged.warnings += [warning for warning in report.warnings if warning not in merged.warnings]
    return merged


def show(reports: Sequence[Report], console: Console) -> None:
    """Print tables; several reports differ in what their titles say and share their conditions."""
    for report in reports:
        console.print(f"\n[bold]{report.title}[/bold]")
        table = Table(box=None, pad_edge=False, show_header=any(each.spread for each in report.figures))
        table.add_column("")
        table.add_column("median", justify="right", no_wrap=True)
        table.add_column("")
        table.add_column("min to max", no_wrap=True)
        table.add_column("", style="dim")
        for figure in report.figures:
            spread = f"{shown(figure.spread[0])} to {shown(figure.spread[1])}" if figure.spread else ""
            table.add_row(figure.name, shown(figure.value), figure.unit, spread, figure.note)
        console.print(table)
        for warning in report.warnings:
            console.print(f"[yellow]! {warning}[/yellow]")
    conditions = Table(box=None, pad_edge=False, show_header=False, style="dim")
    conditions.add_column("", no_wrap=True)
    conditions.add_column("")
    for name, value in reports[0].conditions.items():
        text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        conditions.add_row(name, text)
    console.print()
    console.print(conditions)


def shown(value: float | None) -> str:
    """Three significant digits, as far as a figure of this size deserves them."""
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}".replace(",", " ")
    size = abs(value)
    return (
        f"{value:.0f}"
        if size >= 1_000
        else f"{value:.1f}"
        if size >= 100
        else f"{value:.2f}"
        if size >= 1
        else f"{value:.3f}"
    )


def as_json(reports: Sequence[Report], runs: Sequence[Sequence[Report]]) -> str:
    """Everything, each single run included."""

    def plain(report: Report) -> Mapping[str, Any]:
        figures = [
            {"name": each.name, "value": each.value, "unit": each.unit, "note": each.note, "spread": each.spread}
            for each in report.figures
        ]
        return {"title": report.title, "figures": figures, "warnings": report.warnings}

    document = {
        "conditions": reports[0].conditions if reports else {},
        "reports": [plain(report) for report in reports],
        "runs": [[plain(report) for report in run] for run in runs],
    }
    return json.dumps(document, ensure_ascii=False, indent=2)
