"""Jobs that take several slots of a node: where they go, and what is kept free for them. Pure.

They go where so many slots are idle now, and nothing is given ahead to a node that has one. Where others take each slot
as it comes free, none would ever have enough: what has waited for a while gets a node whose slots of its kind are given
to nothing else until there is room. (Those of the other kind are no use to it.)
"""

from __future__ import annotations

from rota.client.model import Mode

from .lanes import Item
from .members import Seat
from .placement import Cut, Give
from .turns import Gate, GateId

WAIT_S = 1.0
"""So long what is heavy waits for slots that come free by themselves."""


class Heavy:
    """Of one term. `place` is asked for what is at the head of its queue, and within its limits."""

    def __init__(self) -> None:
        self._since: dict[GateId, float] = {}       # what stands there waits since then
        self._kept: dict[GateId, tuple[Gate, Seat, Mode]] = {}

    def begin(self) -> None:
        """A pass begins: nodes that nothing waits for any more are for all again."""
        for gate, seat, mode in list(self._kept.values()):
            if not gate.queues or (seat, mode) not in gate.seats:
                self._leave(gate)
        if len(self._since) > 1_000:
            self._since = {id_: since for id_, since in self._since.items() if id_ in self._kept}

    def has_room(self, gate: Gate) -> bool:
        """Whether to look at what stands there."""
        return any(self._is_open(gate, seat, mode) for seat, mode in gate.seats)

    def _is_open(self, gate: Gate, seat: Seat, mode: Mode) -> bool:
        """Nothing keeps it from being given what waits there, if it has slots. (It may be kept for just that.)"""
        if seat.is_closed or mode not in seat.kept:
            return not seat.is_closed
        kept = self._kept.get(gate.id)
        return kept is not None and kept[1] is seat and kept[2] == mode

    def place(self, gate: Gate, item: Item, allowed: int, now: float) -> Give | Cut | None:
        """`allowed`: how many jobs limits admit, at least one."""
        weight = gate.id.lane.weight
        lost, empty = item.token.lost > 0, gate.wants_empty(now)
        rooms = [
            (seat.free(mode) // weight, seat, mode) for seat, mode in gate.seats
            if self._is_open(gate, seat, mode) and not (lost and seat.alone) and not (empty and seat.held)
        ]
        fits, seat, mode = max(rooms, key=lambda room: room[0], default=(0, None, None))
        if seat is None or mode is None or fits < 1:
            self._wait(gate, now)
            return None
        if item.pending > 1 and (item.token.suspect or item.pending > min(fits, allowed)):
            return Cut(1 if item.token.suspect else min(fits, allowed)) if not gate.splitting else None
        self._leave(gate)
        return Give(seat, mode)

    def _wait(self, gate: Gate, now: float) -> None:
        since = self._since.setdefault(gate.id, now)
        if now - since < WAIT_S or gate.id in self._kept:
            return
        open_ = [
            (seat.free(mode), seat, mode) for seat, mode in gate.seats
            if not (seat.is_closed or mode in seat.kept or seat.alone)
        ]
        if open_:
            _, seat, mode = max(open_, key=lambda one: one[0])
            seat.kept.add(mode)
            self._kept[gate.id] = (gate, seat, mode)

    def _leave(self, gate: Gate) -> None:
        self._since.pop(gate.id, None)
        if (kept := self._kept.pop(gate.id, None)) is not None:
            kept[1].kept.discard(kept[2])
