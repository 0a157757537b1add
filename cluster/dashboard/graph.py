"""A flow as a picture: SVG, laid out on the server. Pure.

Boxes (`api.drawing`) stand in columns by how far they are from the beginning; within a column near those that
they wait for.
"""

from __future__ import annotations

import msgspec

from rota.client.api.drawing import Box, boxes
from rota.client.wire.views import FlowView

WIDTH, HEIGHT = 210, 54
GAP_X, GAP_Y = 64, 18
MARGIN = 8
BOXES_MAX = 300
"""More are not drawn: the table has them."""

CHARS = 28


class Drawn(msgspec.Struct, frozen=True):
    """A box. `shares`: how much of it is in which state, as (x, width, state)."""

    x: int
    y: int
    title: str
    words: str
    state: str
    job: str
    count: int
    shares: list[tuple[float, float, str]]


class Graph(msgspec.Struct, frozen=True):
    width: int
    height: int
    boxes: list[Drawn]
    edges: list[tuple[str, str]]
    """(path, state of where it comes from)"""
    left_out: int


def graph(view: FlowView) -> Graph:
    every = boxes(view)
    shown = every[:BOXES_MAX]
    rows = _rows(shown)
    at = {box.number: (MARGIN + box.depth * (WIDTH + GAP_X), MARGIN + rows[box.number] * (HEIGHT + GAP_Y))
          for box in shown}
    drawn = [_drawn(box, *at[box.number]) for box in shown]
    edges = [
        (_path(at[after], at[box.number]), shown[after].state) for box in shown for after in box.after if after in at
    ]
    width = max((x for x, _ in at.values()), default=0) + WIDTH + MARGIN
    height = max((y for _, y in at.values()), default=0) + HEIGHT + MARGIN
    return Graph(width, height, drawn, edges, len(every) - len(shown))


def _rows(shown: list[Box]) -> dict[int, int]:
    """In each column the boxes stand in the order of the mean row of what they wait for."""
    rows: dict[int, int] = {}
    columns: dict[int, list[Box]] = {}
    for box in shown:
        columns.setdefault(box.depth, []).append(box)
    for _, column in sorted(columns.items()):
        def wanted(box: Box) -> float:
            before = [rows[number] for number in box.after if number in rows]
            return sum(before) / len(before) if before else box.number

        for row, box in enumerate(sorted(column, key=lambda box: (wanted(box), box.number))):
            rows[box.number] = row
    return rows


def _drawn(box: Box, x: int, y: int) -> Drawn:
    shares, at = [], 0.0
    for state, count in box.states.most_common():
        width = round((WIDTH - 2) * count / box.count, 1)
        shares.append((round(x + 1 + at, 1), width, state))
        at += width
    task = box.task.rpartition(":")[2] or box.task
    more = f" ×{box.count:,}" if box.count > 1 else ""
    title = (task if len(task) + len(more) <= CHARS else task[: CHARS - len(more) - 1] + "…") + more
    words = box.words if len(box.words) <= CHARS + 8 else box.words[: CHARS + 7] + "…"
    return Drawn(x, y, title, words, box.state, box.first, box.count, shares)


def _path(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH, start[1] + HEIGHT // 2, end[0], end[1] + HEIGHT // 2
    bend = (x2 - x1) // 2
    return f"M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}"
