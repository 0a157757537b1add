"""Which gates are open: whether any node there may be given something now. Pure."""

from __future__ import annotations

from typing import Any

from rota.client.model import JOBS_PER_BUNDLE

from .heavy import Heavy
from .lane_ids import LaneId
from .limits import Limits
from .rates import Rates
from .rooms import Kind
from .turns import Gate

CAREFUL_BELOW = 2 * JOBS_PER_BUNDLE
"""Of what limits admit: nothing is given ahead then, only slots that are idle now count."""


class Openings:
    """Of one term. `begin` a pass before asking."""

    def __init__(self, limits: Limits, rates: Rates, heavy: Heavy) -> None:
        self._limits = limits
        self._rates = rates
        self._heavy = heavy
        self._wall_ms = 0

    def begin(self, wall_ms: int) -> None:
        self._wall_ms = wall_ms

    def has_room(self, gate: Gate[Any], now: float) -> bool:
        """Whether any node there may be given something now."""
        lane = gate.id.lane
        left = self._limits.left_of_task(lane.task)
        if left <= 0 or (self._rates.any and self._rates.of_task(lane.task, self._wall_ms) <= 0):
            return False
        if lane.alone:
            return self._has_room_alone(gate, now)
        if lane.weight > 1:
            return self._heavy.has_room(gate)
        return gate.rooms.best(now, Kind.IDLE if self.careful(lane, left) else Kind.AHEAD) is not None

    def _has_room_alone(self, gate: Gate[Any], now: float) -> bool:
        """Likewise, for what was lost while it ran: a node that has nothing else; after a while, no other such job."""
        nodes = [node for node, mode in gate.nodes if node.idle(mode) > 0 and not node.alone]
        if any(not node.held for node in nodes):
            gate.alone_since = None
            return True
        if gate.alone_since is None:
            gate.alone_since = now
        return bool(nodes) and not gate.wants_empty(now)

    def careful(self, lane: LaneId, left: int) -> bool:
        """`left`: how many jobs the task's limit admits."""
        return bool(lane.care) or left < CAREFUL_BELOW or (lane.keyed and self._limits.per_key(lane.task)) or (
            self._rates.any and self._rates.limits(lane.task)
        )
