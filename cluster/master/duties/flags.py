"""The flags of queues, as the master sees them (`state/nonempty`): he takes them down where nothing waits any more.

He sees flags and tokens by his one watch, in one order. So where his picture of a queue is whole and holds nothing,
and the flag is as he last saw it when his delete is committed, nothing waits there at that moment. He is in no hurry: a
flag that is up costs only that jobs go the ordinary way; and one that comes back at once is left up for longer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from math import inf

from ...context import TermContext
from ...ledger.commits import Commits, Verdict, Write, unmodified
from ...ledger.ledger import Delete, Event, Put
from ...ledger.scan import pages
from ...recent import Recent
from ..dispatch.picture import Picture
from ..dispatch.queues import Queue
from ..election.authority import Authority

UP_S, UP_S_MAX = 0.02, 1.0
"""A flag is up for so long at least; twice as long each time it comes back soon after it was taken down."""

SOON = 4
"""Of that time: what comes back before this comes back soon."""

LOOKED_AT_MAX = 200
TAKEN_DOWN_MAX = 50
"""Flags, in one look."""

QUEUES_KEPT = 2_000


class Flag:
    """`since`: when it went up. `asked`: at which revision of it we have asked to take it down."""

    __slots__ = ("asked", "revision", "since")

    def __init__(self, revision: int, since: float) -> None:
        self.revision = revision
        self.since = since
        self.asked = 0


class Flags:
    """Of one term, between two snapshots."""

    def __init__(self, context: TermContext, picture: Picture, authority: Authority) -> None:
        self._context = context
        self._keys = context.keys
        self._picture = picture
        self._authority = authority
        self._flags: OrderedDict[str, Flag] = OrderedDict()      # what was looked at last comes last
        self._stay: Recent[str, tuple[float, float]] = Recent(QUEUES_KEPT)  # how long up, and when it was taken down

    def __len__(self) -> int:
        return len(self._flags)

    async def load(self, revision: int) -> None:
        """Those that there are, at the revision of the snapshot: a later one would show flags of what is not seen
        yet."""
        async for page in pages(self._context.ledger, self._keys.nonempty, revision=revision):
            self.see(Event(False, record) for record in page.records)

    def see(self, events: Iterable[Event]) -> bool:
        """Whether one has gone up that was down."""
        begin, up = self._keys.nonempty, False
        for event in events:
            record = event.record
            if not record.key.startswith(begin):
                continue
            name = self._keys.parse_flag(record.key)
            if name is None:
                continue            # not ours: left alone
            if event.deleted:
                self._flags.pop(name, None)
            elif (flag := self._flags.get(name)) is not None:
                flag.revision = record.mod_revision
            else:
                self._goes_up(name, record.mod_revision)
                up = True
        return up

    def _goes_up(self, name: str, revision: int) -> None:
        now = self._context.clock.monotonic()
        if (before := self._stay.get(name)) is not None:
            up_s, down_at = before
            self._stay.put(name, (min(2 * up_s, UP_S_MAX) if now < down_at + SOON * up_s else UP_S, down_at))
        self._flags[name] = Flag(revision, now)

    def named(self) -> Iterable[str]:
        return self._flags

    def missing(self) -> list[str]:
        """Queues that hold something, and have no flag: who put that there knows none."""
        return [
            name for name, queue in self._picture.queues.items()
            if name not in self._flags and not self._is_empty(queue)
        ]

    def take_down(self, commits: Commits, now: float) -> float:
        """Some of those that may be; returns when another may be, as far as is known."""
        due, taken = inf, 0
        deciding = {item.token.queue for item in self._picture.deciding.values()}
        for _ in range(min(len(self._flags), LOOKED_AT_MAX)):
            name, flag = next(iter(self._flags.items()))
            self._flags.move_to_end(name)
            up_s, _ = self._stay.get(name, (UP_S, 0.0))
            if now < flag.since + up_s:
                due = min(due, flag.since + up_s)
                continue
            if flag.asked == flag.revision or name in deciding:
                continue
            queue = self._picture.queues.get(name)
            if queue is not None and not self._is_empty(queue):
                continue
            flag.asked, flag.since = flag.revision, now
            key = self._keys.flag(name)
            write = Write((self._context.fence, unmodified(key, flag.revision)), (Delete(key),))
            commits.submit(write).add_done_callback(partial(self._asked, name, flag, up_s))
            taken += 1
            if taken >= TAKEN_DOWN_MAX:
                return now
        return due if len(self._flags) <= LOOKED_AT_MAX else now

    def _asked(self, name: str, flag: Flag, up_s: float, done: asyncio.Future[Verdict]) -> None:
        if done.cancelled() or done.exception() is not None:
            flag.asked = 0
        elif (verdict := done.result()).applied:
            self._stay.put(name, (up_s, self._context.clock.monotonic()))
        elif verdict.failed is not None and verdict.failed.key == self._context.fence.key:
            self._authority.depose()
        else:                               # it has just been put again
            self._stay.put(name, (min(2 * up_s, UP_S_MAX), 0.0))

    def put_up(self, commits: Commits) -> bool:
        """Those that are missing. Whether there were any."""
        names = self.missing()
        for name in names[:TAKEN_DOWN_MAX]:
            commits.submit(Write((self._context.fence,), (Put(self._keys.flag(name), b""),)))
        return bool(names)

    def _is_empty(self, queue: Queue) -> bool:
        """Whether it is certain that nothing waits there (what is given out has no verdict: `deciding`)."""
        return not queue.splitting and queue.blind_to <= self._picture.revision and not any(
            window.places or window.is_partial for window in queue.windows.values()
        )
