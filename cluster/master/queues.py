"""What the master knows of the queues: a window of each, at each priority.

Memory is these windows, not the backlog: `Lane`s hold the tokens of the pages read so far, and tokens behind the last
page are ignored until their page is read. A window that grows by what comes in is cut back.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import msgspec

from rota.client.model import Mode

from ..state.records import QueueRecord, Token


class Item(msgspec.Struct, gc=False):
    """A token that lies in jobs/, as the master knows it."""

    key: bytes
    token: Token
    bundle: str
    mod_revision: int
    pending: int


class LaneId(NamedTuple):
    """Tokens that can go to the same nodes."""

    task: str
    mode: Mode
    python: str
    function: bool
    alone: bool                 # lost once while it ran: others must not wait behind it
    key: str                    # what a limit per key is counted by
    signed: str | None = None   # with which key


class Lane:
    """The known tokens of one lane, in key order (a heap with lazy deletion)."""

    __slots__ = ("heap", "items")

    def __init__(self) -> None:
        self.heap: list[bytes] = []
        self.items: dict[bytes, Item] = {}

    def add(self, item: Item) -> None:
        if item.key not in self.items:
            heapq.heappush(self.heap, item.key)
        self.items[item.key] = item

    def head(self) -> Item | None:
        while self.heap:
            item = self.items.get(self.heap[0])
            if item is not None:
                return item
            heapq.heappop(self.heap)
        return None

    def forget_beyond(self, key: bytes) -> None:
        self.items = {other: item for other, item in self.items.items() if other <= key}
        self.heap = sorted(self.items)


class Window:
    """What is known of one queue at one priority. `known_to`: every key up to here is known (None: all of them)."""

    def __init__(self) -> None:
        self.lanes: dict[LaneId, Lane] = {}
        self.known_to: bytes | None = None
        self.loading = False
        self.size = 0

    def add(self, item: Item) -> None:
        token = item.token
        lane_id = LaneId(
            token.task, token.mode, token.python, bool(token.function), token.lost > 0, token.key, token.signed
        )
        lane = self.lanes.get(lane_id)
        if lane is None:
            lane = self.lanes[lane_id] = Lane()
        known = lane.items.get(item.key)
        if known is not None and known.mod_revision >= item.mod_revision:
            return
        self.size += known is None
        lane.add(item)

    def remove(self, key: bytes, before_revision: int | None = None) -> Item | None:
        for lane_id, lane in self.lanes.items():
            item = lane.items.get(key)
            if item is not None and (before_revision is None or item.mod_revision < before_revision):
                del lane.items[key]
                self.size -= 1
                if not lane.items:
                    del self.lanes[lane_id]     # one per key of a limit: there may be any number
                return item
        return None

    def forget_beyond(self, key: bytes) -> None:
        for lane_id, lane in list(self.lanes.items()):
            lane.forget_beyond(key)
            if not lane.items:
                del self.lanes[lane_id]
        self.size = sum(len(lane.items) for lane in self.lanes.values())

    def cut(self, keep: int) -> None:
        """Know only the first `keep` tokens: the rest is left to the next page."""
        self.known_to = sorted(key for lane in self.lanes.values() for key in lane.items)[keep - 1]
        self.forget_beyond(self.known_to)


class Queue:
    """A queue's windows by priority, its settings, and how many of its jobs are claimed."""

    def __init__(self) -> None:
        self.windows: dict[int, Window] = {}
        self.settings = QueueRecord()
        self.running = 0
        self.splitting = 0          # splits without a verdict
        self.blind_to = 0           # something appears at this revision: until then the head is not known

    def by_priority(self) -> list[tuple[int, Window]]:
        return sorted(self.windows.items(), reverse=True) if len(self.windows) > 1 else list(self.windows.items())

    @property
    def size(self) -> int:
        return sum(window.size for window in self.windows.values())
