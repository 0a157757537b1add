"""The picture of `rota top`: a cluster at a moment. Whatever it shows is escaped (`terminal.styled`)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...telemetry.hour import Minute, quantile
from ...telemetry.overview import Overview
from ...telemetry.words import event_words, seconds
from ...terminal import styled

BLOCKS = " ▁▂▃▄▅▆▇█"
EVENTS = 8


def picture(seen: Overview, now_s: float) -> RenderableType:
    """`now_s`: by the clock of who looks."""
    parts: list[RenderableType] = [*_head(seen, now_s), "", _hour(seen.hour), "", _nodes(seen, now_s)]
    if seen.queues:
        parts += ["", _queues(seen)]
    if seen.history:
        parts += ["", *_events(seen, now_s)]
    return Group(*parts)


def _head(seen: Overview, now_s: float) -> list[Text]:
    since = f", since {seconds(now_s - seen.master_since)}" if seen.master_since is not None else ""
    master = (f"master {seen.master}{since}", "bold") if seen.master else ("no master", "bold red")
    totals, taken = seen.totals, seen.last_takeover
    lines = [styled((f"rota {seen.cluster}", "bold"), "  ", master)]
    if totals is None:
        lines.append(styled("queues are being counted"))
    else:
        lines.append(styled(
            f"waiting {'≥ ' if totals.at_least else ''}{totals.waiting:,} (oldest {seconds(totals.oldest_s)}), "
            f"scheduled {totals.scheduled:,}, awaiting others {totals.awaiting:,}, failed {totals.failed:,}"
        ))
    if taken is not None:
        words = event_words(taken.event, taken.fields)
        lines.append(styled(f"last takeover {seconds(now_s - taken.at)} ago: {words}"))
    if seen.store_in_use_bytes is not None:
        quota = f" of {seen.store_quota_bytes / 2**20:,.0f}" if seen.store_quota_bytes else ""
        lines.append(styled((f"etcd {seen.store_in_use_bytes / 2**20:,.1f}{quota} MiB in use", "dim")))
    return lines


def _hour(minutes: Sequence[Minute]) -> Table:
    waited: list[int] = []
    ran: list[int] = []
    for minute in minutes:
        waited, ran = _add(waited, minute.waited), _add(ran, minute.ran)
    grid = Table.grid(padding=(0, 2))
    for name, values, words in (
        ("ended", [it.ended for it in minutes], f"{sum(it.failed for it in minutes):,} of them failed"),
        ("enqueued", [it.enqueued for it in minutes], (
            f"95 % waited {seconds(quantile(waited, 0.95))}, ran {seconds(quantile(ran, 0.95))}"
        )),
    ):
        grid.add_row(styled((name, "dim")), styled(bars(values)))
        grid.add_row("", styled(f"{sum(values):,} in the hour; {words}"))
    return grid


def _add(one: list[int], other: list[int]) -> list[int]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return [count + (shorter[at] if at < len(shorter) else 0) for at, count in enumerate(longer)]


def bars(values: Sequence[float]) -> str:
    """One character each; what is not nothing is seen."""
    top = max(values, default=0)
    return "".join(BLOCKS[0 if not value else max(1, round(value / top * 8))] for value in values)


def _nodes(seen: Overview, now_s: float) -> Table:
    table = _table("node", "state", "busy>", "of>", "enqueued/s>", "ended/s>", "up>", "version")
    for node in seen.nodes:
        state = ("master", "bold yellow") if node.master else (node.state, "")
        table.add_row(
            styled(node.node), styled(state), _number(node.running), _number(sum(node.capacity.values())),
            _rate(node.enqueued_per_s), _rate(node.ended_per_s), styled(seconds(now_s - node.since)),
            styled(node.version),
        )
    return table


def _queues(seen: Overview) -> Table:
    table = _table("queue", "waiting>", "oldest>", "with nodes>", "scheduled>", "awaiting>", "failed>")
    for row in seen.queues:
        more = "≥ " if row.at_least else ""
        table.add_row(
            styled(row.queue), styled(f"{more}{row.waiting:,}"), styled(seconds(row.oldest_s)), _number(row.claimed),
            _number(row.scheduled), _number(row.awaiting), styled((f"{row.failed:,}", "red" if row.failed else "")),
        )
    return table


def _events(seen: Overview, now_s: float) -> list[Text]:
    return [
        styled((f"{seconds(max(now_s - it.at, 0.0)):>7} ago  ", "dim"), event_words(it.event, it.fields))
        for it in seen.history[:EVENTS]
    ]


def event_line(at: float, node: str, event: str, words: str) -> Text:
    """A line of `rota tail`."""
    when = time.strftime("%H:%M:%S", time.localtime(at)) if 0 < at < 1e11 else "--:--:--"
    style = "red" if event in ("node_gone", "took_over", "lease_expired") else ""
    return styled((f"{when} ", "dim"), (f"{node} ", "dim"), (words, style))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", no_wrap=True)
    return table


def _number(value: int | None) -> Text:
    return styled("–" if value is None else f"{value:,}")


def _rate(value: float | None) -> Text:
    return styled("–" if value is None else f"{value:,.1f}")
