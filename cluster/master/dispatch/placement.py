"""Where a waiting bundle goes: whole to a node, or split, or nowhere for now. Pure.

Work waits for a slot, never for a node: what is larger than the room that anybody has is split to the slots that are
free (decision 0014). A whole bundle goes to a node that has nothing to do, or to free slots if its jobs are quick
(0003): what does not begin there soon, that node gives back. Who has no free slot, but room for what it gets through
soon, is not left to run dry: it gets a bundle that is larger than this room, too, if that is not much more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rota.client.model import JOBS_PER_BUNDLE, Mode

from ...state.throughput import WHOLE_SLICES
from .lanes import Item
from .members import NodeLoad
from .paces import Pace
from .rooms import Kind, Room
from .turns import Gate


class Give(NamedTuple):
    node: NodeLoad
    mode: Mode


class Cut(NamedTuple):
    """Into pieces of so many jobs (or larger ones, where there would be too many: these are cut again)."""

    size: int


def place(gate: Gate[Any], item: Item, allowed: int, *, careful: bool, pace: Pace, now: float) -> Give | Cut | None:
    """`allowed`: how many jobs limits admit, at least one. `careful`: only slots that are idle now, nothing ahead."""
    kind = Kind.IDLE if careful else Kind.AHEAD
    lost, pending, empty = item.token.lost > 0, item.pending, gate.wants_empty(now)
    rooms: list[Room] | None = None
    if lost or empty:       # seldom: looked for among all
        rooms = _rooms(gate, now, kind, lost=lost, empty=empty)
        best = max(rooms, key=lambda room: room[:2], default=None)
    else:
        best = gate.rooms.best(now, kind)
    if best is None:
        return None
    if pending == 1 or (not item.token.suspect and pending <= min(best.jobs, allowed)):
        return Give(best.node, best.mode)
    if rooms is None:
        rooms = gate.rooms.all(now, kind)
    return _in_parts(gate, item, allowed, rooms, careful=careful, pace=pace, now=now)


def _rooms(gate: Gate[Any], now: float, kind: Kind, *, lost: bool, empty: bool) -> list[Room]:
    return [
        room for room in gate.rooms.all(now, kind)
        if not (lost and room.node.alone) and not (empty and room.node.held)
    ]


def place_spare(gate: Gate[Any], item: Item, now: float) -> Give | Cut | None:
    """For a queue of which nothing runs, while all slots are taken: one job, to whom the most spare slots are left."""
    if item.token.lost:
        best = max(_rooms(gate, now, Kind.SPARE, lost=True, empty=False), key=lambda room: room.jobs, default=None)
    else:
        best = gate.rooms.best(now, Kind.SPARE)
    if best is None:
        return None
    if item.pending > 1:
        return Cut(1) if not gate.splitting else None
    return Give(best.node, best.mode)


def _in_parts(
    gate: Gate[Any], item: Item, allowed: int, rooms: Sequence[Room], *, careful: bool, pace: Pace, now: float
) -> Give | Cut | None:
    """It is more than anybody there has room for, or than may be given at once."""
    free = sum(slots for room in rooms if (slots := room.slots) > 0)
    best = max(rooms, key=lambda room: (room.slots > 0, room.is_here, room.slots, room.is_idle))
    ahead = 0 if careful or best.node.heavy[best.mode] else best.node.in_a_slice(best.mode, now)
    if item.pending <= allowed and not item.token.suspect:      # perhaps before it has run dry
        may_hold = WHOLE_SLICES * ahead - best.node.outstanding[best.mode]
        if item.pending <= min(may_hold, ahead if free or pace is Pace.SLOW else may_hold):
            return Give(best.node, best.mode)
        if not free and pace is Pace.SLOW and 0 < ahead <= may_hold:
            return Cut(_evenly(item.pending, ahead)) if not gate.splitting else None
    if gate.splitting >= min(allowed, free):
        return None             # (also if no slot is free at all: then there is room for it soon, or a slot)
    if item.token.suspect or item.pending > allowed:
        return Cut(1 if item.token.suspect or allowed < JOBS_PER_BUNDLE else JOBS_PER_BUNDLE)
    if item.pending <= best.jobs:
        return Give(best.node, best.mode)
    if pace is Pace.SLOW:
        return Cut(_evenly(item.pending, ahead))
    if best.is_idle or (pace is Pace.QUICK and not careful and not best.node.heavy[best.mode]):
        return Give(best.node, best.mode)
    return Cut(max(best.slots, ahead))


def _evenly(jobs: int, most: int) -> int:
    """Pieces of this size, none of them a small rest, hold at most so many each."""
    return -(-jobs // -(-jobs // max(1, most)))
