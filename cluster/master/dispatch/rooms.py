"""Which of the nodes of a gate has most room, without a look at each of them. Pure.

They stand in a heap by the room they had when they were last looked at. With time, and with each claim that they are
given, they have less: who comes up first is looked at again, and put where he belongs. Whatever gives a node more room
is told (`Gains`), but for the end of its being passed over, which is a time known beforehand.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from rota.client.model import Mode

if TYPE_CHECKING:
    from .members import NodeLoad

GAINS_KEPT = 1_000
"""Who has not read on for longer looks at all of his nodes afresh."""

HERE, AWAY, FULL = range(3)

Rank: TypeAlias = tuple[int, int]
"""(HERE, AWAY or FULL, jobs less than none): the smallest is the best."""


class Room(NamedTuple):
    """So many more jobs a node may be given, and how it runs them. `is_here`: it has not just given something back, nor
    runs what should be alone."""

    is_here: bool
    jobs: int
    node: NodeLoad
    mode: Mode

    @property
    def slots(self) -> int:
        return self.node.idle(self.mode)

    @property
    def is_idle(self) -> bool:
        return not self.node.outstanding[self.mode]


class Kind(Enum):
    """What counts. `AHEAD`: also what a node gets through soon. `IDLE`: only slots that are idle now. `SPARE`: slots
    for queues of which nothing runs."""

    AHEAD = "ahead"
    IDLE = "idle"
    SPARE = "spare"


def room_of(node: NodeLoad, mode: Mode, now: float, kind: Kind) -> Room:
    if kind is Kind.SPARE:
        return Room(True, node.spare(mode), node, mode)
    jobs = node.idle(mode) if kind is Kind.IDLE else node.room(mode, now)
    return Room(node.away_until[mode] <= now and not node.alone, jobs, node, mode)


class Gains:
    """Nodes that have got more room, one after another, of one term. Readers keep their place."""

    def __init__(self) -> None:
        self.first = 0                      # the number of the oldest that is kept
        self.nodes: list[NodeLoad] = []

    def note(self, node: NodeLoad) -> None:
        if len(self.nodes) >= GAINS_KEPT:
            self.clear()
        self.nodes.append(node)

    def clear(self) -> None:
        self.first += len(self.nodes)
        self.nodes.clear()


class Rooms:
    """Those of certain nodes; gates with the same nodes share them."""

    __slots__ = ("__weakref__", "_gains", "_rankings", "nodes")

    def __init__(self, nodes: Sequence[tuple[NodeLoad, Mode]], gains: Gains) -> None:
        self.nodes = nodes
        self._gains = gains
        self._rankings: dict[Kind, _Ranking] = {}

    def best(self, now: float, kind: Kind) -> Room | None:
        """Who has most room, of those that are here if any of them has; of equals the first."""
        ranking = self._rankings.get(kind)
        if ranking is None:
            ranking = self._rankings[kind] = _Ranking(self.nodes, self._gains, kind)
        return ranking.best(now)

    def all(self, now: float, kind: Kind) -> list[Room]:
        rooms = [room_of(node, mode, now, kind) for node, mode in self.nodes]
        return [room for room in rooms if room.jobs > 0]


class _Ranking:
    """A heap of (rank, place among the nodes). A node's rank is never better than the one that stands in `_ranks`; what
    is not that is left over in the heap."""

    def __init__(self, nodes: Sequence[tuple[NodeLoad, Mode]], gains: Gains, kind: Kind) -> None:
        self._nodes = nodes
        self._gains = gains
        self._kind = kind
        self._places = {node: place for place, (node, _) in enumerate(nodes)}
        self._ranks: list[Rank] = []
        self._heap: list[tuple[Rank, int]] = []
        self._returns: list[tuple[float, int]] = []     # when who is passed over no more: a heap, each once
        self._away: set[int] = set()
        self._read_to = -1

    def best(self, now: float) -> Room | None:
        self._catch_up(now)
        heap, ranks = self._heap, self._ranks
        while heap:
            rank, place = heap[0]
            if ranks[place] != rank:
                heapq.heappop(heap)
                continue
            node, mode = self._nodes[place]
            room = room_of(node, mode, now, self._kind)
            is_now = self._rank(room, place, now)
            if is_now == rank:
                return room if rank[0] != FULL else None
            ranks[place] = is_now
            heapq.heapreplace(heap, (is_now, place))
        return None

    def _rank(self, room: Room, place: int, now: float) -> Rank:
        if room.jobs <= 0:
            return FULL, 0
        if room.is_here:
            return HERE, -room.jobs
        if (until := room.node.away_until[room.mode]) > now and place not in self._away:
            self._away.add(place)
            heapq.heappush(self._returns, (until, place))
        return AWAY, -room.jobs

    def _catch_up(self, now: float) -> None:
        gains = self._gains
        read_to, self._read_to = self._read_to, gains.first + len(gains.nodes)
        new = self._read_to - read_to
        if read_to < gains.first or new > len(self._nodes) or len(self._heap) > 2 * len(self._nodes) + 16:
            self._look_at_all(now)
            return
        if new:
            for node in set(gains.nodes[-new:]):
                if (place := self._places.get(node)) is not None:
                    self._look_at(place, now)
        while self._returns and self._returns[0][0] <= now:
            place = heapq.heappop(self._returns)[1]
            self._away.discard(place)
            self._look_at(place, now)

    def _look_at(self, place: int, now: float) -> None:
        """It may have more room than it had."""
        node, mode = self._nodes[place]
        rank = self._rank(room_of(node, mode, now, self._kind), place, now)
        if rank < self._ranks[place]:
            self._ranks[place] = rank
            heapq.heappush(self._heap, (rank, place))

    def _look_at_all(self, now: float) -> None:
        self._returns.clear()
        self._away.clear()
        self._ranks = [
            self._rank(room_of(node, mode, now, self._kind), place, now)
            for place, (node, mode) in enumerate(self._nodes)
        ]
        self._heap = [(rank, place) for place, rank in enumerate(self._ranks)]
        heapq.heapify(self._heap)
