"""What waits for jobs, as a master knows it: tokens below `awaiting/`, and flows. In memory, pure."""

from __future__ import annotations

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


class Awaited:
    """Who waits for jobs of which bundle, and which bundles are to be looked at."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, Waiting] = {}
        self.ready: dict[bytes, None] = {}          # that wait for nothing more, in order
        self.to_look: dict[str, None] = {}          # bundles, in order
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
        for upstream in waiting.left:
            self._of.setdefault(upstream, {})[waiting.key] = None
        self.look_at_all(waiting)

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
