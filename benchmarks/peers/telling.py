"""What people read of it: tables, a chart of bars, and the block of docs/performance.md that a run writes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from ..chart import sheet
from .facts import Facts
from .goals import Row
from .harness import Figures

DOCS = Path(__file__).parents[2] / "docs"
PAGE, CHART = DOCS / "performance.md", DOCS / "peers.svg"
BEGIN, END = "<!-- begin: written by `make bench-peers` -->", "<!-- end -->"

OURS, THEIRS, DURABLE = "#f58518", "#9d9da1", "#4c78a8"


class Report(msgspec.Struct):
    at: str
    seconds: float
    quick: bool
    rounds: int
    machine: dict[str, object]
    rows: list[Row]
    rivals: list[Figures]
    facts: Facts

    @property
    def caption(self) -> str:
        machine = self.machine
        return (
            f"{self.at}, {machine['cpus']} cores ({machine['cpu']}), everything on one machine, {self.rounds} rounds"
            f"{', quick: no figures to compare' if self.quick else ''}; load before {machine['load']}"
        )


def cells(row: Row) -> tuple[str, ...]:
    judged = row.rota if row.best is None and row.ratio is None else row.ratio
    goal = f"{'at least' if row.relation == '>=' else 'at most'} {row.target:,g}"
    said = "met" if row.met else "**not met**" if judged is not None and not row.why else row.why
    return (
        row.goal, _number(row.rota, row.unit), f"{row.best_name} {_number(row.best, row.unit)}".strip(),
        "" if row.ratio is None else f"{row.ratio:.2f}", goal, said,
    )


HEAD = ("", "rota", "beside", "ratio", "goal", "")


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def rival_cells(figures: Sequence[Figures]) -> list[tuple[str, ...]]:
    """A row for each, of medians."""
    found = []
    for title in dict.fromkeys(of.title for of in figures):
        mine = [of for of in figures if of.title == title]
        middle = [statistics.median(getattr(of, name) for of in mine) for name in
                  ("one", "bulk", "drain", "p50_ms", "cpu_s")]
        found.append((title, *(f"{value:,.0f}" for value in middle[:3]), f"{middle[3]:.1f}", f"{middle[4]:.3f}"))
    return found


RIVAL_HEAD = ("", "one after another/s", "end to end/s", "drain/s", "p50 ms", "CPU s per 1,000")


def show(console: Console, report: Report) -> None:
    if report.rivals:
        table = Table(*RIVAL_HEAD, title="rivals, medians", title_justify="left")
        for row in rival_cells(report.rivals):
            table.add_row(*row)
        console.print(table)
    table = Table(*HEAD, title="goals", title_justify="left")
    for goal in report.rows:
        table.add_row(*(cell.replace("**", "").replace("`", "") for cell in cells(goal)), style=_style(goal))
    console.print(table)
    measured = [row for row in report.rows if not row.why]
    console.print(f"{sum(row.met for row in measured)} of {len(measured)} goals met, {len(report.rows)} in all; "
                  f"{report.seconds:,.0f} s")


def _style(row: Row) -> str:
    return "" if row.met else "dim" if row.why else "bold red"


def picture(report: Report) -> str:
    bulk, cpu = [], []
    for title in dict.fromkeys(of.title for of in report.rivals):
        mine = [of for of in report.rivals if of.title == title]
        colour = DURABLE if mine[0].durable else THEIRS
        bulk.append((title, [(statistics.median(of.bulk for of in mine), colour)]))
        cpu.append((title, [(1e3 * statistics.median(of.cpu_s for of in mine), colour)]))
    for name, fact in (("rota, async def", "bulk"), ("rota, plain functions", "bulk-plain")):
        if values := report.facts.get(fact):
            bulk.append((name, [(statistics.median(values), OURS)]))
    if values := report.facts.get("cpu-s"):
        cpu.append(("rota, async def", [(1e3 * statistics.median(values), OURS)]))
    bulk.sort(key=lambda bar: -bar[1][0][0])
    cpu.sort(key=lambda bar: bar[1][0][0])
    legend = {"rota (each commit on disk)": OURS, "each commit on disk": DURABLE, "kept in memory": THEIRS}
    panels = [("end to end, jobs per second", bulk), ("CPU per job, microseconds, all processes", cpu)]
    return sheet(panels, legend, report.caption)


def tell_docs(report: Report) -> None:
    """Put the tables into docs/performance.md, and the chart beside it."""
    CHART.write_text(picture(report))
    lines = [f"![rota beside other queues]({CHART.name})", "", f"{report.caption}; {report.seconds:,.0f} s.", ""]
    lines += _table(HEAD, [cells(row) for row in report.rows])
    lines += ["", "The others, each at its best settings (`benchmarks/peers/roster.py`), medians:", ""]
    lines += _table(RIVAL_HEAD, rival_cells(report.rivals))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{rest.partition(END)[2]}"]))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lined = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return ["| " + " | ".join(row) + " |" for row in lined]
