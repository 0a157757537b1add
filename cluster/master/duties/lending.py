"""The express lane, as the master sees it: it says where an enqueue may bring its own claim along.

What says so is one record, on the master's lease: without a master nothing goes past what waits for one. It is closed
while jobs wait for slots, whatever their queue, and in queues where others wait that cannot run now. Whether a bundle
really stands behind nothing its own transaction sees (`state/express`): this word is for the sake of those that wait.
"""

from __future__ import annotations

import asyncio

from ...context import TermContext
from ...ledger.commits import Write, unmodified
from ...ledger.ledger import Put
from ...state.express import QUEUES_MAX, ExpressRecord
from ...state.records import encode
from ..dispatch.picture import Picture
from ..dispatch.queues import Queue
from ..election.authority import Authority

LOOK_S = 0.1
"""What is the first of its queue in two looks, one after the other, waits."""

MANY = 60
"""Bundles; of so many some wait, whichever is the first."""

KEPT_S = 1.0
"""What has waited lately is taken to wait still: the word does not change with every look."""

QUEUES_SEEN_MAX = 2_000
"""With more queues that hold something, or have settings, all are closed: looking at them would cost too much."""

AGAIN_S = 30.0
"""The word is said again so often, should anybody have written over it."""


class Lending:
    """Of one term."""

    def __init__(self, context: TermContext, picture: Picture, authority: Authority) -> None:
        self._context = context
        self._authority = authority
        self._picture = picture
        self._lease = context.keys.parse_candidate(context.fence.key) or 0
        self._first: dict[str, bytes] = {}          # of each queue, what was seen of it
        self._until: dict[str, float] = {}          # queues where jobs wait, and until when that is taken to be so
        self._closed_until = 0.0
        self._said: tuple[ExpressRecord, int, float] | None = None      # and at which revision, when

    async def run(self) -> None:
        while True:
            now = self._context.clock.monotonic()
            word = self.word(now)
            if self._said is None or self._said[0] != word or now >= self._said[2] + AGAIN_S:
                await self._say(word, now)
            await asyncio.sleep(LOOK_S)

    def word(self, now: float) -> ExpressRecord:
        """What is to be said after this look."""
        first: dict[str, bytes] = {}
        for seen, queue in enumerate(self._picture.queues.values()):
            if seen >= QUEUES_SEEN_MAX or len(first) > QUEUES_MAX:
                self._closed_until = now + KEPT_S
                break
            if (place := _first_of(queue)) is None:
                continue
            first[queue.name] = place
            if self._first.get(queue.name) == place or queue.size > MANY:
                self._until[queue.name] = now + KEPT_S
                if self._wants_slots(queue):
                    self._closed_until = now + KEPT_S
        self._first = first
        self._until = {name: until for name, until in self._until.items() if now < until}
        if now < self._closed_until or len(self._until) > QUEUES_MAX:
            return ExpressRecord(closed=True)
        return ExpressRecord(queues=tuple(sorted(self._until)))

    def _wants_slots(self, queue: Queue) -> bool:
        """Whether what waits there could run, if there were room for it: not where a limit or a rate holds it up."""
        limits, rates, settings = self._picture.limits, self._picture.rates, queue.settings
        if not queue.gives_out or settings.rate is not None or (settings.serial and queue.running):
            return False
        return any(
            family.gate.nodes and family.head() is not None and limits.left_of_task(family.id.task) > 0
            and not rates.limits(family.id.task) for family in queue.families()
        )

    async def _say(self, word: ExpressRecord, now: float) -> None:
        key = self._context.keys.express
        at = self._said[1] if self._said is not None else 0
        verdict = await self._context.commits.submit(Write(
            (self._context.fence, unmodified(key, at)), (Put(key, encode(word), self._lease),)
        ))
        if verdict.applied:
            self._said = (word, verdict.revision, now)
        elif verdict.failed is not None and verdict.failed.key == self._context.fence.key:
            self._authority.depose()
        elif verdict.failed is not None and verdict.failed.key == key:      # of the term before, or somebody's
            at = verdict.found.mod_revision if verdict.found is not None else 0
            self._said = (word, at, now - AGAIN_S)


def _first_of(queue: Queue) -> bytes | None:
    """The place of something that waits there; b"" where nothing is known of it yet."""
    for window in queue.windows.values():
        if window.places:
            return next(iter(window.places))
        if window.is_partial:
            return b""
    return None
