"""rota's figures beside the best rival's, and whether that is what we want."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import msgspec

from ..measure import Figures as Ours
from .harness import Figures as Theirs


class Row(msgspec.Struct):
    """`ratio`: rota's figure by the best rival's, so that more is better; of latencies and CPU the other way round."""

    goal: str
    rota: float
    best: float
    best_name: str
    ratio: float
    target: float
    met: bool


class Goal(msgspec.Struct, frozen=True):
    text: str
    case: str
    of_ours: Callable[[Ours], float]
    of_theirs: Callable[[Theirs], float]
    target: float
    durable_only: bool = False
    less_is_better: bool = False


GOALS = (
    Goal("end to end in bulk, jobs/s", "bulk", lambda ours: ours.ended_s, lambda theirs: theirs.bulk, 10),
    Goal("end to end in bulk, plain functions, jobs/s", "bulk-plain", lambda ours: ours.ended_s,
         lambda theirs: theirs.bulk, 10),
    Goal("drain of a backlog, jobs/s", "backlog", lambda ours: ours.ended_s, lambda theirs: theirs.drain, 8),
    Goal("64 calls in flight, jobs/s, by the best end to end", "in-flight", lambda ours: ours.enqueued_s,
         lambda theirs: theirs.bulk, 3),
    Goal("one synchronous producer, jobs/s, by the best durable", "producer", lambda ours: ours.enqueued_s,
         lambda theirs: theirs.one, 1, durable_only=True),
    Goal("the same loop in rota.pipeline(), jobs/s", "pipeline", lambda ours: ours.enqueued_s,
         lambda theirs: theirs.one, 1),
    Goal("idle latency p50 with rest, ms, by the best durable", "idle-paced", lambda ours: ours.p50_ms or 0.0,
         lambda theirs: theirs.p50_ms, 1, durable_only=True, less_is_better=True),
    Goal("CPU s per 1,000 jobs in bulk, everything, by the best durable", "bulk",
         lambda ours: sum(ours.cpu_us.values()) / 1000, lambda theirs: theirs.cpu_s, 10, durable_only=True,
         less_is_better=True),
)


def rows(ours: Sequence[Ours], theirs: Sequence[Theirs]) -> list[Row]:
    """Of medians over the rounds; a goal without figures on both sides is left out."""
    return [row for goal in GOALS if (row := _row(goal, ours, theirs)) is not None]


def _row(goal: Goal, ours: Sequence[Ours], theirs: Sequence[Theirs]) -> Row | None:
    mine = [goal.of_ours(figures) for figures in ours if figures.name == goal.case]
    rivals: dict[str, list[float]] = {}
    for figures in theirs:
        value = goal.of_theirs(figures)
        if value and (figures.durable or not goal.durable_only):
            rivals.setdefault(f"{figures.name}{', durable' if figures.durable else ''}", []).append(value)
    if not mine or not rivals:
        return None
    choose = min if goal.less_is_better else max
    medians = {name: statistics.median(values) for name, values in rivals.items()}
    name = choose(medians, key=medians.__getitem__)
    best = medians[name]
    value = statistics.median(mine)
    ratio = best / value if goal.less_is_better else value / best
    return Row(goal.text, round(value, 3), round(best, 3), name, round(ratio, 2), goal.target, ratio >= goal.target)
