"""Whose turn it is: one bundle per queue and turn, so a noisy queue starves nobody.

A **gate** is where jobs wait that can go to the same nodes, whatever their queue. It is open while one of those nodes
has room. What is looked at for a decision are the gates, then the queue at an open gate whose turn was longest ago: the
number of queues that wait does not count.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

from rota.client.model import Mode

from .lane_ids import LaneId
from .members import MODES, NodeLoad
from .rooms import Gains, Kind, Rooms

EVERY = "*"

ALONE_WAIT_S = 10.0
"""What was lost while it ran waits so long for a node that has nothing else, so that its next loss tells whether it was
the cause."""

GATES_KEPT = 200
"""Though nothing waits there: soon something of the same kind comes."""


NOBODY = Rooms((), Gains())


class GateId(NamedTuple):
    """`group`: the queue's name, if a node subscribes to it by name; else any queue's."""

    lane: LaneId
    group: str


class AtGate(Protocol):
    """Jobs of one queue that wait at one gate: a family of lanes."""

    gate: Gate[Any]

    @property
    def id(self) -> LaneId: ...
    def head(self) -> object: ...


class InLine(Protocol):
    """What stands in line before gates: a queue. `turn` grows each time it has had its turn."""

    turn: int

    @property
    def name(self) -> str: ...
    @property
    def resting(self) -> bool: ...
    def families(self) -> Iterator[AtGate]: ...
    def stands_at(self, gate: Gate[Any], /) -> None: ...
    def rest(self) -> None: ...
    def wake(self) -> None: ...


Q = TypeVar("Q", bound=InLine)


class Gate(Generic[Q]):
    """`rooms`: of those that may run what waits here. `splitting`: jobs of bundles that are being
    split for them. `families` stand here, of those `queues`. `is_spare`: what it is open for now are spare slots.
    `alone_since`: what waits here should run alone, and every node has something since then."""

    __slots__ = (
        "_in_line",
        "_line",
        "alone_since",
        "families",
        "id",
        "is_open",
        "is_spare",
        "queues",
        "rooms",
        "splitting",
    )

    def __init__(self, id_: GateId) -> None:
        self.id = id_
        self.rooms = NOBODY
        self.is_open = self.is_spare = False
        self.alone_since: float | None = None
        self.splitting = 0
        self.families = 0
        self.queues: dict[str, Q] = {}
        self._line: list[tuple[int, str]] = []      # (turn, queue): a heap; put right when it comes up
        self._in_line: set[str] = set()             # its queues, each once; some have left, and may come back

    @property
    def nodes(self) -> Sequence[tuple[NodeLoad, Mode]]:
        """Those that may run what waits here, and in which mode."""
        return self.rooms.nodes

    def enter(self, queue: Q) -> None:
        if queue.name not in self.queues:
            self.queues[queue.name] = queue
            if queue.name not in self._in_line:
                self._in_line.add(queue.name)
                heapq.heappush(self._line, (queue.turn, queue.name))

    def leave(self, queue: Q) -> None:
        if self.queues.pop(queue.name, None) is not None and len(self._line) > 2 * len(self.queues) + 64:
            self._line = [(other.turn, name) for name, other in self.queues.items()]
            self._in_line = set(self.queues)
            heapq.heapify(self._line)

    def wants_empty(self, now: float) -> bool:
        """Whether what waits here may go only to a node that has nothing else."""
        return self.id.lane.alone and (self.alone_since is None or now < self.alone_since + ALONE_WAIT_S)

    def first(self) -> Q | None:
        """The queue here whose turn was longest ago."""
        while self._line:
            turn, name = self._line[0]
            queue = self.queues.get(name)
            if queue is None:
                heapq.heappop(self._line)
                self._in_line.discard(name)
            elif queue.turn != turn:
                heapq.heapreplace(self._line, (queue.turn, name))
            else:
                return queue
        return None


class Turns(Generic[Q]):
    """All gates; within a pass (`begin` to `end`), the order of queues."""

    def __init__(self, gains: Gains) -> None:
        self._gains = gains
        self._rooms: WeakValueDictionary[tuple[tuple[NodeLoad, Mode], ...], Rooms] = WeakValueDictionary()
        self._all: list[Rooms] = []         # those of all nodes, by mode
        self.gates: dict[GateId, Gate[Q]] = {}
        self._with_nodes: dict[GateId, Gate[Q]] = {}       # those that some node may run
        self._named: frozenset[str] = frozenset()
        self._nodes: Iterable[NodeLoad] = ()
        self._unused = 0
        self._numbers = 0
        self._line: list[tuple[int, int, Gate[Q]]] = []
        self._skipped: list[Q] = []

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    # -- gates -------------------------------------------------------------------------------------------------------

    def gate(self, lane: LaneId, queue: str) -> Gate[Q]:
        """For one more family; `release` when it is gone."""
        id_ = GateId(lane, queue if queue in self._named else EVERY)
        gate = self.gates.get(id_)
        if gate is None:
            gate = self.gates[id_] = Gate(id_)
            self._fill(gate)
        elif not gate.families:
            self._unused -= 1
        gate.families += 1
        return gate

    def release(self, gate: Gate[Q]) -> None:
        gate.families -= 1
        if not gate.families:
            self._unused += 1
            if self._unused > GATES_KEPT:
                for other in [other for other in self.gates.values() if not other.families]:
                    del self.gates[other.id]
                    self._with_nodes.pop(other.id, None)
                self._unused = 0

    def members_changed(self, nodes: Iterable[NodeLoad], queues: Iterable[Q]) -> None:
        """Who may run what is worked out here, not for every job."""
        self._nodes = nodes
        named = frozenset(name for node in nodes for name in node.member.queues if name != EVERY)
        if named != self._named:
            changed, self._named = named ^ self._named, named
            for queue in queues:
                if queue.name in changed:
                    self._move(queue)
        self._rooms.clear()
        self._all = [Rooms(tuple((node, mode) for node in nodes), self._gains) for mode in MODES]
        self._gains.clear()     # who is gone is not kept for it
        for gate in self.gates.values():
            self._fill(gate)

    def _fill(self, gate: Gate[Q]) -> None:
        lane, group = gate.id
        nodes = tuple(
            (node, mode) for node in self._nodes
            if node.may_run(group, lane) and (mode := node.member.mode_of(lane)) is not None
        )
        rooms = self._rooms.get(nodes)
        gate.rooms = rooms if rooms is not None else self._rooms.setdefault(nodes, Rooms(nodes, self._gains))
        gate.is_open = False
        if nodes:
            self._with_nodes[gate.id] = gate
        else:
            self._with_nodes.pop(gate.id, None)

    def has_spare(self, now: float) -> bool:
        """Whether any node has slots to lend."""
        return any(rooms.best(now, Kind.SPARE) is not None for rooms in self._all)

    def _move(self, queue: Q) -> None:
        """To gates of another group."""
        for family in queue.families():
            before, family.gate = family.gate, self.gate(family.id, queue.name)
            before.leave(queue)
            self.release(before)
            if family.head() is not None:
                queue.stands_at(family.gate)

    # -- a pass ------------------------------------------------------------------------------------------------------

    def begin(self, is_open: Callable[[Gate[Q]], bool]) -> None:
        line = self._line = []
        for number, gate in enumerate(self._with_nodes.values()):
            if not gate.queues:
                gate.is_open, gate.alone_since = False, None
                continue
            gate.is_open = is_open(gate)
            if gate.is_open and (queue := gate.first()) is not None:
                line.append((queue.turn, number, gate))
        if len(line) > 1:
            heapq.heapify(line)

    def first(self) -> Q | None:
        """The queue before an open gate whose turn was longest ago."""
        while self._line:
            turn, number, gate = self._line[0]
            queue = gate.first() if gate.is_open else None
            if queue is None:
                heapq.heappop(self._line)
            elif queue.turn != turn:
                heapq.heapreplace(self._line, (queue.turn, number, gate))
            else:
                return queue
        return None

    def served(self, queue: Q) -> None:
        queue.turn = self.number()

    def skip(self, queue: Q) -> None:
        """It has nothing to give out in this pass."""
        if not queue.resting and any(family.gate.is_open for family in queue.families()):
            queue.rest()
            self._skipped.append(queue)

    @property
    def held_up(self) -> bool:
        """Whether anything stands before a gate: between rounds, because its nodes have no room."""
        return any(gate.queues for gate in self._with_nodes.values())

    def end(self) -> None:
        if self._skipped:
            for queue in self._skipped:
                queue.wake()
            self._skipped.clear()
