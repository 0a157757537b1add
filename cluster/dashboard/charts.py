"""The last hour, or as much of it as there is, as pictures: SVG, drawn on the server. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from ..telemetry.hour import Minute, quantile
from ..telemetry.words import seconds

WIDTH, HEIGHT = 480, 170
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 10, 22
PLOT_W, PLOT_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
FLOOR_S = 0.001
SPANS = ((10, 2), (30, 5), (60, 15))
"""Minutes that are drawn, and between two that are named: the fewest that hold all that has happened."""


class Bar(msgspec.Struct, frozen=True):
    x: float
    y: float
    width: float
    height: float
    kind: str


class Line(msgspec.Struct, frozen=True):
    name: str
    kind: str
    points: str
    dots: list[tuple[float, float]]


class Tick(msgspec.Struct, frozen=True):
    at: float
    text: str


class Chart(msgspec.Struct, frozen=True):
    """What a template draws. `name` and `title` say in words what is to be seen, `columns` what each minute says."""

    name: str
    title: str
    bars: list[Bar]
    lines: list[Line]
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    columns: list[tuple[float, str]]
    step: float
    is_empty: bool


def throughput(minutes: Sequence[Minute]) -> Chart:
    """Runs that ended, as bars; jobs enqueued, as a line. A minute each."""
    minutes = drawn(minutes)
    step = _step(minutes)
    top = nice_top(max((max(it.ended, it.enqueued) for it in minutes), default=0))
    bars, columns = [], []
    for place, minute in enumerate(minutes):
        below = 0
        for kind, count in (
            ("ok", minute.ok), ("retried", minute.retried + minute.cancelled), ("failed", minute.failed)
        ):
            if count:
                height = PLOT_H * count / top
                y = TOP + PLOT_H * (1 - (below + count) / top)
                bars.append(Bar(
                    round(_x(place, step) + 0.6, 1), round(y, 1), round(step - 1.2, 1), round(max(height, 1.0), 1), kind
                ))
                below += count
        columns.append((_x(place, step), (
            f"{clock(minute.at)}: {minute.enqueued:,} enqueued, {minute.ok:,} ok, {minute.failed:,} failed, "
            f"{minute.retried:,} tried again"
        )))
    enqueued = _line("enqueued", "enqueued", minutes, lambda it: float(it.enqueued), lambda value: 1 - value / top)
    total, failed = sum(it.ended for it in minutes), sum(it.failed for it in minutes)
    title = f"{total:,} runs ended, {failed:,} of them failed for good"
    ticks = [Tick(TOP + PLOT_H * (1 - share), shorter(top * share)) for share in (0, 0.5, 1)]
    empty = not total and not any(it.enqueued for it in minutes)
    return Chart("Throughput", title, bars, [] if empty else [enqueued], ticks, _hours(minutes), columns, step, empty)


def latency(minutes: Sequence[Minute]) -> Chart:
    """How long jobs waited and ran: the middle, and what 95 of 100 did not exceed. The scale is logarithmic."""
    minutes = drawn(minutes)
    step = _step(minutes)
    values = {
        name: [quantile(getattr(it, field), share) for it in minutes]
        for name, field, share in (
            ("wait, median", "waited", 0.5), ("wait, 95 %", "waited", 0.95), ("run, median", "ran", 0.5),
            ("run, 95 %", "ran", 0.95),
        )
    }
    known = [value for row in values.values() for value in row if value is not None]
    low = math.floor(math.log10(max(min(known, default=FLOOR_S), FLOOR_S)))
    high = max(math.ceil(math.log10(max(max(known, default=1.0), FLOOR_S))), low + 1)

    def y(value: float) -> float:
        return 1 - (math.log10(max(value, FLOOR_S)) - low) / (high - low)

    kinds = {"wait, median": "wait", "wait, 95 %": "wait far", "run, median": "run", "run, 95 %": "run far"}
    lines = [_line_of(name, kinds[name], row, y) for name, row in values.items() if any(it is not None for it in row)]
    columns = [
        (_x(place, step), f"{clock(minute.at)}: " + (", ".join(
            f"{name} {seconds(row[place])}" for name, row in values.items() if row[place] is not None
        ) or "nothing"))
        for place, minute in enumerate(minutes)
    ]
    wait = quantile(_total(minutes, "waited"), 0.95)
    ran = quantile(_total(minutes, "ran"), 0.95)
    title = f"95 of 100 jobs waited at most {seconds(wait)} and ran at most {seconds(ran)}"
    ticks = [
        Tick(TOP + PLOT_H * (1 - (power - low) / (high - low)), _power(power)) for power in range(low, high + 1)
    ]
    return Chart("Latency", title, [], lines, ticks, _hours(minutes), columns, step, not known)


def _total(minutes: Sequence[Minute], field: str) -> list[int]:
    counts: list[int] = []
    for minute in minutes:
        row = getattr(minute, field)
        counts += [0] * (len(row) - len(counts))
        for place, count in enumerate(row):
            counts[place] += count
    return counts


def _line(
    name: str, kind: str, minutes: Sequence[Minute], value: Callable[[Minute], float], y: Callable[[float], float]
) -> Line:
    return _line_of(name, kind, [value(it) for it in minutes], y)


def _line_of(name: str, kind: str, row: Sequence[float | None], y: Callable[[float], float]) -> Line:
    """Runs of minutes with a value; a lone one is a dot."""
    parts: list[list[tuple[float, float]]] = [[]]
    step = _step(row)
    for place, value in enumerate(row):
        if value is None:
            parts.append([])
        else:
            parts[-1].append((round(_x(place, step) + step / 2, 1), round(TOP + PLOT_H * min(max(y(value), 0), 1), 1)))
    path = " ".join(
        "M" + " L".join(f"{x},{at}" for x, at in part) for part in parts if len(part) > 1
    )
    return Line(name, kind, path, [part[0] for part in parts if len(part) == 1])


def drawn(minutes: Sequence[Minute]) -> Sequence[Minute]:
    """The last of them, from when something happened first."""
    first = next((place for place, minute in enumerate(minutes) if not minute.is_empty), 0)
    span = next((span for span, _ in SPANS if span >= len(minutes) - first), len(minutes))
    return minutes[-span:]


def _step(row: Sequence[object]) -> float:
    return PLOT_W / max(len(row), 1)


def _x(place: int, step: float) -> float:
    return round(LEFT + place * step, 1)


def _hours(minutes: Sequence[Minute]) -> list[Tick]:
    """Their clock, but not at the edges, where it would not fit."""
    step = _step(minutes)
    every = next((every for span, every in SPANS if span >= len(minutes)), SPANS[-1][1])
    named = ((_x(place, step) + step / 2, minute) for place, minute in enumerate(minutes) if minute.at % every == 0)
    return [Tick(round(at, 1), clock(minute.at)) for at, minute in named if LEFT + 20 < at < WIDTH - RIGHT - 15]


def _power(power: int) -> str:
    return seconds(10.0**power) if power < 3 else f"{10**power:,} s"


def clock(minute: int) -> str:
    return f"{minute // 60 % 24:02d}:{minute % 60:02d}"


def nice_top(value: float) -> float:
    """A round number that is not below."""
    if value <= 4:
        return 4.0
    power = 10 ** math.floor(math.log10(value))
    return float(next(step * power for step in (1, 2, 3, 4, 6, 8, 10) if step * power >= value))


def shorter(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
