"""A flow drawn: as text, as DOT (Graphviz) and as Mermaid. Pure.

Jobs that are alike (of one task, behind the same others) are one box, however many they are.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from ..escape import escaped
from ..wire.views import FLOW_JOB_STATES, FlowView

LINES_MAX = 200
"""Boxes of a text drawing; more are counted."""

MARKS = {
    "ok": "●", "running": "◐", "claimed": "◔", "waiting": "○", "awaiting": "·", "failed": "✗", "cancelled": "–",
}
COLOURS = {
    "ok": "#2e7d4f", "running": "#2563c9", "claimed": "#2563c9", "waiting": "#8a6d1a", "awaiting": "#7a7f87",
    "failed": "#c2362b", "cancelled": "#7a7f87",
}


class Box(msgspec.Struct, frozen=True):
    """Jobs that are alike. `after`: boxes, by their numbers. `depth`: the longest way to it."""

    number: int
    task: str
    queue: str
    after: tuple[int, ...]
    depth: int
    states: Counter[str]
    first: str

    @property
    def count(self) -> int:
        return self.states.total()

    @property
    def state(self) -> str:
        """What it is shown as: the worst, or else the least advanced that moves."""
        for state in ("failed", "running", "claimed", "waiting", "awaiting", "ok"):
            if self.states[state]:
                return state
        return "cancelled"

    @property
    def title(self) -> str:
        return self.task + (f" ×{self.count:,}" if self.count > 1 else "")

    @property
    def words(self) -> str:
        """Its states, in words."""
        if self.count == 1:
            return self.state
        return ", ".join(f"{self.states[state]:,} {state}" for state in FLOW_JOB_STATES if self.states[state])


def boxes(view: FlowView) -> list[Box]:
    """In an order in which each stands behind those that it waits for."""
    numbers: dict[tuple[str, str, tuple[int, ...], str], int] = {}
    found: list[Box] = []
    of: list[int] = []          # part -> box
    for part in view.parts:
        after = tuple(sorted({of[place] for place in part.after if place < len(of)}))
        key = (part.task, part.queue, after, part.on_upstream)
        if key not in numbers:
            numbers[key] = len(found)
            depth = max((found[number].depth + 1 for number in after), default=0)
            found.append(Box(len(found), part.task, part.queue, after, depth, Counter(), part.ids[0]))
        of.append(numbers[key])
        found[numbers[key]].states.update(part.states)
    return found


def as_text(view: FlowView) -> str:
    """A line for each box, further in the further it is from the beginning."""
    every = boxes(view)
    rows = [
        (f"{'  ' * min(box.depth, 20)}{'└ ' if box.depth else ''}{MARKS[box.state]} {box.number + 1} {box.title}", box)
        for box in every[:LINES_MAX]
    ]
    width = max((len(text) for text, _ in rows), default=0)
    lines = []
    for text, box in rows:
        after = f"  after {', '.join(str(number + 1) for number in box.after)}" if box.after else ""
        lines.append(escaped(f"{text:{width}}  {box.words}{after}"))
    if len(every) > LINES_MAX:
        lines.append(f"… and {len(every) - LINES_MAX:,} more")
    return "\n".join(lines)


def as_dot(view: FlowView) -> str:
    """For `dot -Tsvg`."""
    lines = [f"digraph {_quoted(view.name)} {{", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    for box in boxes(view):
        label = _quoted(f"{box.title}\n{box.words}")
        lines.append(f'  n{box.number + 1} [label={label}, color="{COLOURS[box.state]}"];')
    lines += [f"  n{after + 1} -> n{box.number + 1};" for box in boxes(view) for after in box.after]
    return "\n".join([*lines, "}"])


def as_mermaid(view: FlowView) -> str:
    """For a page in Markdown."""
    lines = ["flowchart LR"]
    for box in boxes(view):
        lines.append(f'  n{box.number + 1}["{_entity(box.title)}<br/>{_entity(box.words)}"]:::{box.state}')
    lines += [f"  n{after + 1} --> n{box.number + 1}" for box in boxes(view) for after in box.after]
    states = {box.state for box in boxes(view)}
    lines += [f"  classDef {state} stroke:{COLOURS[state]}" for state in MARKS if state in states]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    inner = escaped(text, lines=True).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inner}"'


def _entity(text: str) -> str:
    return "".join(f"#{ord(char)};" if char in '"<>&#[]{}' else char for char in escaped(text))
