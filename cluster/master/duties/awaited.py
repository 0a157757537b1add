"""What waits for jobs, as a master knows it: tokens below `awaiting/`, and flows. In memory, pure."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import msgspec

from ...ledger.commits import unmodified
from ...ledger.ledger import Condition
from ...state.records import Awaiting, FlowRecord


class Waiting(msgspec.Struct, gc=False):
    """One token below `awaiting/`, or (`flow`) one flow, which waits for all of its jobs. Bitmaps by bundle: `left` is
    what has not been let in, `wanted` what it is given the results of, `badly` what is known not to have ended well."""

    key: bytes
    bundle: str
    mod_revision: int
    token: Awaiting | None
    left: dict[str, int]
    wanted: dict[str, int]
    badly: dict[str, int] = {}
    flow: FlowRecord | None = None
    jobs: int = 0               # of a flow
    begun: bool = False         # it is looked at: its section is there

    @property
    def at(self) -> Condition:
        return unmodified(self.key, self.mod_revision)


AGAIN_MS = 1_000
"""What could not be woken is woken again after this."""

ALARMS_MORE = 100


class Alarms:
    """Who waits until a time at the most, in ms since 1970."""

    def __init__(self) -> None:
        self._until: dict[bytes, int] = {}
        self._heap: list[tuple[int, bytes]] = []    # also of some that wait no more

    def set(self, key: bytes, until_ms: int) -> None:
        if until_ms and self._until.get(key) != until_ms:
            self._until[key] = until_ms
            self._push(until_ms, key)

    def forget(self, key: bytes) -> None:
        self._until.pop(key, None)

    @property
    def next_ms(self) -> int | None:
        while self._heap and self._heap[0][1] not in self._until:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def rung(self, now_ms: int) -> list[bytes]:
        """Whose time is over. They ring again, until they are forgotten."""
        keys: dict[bytes, None] = {}
        while (next_ms := self.next_ms) is not None and next_ms <= now_ms:
            _, key = heappop(self._heap)
            if self._until[key] <= now_ms:
                keys[key] = None
        for key in keys:
            self._push(now_ms + AGAIN_MS, key)
        return list(keys)

    def _push(self, at_ms: int, key: bytes) -> None:
        heappush(self._heap, (at_ms, key))
        if len(self._heap) > 2 * len(self._until) + ALARMS_MORE:
            self._heap = [(until_ms, key) for key, until_ms in self._until.items()]
            heapify(self._heap)


class Awaited:
    """Who waits for jobs of which bundle, and which bundles are to be looked at."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, Waiting] = {}
        self.ready: dict[bytes, None] = {}          # that wait for nothing more, in order
        self.to_look: dict[str, None] = {}          # bundles, in order
        self.alarms = Alarms()
        self._of: dict[str, dict[bytes, None]] = {}     # bundle -> keys of those that wait for jobs of it
        self._turn = 0

    def __bool__(self) -> bool:
        return bool(self._of)

    def __contains__(self, bundle: str) -> bool:
        return bundle in self._of

    def of(self, bundle: str) -> list[Waiting]:
        return [self.waiting[key] for key in self._of.get(bundle, ())]

    def put(self, waiting: Waiting) -> None:
        """It is known, and looked at from `begin` on."""
        self.waiting[waiting.key] = waiting

    def begin(self, waiting: Waiting) -> None:
        waiting.begun = True
        self.arm(waiting)
        for upstream in waiting.left:
            self._of.setdefault(upstream, {})[waiting.key] = None
        self.look_at_all(waiting)

    def arm(self, waiting: Waiting) -> None:
        if waiting.token is not None:
            self.alarms.set(waiting.key, waiting.token.until)

    def look_at_all(self, waiting: Waiting) -> None:
        """Whatever it waits for."""
        if not waiting.begun:
            return
        for upstream in waiting.left:
            self.to_look[upstream] = None
        if not waiting.left:
            self.ready[waiting.key] = None

    def forget(self, key: bytes) -> Waiting | None:
        waiting = self.waiting.pop(key, None)
        self.ready.pop(key, None)
        self.alarms.forget(key)
        for upstream in waiting.left if waiting is not None else ():
            self._part(key, upstream)
        return waiting

    def has_got(self, waiting: Waiting, upstream: str, jobs: int) -> None:
        left = waiting.left.get(upstream, 0) & ~jobs
        if left:
            waiting.left[upstream] = left
        elif waiting.left.pop(upstream, 0):
            self._part(waiting.key, upstream)
        if not waiting.left and waiting.begun:
            self.ready[waiting.key] = None

    def look_again(self, most: int) -> None:
        """Some of those that are waited for, in turn: watches are edges, not truth."""
        for waiting in self.waiting.values():
            if waiting.begun and not waiting.left:
                self.ready[waiting.key] = None
        bundles = list(self._of)
        self._turn = self._turn + most if self._turn + most < len(bundles) else 0
        for bundle in bundles[self._turn : self._turn + most]:
            self.to_look[bundle] = None

    def _part(self, key: bytes, upstream: str) -> None:
        keys = self._of.get(upstream, {})
        keys.pop(key, None)
        if not keys:
            self._of.pop(upstream, None)
