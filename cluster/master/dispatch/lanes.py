"""Jobs of one queue and priority that wait: tokens in lanes, lanes in families. Pure.

A **family** are those that can go to the same nodes; a **lane** those of a family with one key (of limits). Both may be
cut: behind some place their tokens are not known, and have to be read.
"""

from __future__ import annotations

import heapq
from typing import Any, Protocol, TypeAlias

import msgspec

from ...state.records import Token
from .lane_ids import LaneId
from .tenants import Tenants
from .turns import Gate, InLine

REFILL = 5
"""What was cut is read on when this part of what it kept is left."""

PARKED_MAX = 500
"""Tokens that a lane keeps where it is cut, and its key is at its limit."""

class Item(msgspec.Struct, gc=False):
    """A token that lies in jobs/, as the master knows it."""

    key: bytes
    token: Token
    bundle: str
    mod_revision: int
    pending: int


class Lane:
    """The known tokens of a family with one key, and of one tenant, in the order of their places (a heap with lazy
    deletion). `parked`: its key is at its limit. `cut`: what lies behind it is not known; `share`: what it keeps
    then. `stands`: how it stands among its family's `heads`."""

    __slots__ = ("cut", "fair", "family", "heap", "items", "name", "parked", "share", "stands")

    def __init__(self, family: Family, name: str, fair: str) -> None:
        self.family = family
        self.name = name
        self.fair = fair
        self.share = PARKED_MAX
        self.heap: list[bytes] = []
        self.items: dict[bytes, Item] = {}
        self.cut: bytes | None = None
        self.parked = False
        self.stands: tuple[int, bytes, str] | None = None

    def head(self) -> Item | None:
        while self.heap:
            item = self.items.get(self.heap[0])
            if item is not None:
                return item
            heapq.heappop(self.heap)
        return None

    @property
    def is_short(self) -> bool:
        return len(self.items) < max(1, self.share // REFILL)


class OfWindow(Protocol):
    """What a family needs of the window that it is part of."""

    tenants: Tenants | None

    @property
    def queue(self) -> InLine: ...


class Family:
    """Lanes of one window that wait at one gate."""

    __slots__ = ("alone", "cut", "gate", "heads", "id", "lanes", "parked", "share", "size", "window")

    def __init__(self, window: OfWindow, id_: LaneId, gate: Gate[Any]) -> None:
        self.window = window
        self.id = id_
        self.alone = id_.alone
        self.gate = gate
        self.lanes: dict[str, Lane] = {}
        self.heads: list[tuple[int, bytes, str]] = []
        """(turn of its tenant, head, name) of lanes that are not parked: a heap; what is out of date is put right when
        it comes up."""
        self.size = 0
        self.parked = 0                 # tokens in lanes that are
        self.cut: bytes | None = None
        self.share = 0                  # what it kept when it was cut

    def head(self) -> tuple[Lane, Item] | None:
        """The first token whose key is not at its limit; of several tenants', that of the one whose turn it is."""
        tenants = self.window.tenants
        while self.heads:
            entry = turn, key, name = self.heads[0]
            lane = self.lanes.get(name)
            item = lane.head() if lane is not None and not lane.parked else None
            now = tenants.turn(lane.fair) if tenants is not None and lane is not None else 0
            if lane is not None and item is not None and item.key == key and turn == now:
                return lane, item
            heapq.heappop(self.heads)
            if lane is not None and lane.stands in (entry, None):       # else it stands here otherwise: not twice
                lane.stands = None
                if item is not None:
                    self._stand(lane, now, item)
        return None

    def _stand(self, lane: Lane, turn: int, item: Item) -> None:
        lane.stands = (turn, item.key, lane.name)
        heapq.heappush(self.heads, lane.stands)

    def come_up(self, lane: Lane, item: Item) -> None:
        """Its first token is another one, or it is not parked any more."""
        tenants = self.window.tenants
        self._stand(lane, tenants.turn(lane.fair) if tenants is not None else 0, item)
        self.window.queue.stands_at(self.gate)

    def park(self, lane: Lane) -> None:
        lane.parked = True
        self.parked += len(lane.items)

    def unpark(self, lane: Lane) -> None:
        lane.parked = False
        self.parked -= len(lane.items)
        if (item := lane.head()) is not None:
            self.come_up(lane, item)

    @property
    def is_short(self) -> bool:
        return self.size - self.parked < max(1, self.share // REFILL)


Head: TypeAlias = tuple[Family, Lane, Item]
