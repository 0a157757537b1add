"""What people read: tables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from .floor import Floor
from .measure import ROLES, Figures

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("jobs", "enqueued/s", "ended/s", "p50 ms", "p99 ms", "jobs/bundle", "target", "bare etcd", "load")


def show(console: Console, figures: Sequence[Figures], floor: Floor) -> None:
    console.print(_rates(figures, floor))
    console.print(_costs(figures))
    if said := after_names(figures):
        console.print(said, soft_wrap=True)
    console.print(
        f"bare etcd in this run: a put takes {floor.put_p50_ms:.2f} ms (p99 {floor.put_p99_ms:.2f}; "
        f"{floor.paced_put_p50_ms:.2f} with a pause of 10 ms between two), so "
        f"{floor.put_s:,.0f}/s one at a time; {floor.grouped_put_s:,.0f} puts/s in transactions of 128; "
        f"{floor.lifecycle_s:,.0f} life cycles/s of 60-job bundles, or {60 * floor.lifecycle_s:,.0f} jobs/s",
        soft_wrap=True,
    )


def after_names(figures: Sequence[Figures]) -> str:
    """What is left of `bulk` when many names were used: 1 if nothing stays of them."""
    rows = {row.name: row for row in figures}
    if not {"bulk", "bulk-names"} <= rows.keys():
        return ""
    before, after = rows["bulk"], rows["bulk-names"]
    return (
        f"after many queue names, each used once, bulk makes {after.rate / before.rate:.2f} of its jobs/s of before, "
        f"at {after.cpu_us['node'] / max(before.cpu_us['node'], 1e-9):.2f} of the node's CPU a job"
    )


def _rates(figures: Sequence[Figures], floor: Floor) -> Table:
    table = Table(title="rates and latencies", title_justify="left")
    table.add_column("case")
    for name in COLUMNS:
        table.add_column(name, justify="right", overflow="fold")
    for row in figures:
        table.add_row(
            row.title, f"{row.jobs:,}", _rate(row.enqueued_s, row.by == "enqueued"),
            _rate(row.ended_s, row.by == "ended"), _ms(row.p50_ms), _ms(row.p99_ms), f"{row.jobs_per_bundle:.1f}",
            _target(row, floor), beside(row, floor), f"{row.load[0]:.1f}",
        )
    return table


def beside(row: Figures, floor: Floor) -> str:
    """The floor that belongs to a case."""
    if row.by == "latency":
        return f"{_put_ms(row, floor):.2f} ms"
    if row.name == "producer":
        return f"{floor.put_s:,.0f}"
    if row.jobs_per_bundle > 30:
        return f"{60 * floor.lifecycle_s:,.0f}"
    return f"{floor.grouped_put_s:,.0f} puts"


def _target(row: Figures, floor: Floor) -> str:
    if row.by == "latency" and row.p50_ms is not None:
        return f"{row.target:.0f} puts; is {row.p50_ms / _put_ms(row, floor):.1f}"
    return f"{row.target:,.0f}" if row.target else ""


def _put_ms(row: Figures, floor: Floor) -> float:
    """A bare put at the pace of the case: after a rest both take longer, as all that they wake has gone to sleep."""
    return floor.paced_put_p50_ms if row.name == "idle-paced" else floor.put_p50_ms


def _rate(value: float, headline: bool) -> str:
    return f"[bold]{value:,.0f}[/]" if headline else f"{value:,.0f}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _costs(figures: Sequence[Figures]) -> Table:
    title = "CPU microseconds per job (= ms per 1,000 jobs) by process, and etcd's work per job"
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    for role in ROLES:
        table.add_column(f"{role} us/job", justify="right")
    etcd = ("puts", "deletes", "ranges", "txns", "proposals", "fsyncs")
    for name in etcd:
        table.add_column(name, justify="right")
    for row in figures:
        table.add_row(
            row.name, *(f"{row.cpu_us[role]:,.0f}" for role in ROLES), *(f"{row.etcd[name]:.3f}" for name in etcd)
        )
    return table


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(str, row))
    return table


def wide_console() -> Console:
    """As wide as the terminal; where there is none, wide enough for our tables."""
    console = Console()
    return console if console.is_terminal else Console(width=170)


@contextlib.contextmanager
def step(console: Console, what: str) -> Iterator[None]:
    began = time.monotonic()
    with console.status(what):
        yield
    console.print(f"  {time.monotonic() - began:5.1f} s  {what}")


def write(console: Console, name: str, figures: object, also: Path | None) -> str:
    """Keep the figures as JSON among the results, and where the caller wants them; returns the stem of their name."""
    RESULTS.mkdir(exist_ok=True)
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    data = msgspec.json.format(msgspec.json.encode(figures))
    for path in filter(None, (RESULTS / f"{stem}.json", also)):
        path.write_bytes(data)
        console.print(f"figures: {path}", soft_wrap=True)
    return stem
