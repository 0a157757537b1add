"""The express lane, as the master sees it: he says that enqueues may bring their own claims along, and takes down the
flags of queues in which nothing waits.

What says so is one record, on the master's lease: without a master nothing goes past what waits for one. It is there
unless jobs wait for slots, whatever their queue: they come first. And only while every member puts flags, and every
queue in which something waits has its own: else a bundle could go past what a node of the release before has stored.
"""

from __future__ import annotations

import asyncio

from ...context import TermContext
from ...ledger.commits import Commits, Write, unmodified
from ...ledger.ledger import Changes, Delete, Put
from ...state.express import ExpressRecord
from ...state.nonempty import commits_of
from ...state.records import encode
from ..dispatch.picture import Picture
from ..dispatch.queues import Queue
from ..election.authority import Authority
from .flags import Flags

LOOK_S = 0.02
"""No two looks come closer one after the other, unless something happens."""

WAITS_S = 0.1
"""What is the first of its queue in two looks, so far apart, waits."""

MANY = 60
"""Bundles; of so many some wait, whichever is the first."""

KEPT_S = 1.0
"""What has waited lately is taken to wait still: the word does not change with every look."""

QUEUES_SEEN_MAX = 2_000
"""With more queues that hold something, or have settings, nothing is lent: looking at them would cost too much."""

AGAIN_S = 30.0
"""If nothing happens there is a look so often."""


class Lending:
    """Of one term, between two snapshots."""

    def __init__(self, context: TermContext, picture: Picture, authority: Authority) -> None:
        self._context = context
        self._key = context.keys.express
        self._authority = authority
        self._picture = picture
        self._watched = (context.keys.nonempty, context.keys.nodes, self._key)
        self._flags = Flags(context, picture, authority)
        self._lease = context.keys.parse_candidate(context.fence.key) or 0
        self._first: dict[str, bytes] = {}          # of each queue, what was seen of it
        self._next_look = self._next_check = self._closed_until = 0.0
        self._is_whole = False                      # no flag was missing
        self._said: bool | None = None
        self._at = 0                                # when the record that lies there was written; 0: there is none
        self._known_to = 0                          # ... as of this revision
        self._seen: tuple[int, int] = (0, 0)        # both, as the watch shows it
        self._news = asyncio.Event()
        self._rests = False                         # there is no flag to be looked at

    async def load(self, revision: int) -> None:
        await self._flags.load(revision)

    def see(self, changes: Changes) -> None:
        ours = [event for event in changes.events if event.record.key.startswith(self._watched)]
        for event in ours:
            if event.record.key == self._key:
                revision = event.record.mod_revision
                self._seen = revision, 0 if event.deleted else revision
            if not event.record.key.startswith(self._context.keys.nonempty):
                self._news.set()
        if ours and self._flags.see(ours) and self._rests:
            self._news.set()

    async def run(self) -> None:
        # its own: a flag that is put again meanwhile must not send claims of the same transaction back
        async with commits_of(self._context.ledger, self._context.keys) as commits:
            while True:
                self._news.clear()
                now = self._context.clock.monotonic()
                due = self._flags.take_down(commits, now)
                await self._say(self.is_open(now, commits))
                self._rests = not self._flags and self._said is not None and self._said == self._all_put_flags()
                if self._rests:
                    pause_s = AGAIN_S
                elif self._said is None:
                    pause_s = LOOK_S
                else:
                    pause_s = min(max(due - now, LOOK_S), WAITS_S)
                try:
                    async with asyncio.timeout(pause_s):
                        await self._news.wait()
                except TimeoutError:
                    pass

    def is_open(self, now: float, commits: Commits) -> bool:
        """What is to be said after this look."""
        if not self._all_put_flags():
            self._next_check = 0.0          # what they have stored is looked for before anything is lent again
            self._is_whole = False
            return False
        if now >= self._next_check:
            self._next_check = now + KEPT_S
            self._is_whole = len(self._picture.queues) <= QUEUES_SEEN_MAX and not self._flags.put_up(commits)
        if now >= self._next_look:
            self._next_look = now + WAITS_S
            self._look_at_what_waits(now)
        return self._is_whole and now >= self._closed_until

    def _all_put_flags(self) -> bool:
        return all(node.member.flags for node in self._picture.nodes.values())

    def _look_at_what_waits(self, now: float) -> None:
        first: dict[str, bytes] = {}
        for name in self._flags.named():
            queue = self._picture.queues.get(name)
            if queue is None or (place := _first_of(queue)) is None:
                continue
            first[name] = place
            if (self._first.get(name) == place or queue.size > MANY) and self._wants_slots(queue):
                self._closed_until = now + KEPT_S
                break
        self._first = first

    def _wants_slots(self, queue: Queue) -> bool:
        """Whether what waits there could run, if there were room for it: not where a limit or a rate holds it up."""
        limits, rates, settings = self._picture.limits, self._picture.rates, queue.settings
        if not queue.gives_out or settings.rate is not None or (settings.serial and queue.running):
            return False
        return any(
            family.gate.nodes and family.head() is not None and limits.left_of_task(family.id.task) > 0
            and not rates.limits(family.id.task) for family in queue.families()
        )

    async def _say(self, is_open: bool) -> None:
        if self._seen[0] > self._known_to:      # somebody else wrote it
            self._known_to, self._at = self._seen
            self._said = None
        if self._said is is_open:
            return
        op = Put(self._key, encode(ExpressRecord()), self._lease) if is_open else Delete(self._key)
        at = unmodified(self._key, self._at)
        verdict = await self._context.commits.submit(Write((self._context.fence, at), (op,)))
        if verdict.applied:
            self._said, self._known_to = is_open, verdict.revision
            self._at = verdict.revision if is_open else 0
        elif verdict.failed is not None and verdict.failed.key == self._context.fence.key:
            self._authority.depose()
        elif verdict.failed is not None:        # of the term before, or somebody's
            self._at = verdict.found.mod_revision if verdict.found is not None else 0


def _first_of(queue: Queue) -> bytes | None:
    """The place of something that waits there; b"" where nothing is known of it yet."""
    for window in queue.windows.values():
        if window.places:
            return next(iter(window.places))
        if window.is_partial:
            return b""
    return None
