"""What the master knows of the queues: a window of each, at each priority.

Memory is these windows, not the backlog, and a name that was used once costs nothing. A window that grows too large is
cut: behind some key the tokens of a family, or of one of its lanes, or all of them, are left to pages that are read
later. So what nobody can run does not hide what lies behind it.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator

from ...state.records import QueueRecord
from .lane_ids import LaneId, lane_name, lane_of
from .lanes import PARKED_MAX, REFILL, Family, Head, Item, Lane
from .paces import Paces
from .tenants import Tenants
from .turns import Gate, Turns

WINDOW_MAX = 20_000
"""Tokens of one window. With more it is cut: every family keeps its share of half of that."""

FAMILIES_KEPT = 8
"""Of a window, though nothing of them waits."""

PLAIN_SETTINGS = QueueRecord()

UNLIMITED = 1_000_000
"""Jobs, where there is no limit."""


class Window:
    """What is known of one queue at one priority. `known_to`: every place up to here is known (None: all of them), but
    for what was cut. `loading`: a page is under way, of what comes behind this key."""

    def __init__(self, queue: Queue, priority: int) -> None:
        self.queue = queue
        self.priority = priority
        self.families: dict[LaneId, Family] = {}
        self.places: dict[bytes, Lane] = {}
        self.cuts: set[Family | Lane] = set()
        self.known_to: bytes | None = None
        self.loading: bytes | None = None
        self.tenants: Tenants | None = None         # where tokens have fair keys: whose turn it is
        self._read_on = False
        self._full = False                          # even the shares are too much: it is read on as it empties
        self._order: list[bytes] | None = None      # of all places: a heap, lazy, where somebody asks for the first

    @property
    def size(self) -> int:
        return len(self.places)

    @property
    def is_partial(self) -> bool:
        """Whether there may be tokens that are not known."""
        return self.known_to is not None or self.loading is not None or bool(self.cuts)

    # -- tokens come and go ------------------------------------------------------------------------------------------

    def add(self, item: Item) -> None:
        """Take a token in, unless it lies behind a cut, or is older than what is known."""
        lane, token = self.places.get(item.key), item.token
        if lane is not None:
            if lane.items[item.key].mod_revision >= item.mod_revision:
                return
            if lane.family.id == lane_of(token) and lane.name == lane_name(token):
                lane.items[item.key] = item
                return
            self.remove(item.key)
        elif self._is_behind(item.key, self.known_to):
            return
        lane = self._lane(lane_of(token), lane_name(token), token.fair)
        if self._is_behind(item.key, lane.family.cut) or self._is_behind(item.key, lane.cut):
            self._drop_if_empty(lane)
            return
        self._put(lane, item)
        if len(self.places) > WINDOW_MAX and self.loading is None:
            self._shrink()

    def is_behind(self, key: bytes) -> bool:
        """Whether this place is left to a later page, whatever lies there."""
        return key not in self.places and self._is_behind(key, self.known_to)

    def _is_behind(self, key: bytes, cut: bytes | None) -> bool:
        """Not known, and not to come with the page that is under way."""
        return cut is not None and key > cut and (self.loading is None or self.loading > cut)

    def _lane(self, id_: LaneId, name: str, fair: str) -> Lane:
        family = self.families.get(id_)
        if family is None:
            family = self.families[id_] = Family(self, id_, self.queue.turns.gate(id_, self.queue.name))
        lane = family.lanes.get(name)
        if lane is None:
            lane = family.lanes[name] = Lane(family, name, fair)
            if fair and self.tenants is None:
                self.tenants = Tenants()
        return lane

    def _put(self, lane: Lane, item: Item) -> None:
        family, head = lane.family, lane.head()
        lane.items[item.key] = item
        self.places[item.key] = lane
        heapq.heappush(lane.heap, item.key)
        family.size += 1
        family.parked += lane.parked
        if not lane.parked and (head is None or item.key < head.key):
            family.come_up(lane, item)
        if self._order is not None:
            heapq.heappush(self._order, item.key)

    def get(self, key: bytes) -> Item | None:
        lane = self.places.get(key)
        return lane.items[key] if lane is not None else None

    def remove(self, key: bytes, before_revision: int | None = None) -> Item | None:
        """Take a token out (only one that is older than `before_revision`)."""
        lane = self.places.get(key)
        item = lane.items[key] if lane is not None else None
        if lane is None or item is None or (before_revision is not None and item.mod_revision >= before_revision):
            return None
        self._take_out(lane, key)
        self._drop_if_empty(lane)
        return item

    def _take_out(self, lane: Lane, key: bytes) -> None:
        del lane.items[key], self.places[key]
        lane.family.size -= 1
        lane.family.parked -= lane.parked

    def _drop_if_empty(self, lane: Lane) -> None:
        """One lane per key of a limit, one family per task: there may be any number."""
        family = lane.family
        if not lane.items and lane.cut is None:
            family.lanes.pop(lane.name, None)
            if not family.lanes:
                self._family_is_empty(family)

    def _family_is_empty(self, family: Family) -> None:
        """Some are kept: soon something of the same kind comes."""
        if family.cut is not None or self.families.get(family.id) is not family:
            return
        self.queue.left(family)
        if len(self.families) > FAMILIES_KEPT:
            del self.families[family.id]
            self.queue.turns.release(family.gate)

    # -- heads -------------------------------------------------------------------------------------------------------

    def first_open(self, passed: Container[Family], paces: Paces) -> Head | None:
        """The first token before a gate that is open, not of these families. What is to run alone goes before, for the
        node that it has waited for has nothing else yet; of that, the tasks that are quick."""
        best: Head | None = None
        for family in self.families.values():
            if not family.gate.is_open or family in passed:
                continue
            head = family.head()
            if head is None:
                continue
            if best is None or (
                self._is_before(head, best) if not (family.alone or best[0].alone)
                else _rank(family, head[1], paces) < _rank(best[0], best[2], paces)
            ):
                best = (family, *head)
        return best

    def _is_before(self, head: tuple[Lane, Item], best: Head) -> bool:
        if self.tenants is None:
            return head[1].key < best[2].key
        return (self.tenants.turn(head[0].fair), head[1].key) < (self.tenants.turn(best[1].fair), best[2].key)

    def first(self) -> Head | None:
        """The first token of all that are known, whatever holds it up."""
        if self._order is None:
            self._order = sorted(self.places)
        while self._order:
            lane = self.places.get(self._order[0])
            if lane is not None:
                return lane.family, lane, lane.items[self._order[0]]
            heapq.heappop(self._order)
        return None

    # -- what is not known -------------------------------------------------------------------------------------------

    @property
    def sure_to(self) -> bytes | None:
        """Up to here nothing is missing; None: nothing is."""
        cuts = [cut for part in (self, *self.cuts) if (cut := _cut_of(part)) is not None]
        return min(cuts, default=None)

    def wants(self, *, more: bool) -> bytes | None:
        """Behind which key a page should be read now, or None. `more`: nothing of what is known can be run."""
        if self.loading is not None:
            return None
        short = [cut for part in self.cuts if part.is_short and (cut := part.cut) is not None]
        for_all = self.tenants is not None and self.known_to is not None and not self._full
        if for_all:                     # who lies far behind has his turn, too: read on, every other time
            self._read_on = not self._read_on
        if short and not (for_all and self._read_on):
            return min(short)
        few = len(self.places) < WINDOW_MAX // 2 // REFILL
        return self.known_to if few or for_all or (more and not self._full) else None

    def loaded(self, last: bytes, *, more: bool) -> None:
        """The page that was under way is in; its last key."""
        begin, self.loading = self.loading, None
        if begin is None:
            return
        if self.known_to is not None and self.known_to >= begin:
            self.known_to = max(self.known_to, last) if more else None
            self._full = False
        for part in list(self.cuts):
            if part.cut is not None and part.cut >= begin:
                part.cut = max(part.cut, last) if more else None
                if part.cut is None:
                    self.cuts.discard(part)
        self._forget_what_is_cut_off()
        if len(self.places) > WINDOW_MAX:
            self._shrink()

    def _shrink(self) -> None:
        """Cut what is large: first lanes whose keys are at their limits, then families; if there are too many of
        those, everything."""
        share = max(1, WINDOW_MAX // 2 // len(self.families))
        for family in self.families.values():
            if family.size <= share:
                continue
            family.share = share
            for lane in family.lanes.values():
                if lane.parked and len(lane.items) > PARKED_MAX:
                    self._cut(lane, heapq.nsmallest(PARKED_MAX, lane.items)[-1])
            rest = [key for lane in family.lanes.values() for key in lane.items if lane.cut is None or key <= lane.cut]
            if len(rest) > share and self.tenants is not None:
                self._cut_tenants(family, share)
            elif len(rest) > share:
                self._cut(family, heapq.nsmallest(share, rest)[-1])
        self._forget_what_is_cut_off()
        if len(self.places) > WINDOW_MAX:
            self.known_to, self._full = heapq.nsmallest(WINDOW_MAX // 2, self.places)[-1], True
            self._forget_what_is_cut_off()

    def _cut_tenants(self, family: Family, share: int) -> None:
        """Each keeps as much."""
        each = max(1, share // len(family.lanes))
        for lane in family.lanes.values():
            if len(lane.items) > each:
                lane.share = each
                self._cut(lane, heapq.nsmallest(each, lane.items)[-1])

    def _cut(self, part: Family | Lane, key: bytes) -> None:
        part.cut = key
        self.cuts.add(part)

    def _forget_what_is_cut_off(self) -> None:
        for family in list(self.families.values()):
            for lane in list(family.lanes.values()):
                cut = min((cut for part in (lane, family, self) if (cut := _cut_of(part)) is not None), default=None)
                if cut is not None and (gone := [key for key in lane.items if key > cut]):
                    for key in gone:
                        self._take_out(lane, key)
                    lane.heap = sorted(lane.items)
                self._drop_if_empty(lane)
            if not family.lanes:
                self._family_is_empty(family)
        self._order = None


def _rank(family: Family, item: Item, paces: Paces) -> tuple[bool, float, bytes]:
    return not family.alone, paces.alone_s(family.id.task) if family.alone else 0.0, item.key


def _cut_of(part: Window | Family | Lane) -> bytes | None:
    return part.known_to if isinstance(part, Window) else part.cut


class Queue:
    """A queue's windows by priority, its settings, and how many of its jobs are claimed. `turn` grows each time it has
    had its turn. `resting`: it gives nothing out until something happens to it."""

    def __init__(self, name: str, turns: Turns[Queue]) -> None:
        self.name = name
        self.turns = turns
        self.turn = turns.number()
        self.windows: dict[int, Window] = {}
        self.settings = PLAIN_SETTINGS
        self.running = 0
        self.splitting = 0          # splits and expiries without a verdict
        self.blind_to = 0           # something appears at this revision: until then the head is not known
        self.due_ms = 0             # the last time that its head, a retry, was seen to wait for
        self.resting = False

    def window(self, priority: int) -> Window:
        window = self.windows.get(priority)
        if window is None:
            window = self.windows[priority] = Window(self, priority)
        return window

    def by_priority(self) -> list[tuple[int, Window]]:
        return sorted(self.windows.items(), reverse=True) if len(self.windows) > 1 else list(self.windows.items())

    @property
    def size(self) -> int:
        return sum(window.size for window in self.windows.values())

    @property
    def left_of_limit(self) -> int:
        """How many more of its jobs may be claimed."""
        if self.settings.serial:
            return 1
        limit = self.settings.max_concurrency
        return UNLIMITED if limit is None else limit - self.running

    @property
    def gives_out(self) -> bool:
        return not self.settings.paused and self.left_of_limit > 0

    def certain_head(self) -> tuple[Window, Head] | None:
        """The first of all its jobs, and its window, if it is certain that none is before it."""
        for _, window in self.by_priority():
            head, sure_to = window.first(), window.sure_to
            if sure_to is not None and (head is None or head[2].key > sure_to):
                return None             # a page is on its way
            if head is not None:
                return window, head
        return None

    def is_over(self, revision: int) -> bool:
        """Whether nothing need be known of it."""
        if self.running or self.splitting or self.blind_to > revision:
            return False
        for window in self.windows.values():
            if window.places or window.is_partial:
                return False
        return self.settings == PLAIN_SETTINGS

    def close(self) -> None:
        """It is forgotten."""
        for family in self.families():
            family.gate.leave(self)
            self.turns.release(family.gate)
        self.windows.clear()

    # -- where it stands in line -------------------------------------------------------------------------------------

    def families(self) -> Iterator[Family]:
        for window in self.windows.values():
            yield from window.families.values()

    def stands_at(self, gate: Gate[Queue]) -> None:
        if not self.resting:
            gate.enter(self)

    def left(self, family: Family) -> None:
        """A window has nothing more for its gate."""
        for window in self.windows.values():
            other = window.families.get(family.id)
            if other is not None and other.lanes:
                return
        family.gate.leave(self)

    def rest(self) -> None:
        self.resting = True
        for family in self.families():
            family.gate.leave(self)

    def wake(self) -> None:
        if self.resting:
            self.resting = False
            for family in self.families():
                if family.head() is not None:
                    family.gate.enter(self)

