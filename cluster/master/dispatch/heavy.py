"""Jobs that take several slots of a node: where they go, and what is kept free for them. Pure.

They go where so many slots are idle now, and nothing is given ahead to a node that has one. Where others take each slot
as it comes free, none would ever have enough: what has waited for a while gets a node whose slots of its kind are given
to nothing else until there is room. (Those of the other kind are no use to it.)
"""

from __future__ import annotations

from typing import Any

from rota.client.model import Mode

from .lanes import Item
from .members import NodeLoad
from .placement import Cut, Give
from .turns import Gate, GateId

WAIT_S = 1.0
"""So long what is heavy waits for slots that come free by themselves."""


class Heavy:
    """Of one term. `place` is asked for what is at the head of its queue, and within its limits."""

    def __init__(self) -> None:
        self._since: dict[GateId, float] = {}       # what stands there waits since then
        self._kept: dict[GateId, tuple[Gate[Any], NodeLoad, Mode]] = {}

    def begin(self) -> None:
        """A pass begins: nodes that nothing waits for any more are for all again."""
        for gate, node, mode in list(self._kept.values()):
            if not gate.queues or (node, mode) not in gate.nodes:
                self._leave(gate)
        if len(self._since) > 1_000:
            self._since = {id_: since for id_, since in self._since.items() if id_ in self._kept}

    def has_room(self, gate: Gate[Any]) -> bool:
        """Whether to look at what stands there."""
        return any(self._is_open(gate, node, mode) for node, mode in gate.nodes)

    def _is_open(self, gate: Gate[Any], node: NodeLoad, mode: Mode) -> bool:
        """Nothing keeps it from being given what waits there, if it has slots. (It may be kept for just that.)"""
        if node.is_closed or mode not in node.kept:
            return not node.is_closed
        kept = self._kept.get(gate.id)
        return kept is not None and kept[1] is node and kept[2] == mode

    def place(self, gate: Gate[Any], item: Item, allowed: int, now: float) -> Give | Cut | None:
        """`allowed`: how many jobs limits admit, at least one."""
        weight = gate.id.lane.weight
        lost, empty = item.token.lost > 0, gate.wants_empty(now)
        rooms = [
            (node.free(mode) // weight, node, mode) for node, mode in gate.nodes
            if self._is_open(gate, node, mode) and not (lost and node.alone) and not (empty and node.held)
        ]
        fits, node, mode = max(rooms, key=lambda room: room[0], default=(0, None, None))
        if node is None or mode is None or fits < 1:
            self._wait(gate, now)
            return None
        if item.pending > 1 and (item.token.suspect or item.pending > min(fits, allowed)):
            return Cut(1 if item.token.suspect else min(fits, allowed)) if not gate.splitting else None
        self._leave(gate)
        return Give(node, mode)

    def _wait(self, gate: Gate[Any], now: float) -> None:
        since = self._since.setdefault(gate.id, now)
        if now - since < WAIT_S or gate.id in self._kept:
            return
        open_ = [
            (node.free(mode), node, mode) for node, mode in gate.nodes
            if not (node.is_closed or mode in node.kept or node.alone)
        ]
        if open_:
            _, node, mode = max(open_, key=lambda one: one[0])
            node.kept.add(mode)
            self._kept[gate.id] = (gate, node, mode)

    def _leave(self, gate: Gate[Any]) -> None:
        self._since.pop(gate.id, None)
        if (kept := self._kept.pop(gate.id, None)) is not None:
            kept[1].keep_no_more(kept[2])
