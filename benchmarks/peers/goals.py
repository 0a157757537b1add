"""Every goal of speed, its figure, and whether it is met.

Most goals set a figure of rota's beside the best rival's; some beside something else of the same run (bare puts of the
store, a `ProcessPoolExecutor`, an empty store), and some are a number.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from .harness import Figures

Facts = Mapping[str, Sequence[float]]
"""What was measured of rota, by name: one value a round."""

Relation = Literal[">=", "<="]


class Row(msgspec.Struct):
    """`ratio`: rota's figure by `best`, and by nothing where the goal is a number. `why`: why there is no figure."""

    goal: str
    unit: str
    rota: float | None
    best: float | None
    best_name: str
    ratio: float | None
    relation: Relation
    target: float
    met: bool
    why: str = ""


class Goal(msgspec.Struct, frozen=True):
    """`fact` by the best of `rivals`, or by the fact `beside`, or by itself."""

    text: str
    unit: str
    fact: str
    relation: Relation
    target: float
    rivals: Callable[[Figures], float] | None = None
    durable_only: bool = False
    beside: str = ""
    beside_name: str = ""


def _bulk(theirs: Figures) -> float:
    return theirs.bulk


GOALS = (
    Goal("end to end, bulk, `async def`, by the best of any kind", "jobs/s", "bulk", ">=", 10, _bulk),
    Goal("the same, plain functions", "jobs/s", "bulk-plain", ">=", 10, _bulk),
    Goal("end to end, bulk, by the best durable", "jobs/s", "bulk", ">=", 10, _bulk, durable_only=True),
    Goal("drain of a backlog", "jobs/s", "backlog", ">=", 8, lambda theirs: theirs.drain),
    Goal("64 calls in flight, one process, by the best end to end", "jobs/s", "in-flight", ">=", 3, _bulk),
    Goal("64 processes, one call each", "jobs/s", "processes", ">=", 3_000),
    Goal("one synchronous producer, by sequential bare puts", "jobs/s", "producer", ">=", 0.6, beside="puts",
         beside_name="bare puts"),
    Goal("the same loop in `rota.pipeline()`", "jobs/s", "pipeline", ">=", 10_000),
    Goal("idle, 10 ms of rest: enqueue to result, p50, by bare puts", "ms", "idle-paced", "<=", 2.5,
         beside="paced-put-ms", beside_name="a bare put"),
    Goal("idle: enqueue to the job's first line, p50, by the best durable", "ms", "first-line", "<=", 1,
         lambda theirs: theirs.p50_ms, durable_only=True),
    Goal("the same, level `none`, by the best of any kind", "ms", "first-line-none", "<=", 1,
         lambda theirs: theirs.p50_ms),
    Goal("CPU of everything for 1,000 jobs, bulk, by the least of any kind", "s", "cpu-s", "<=", 0.1,
         lambda theirs: theirs.cpu_s),
    Goal("real work: the demo's files, wall time by `ProcessPoolExecutor`", "s", "work-s", "<=", 1.15,
         beside="pool-s", beside_name="ProcessPoolExecutor"),
    Goal("`async def` that computes: 2 processes by 1", "jobs/s", "two-loops", ">=", 1.8, beside="one-loop",
         beside_name="1 process"),
    Goal("master's CPU a job, 10 nodes by 2 (simulated)", "us", "master-us-10", "<=", 1.2, beside="master-us-2",
         beside_name="2 nodes"),
    Goal("master's CPU a job, 50 nodes by 2 (simulated)", "us", "master-us-50", "<=", 1.2, beside="master-us-2",
         beside_name="2 nodes"),
    Goal("a new master's first claim, many waiting", "s", "first-claim-many-s", "<=", 1.0),
    Goal("lone jobs enqueued with a backlog, by an empty store", "jobs/s", "enqueued-full", ">=", 0.95,
         beside="enqueued-empty", beside_name="empty store"),
    Goal("lone jobs begun with a backlog, by an empty store", "jobs/s", "begun-full", ">=", 0.95,
         beside="begun-empty", beside_name="empty store"),
    Goal("a new master's first claim, a backlog of lone jobs", "s", "first-claim-s", "<=", 0.5),
)


def rows(facts: Facts, theirs: Sequence[Figures]) -> list[Row]:
    """A row for every goal, of medians over the rounds."""
    return [_row(goal, facts, theirs) for goal in GOALS]


def _row(goal: Goal, facts: Facts, theirs: Sequence[Figures]) -> Row:
    row = Row(goal.text, goal.unit, None, None, "", None, goal.relation, goal.target, False)
    if not (mine := facts.get(goal.fact)):
        row.why = "not measured in this run"
        return row
    rota = row.rota = statistics.median(mine)
    judged = rota
    if goal.rivals is not None or goal.beside:
        best = _best(goal, theirs) if goal.rivals is not None else _beside(goal, facts)
        if best is None:
            row.why = "nothing to compare with was measured in this run"
            return row
        row.best_name, row.best = best
        judged = row.ratio = _in_pairs(mine, facts.get(goal.beside, ())) or rota / row.best
    row.met = judged >= goal.target if goal.relation == ">=" else judged <= goal.target
    return row


def _in_pairs(mine: Sequence[float], beside: Sequence[float]) -> float | None:
    """The median of the turns' ratios: the two of a turn were measured one after the other, and the machine may be
    slower an hour later."""
    if len(mine) != len(beside):
        return None
    return statistics.median(ours / theirs for ours, theirs in zip(mine, beside, strict=True))


def _beside(goal: Goal, facts: Facts) -> tuple[str, float] | None:
    values = facts.get(goal.beside)
    return (goal.beside_name, statistics.median(values)) if values else None


def _best(goal: Goal, theirs: Sequence[Figures]) -> tuple[str, float] | None:
    assert goal.rivals is not None
    found: dict[str, list[float]] = {}
    for figures in theirs:
        value = goal.rivals(figures)
        if value and (figures.durable or not goal.durable_only):
            found.setdefault(figures.title, []).append(value)
    if not found:
        return None
    medians = {name: statistics.median(values) for name, values in found.items()}
    name = (max if goal.relation == ">=" else min)(medians, key=medians.__getitem__)
    return name, medians[name]
