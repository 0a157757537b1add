"""Jobs that wait for other jobs: let in what has ended, and release who waits for nothing more. The master runs it.

Whatever happens to a job that others wait for shows below the cluster's root; then it is looked up what has become of
it, and those that wait get their part: what it returned (signed anew, on no lease), or that it ended. The last part
comes in the transaction that releases. So nothing has to be counted: what a job has got only grows, each write is
guarded by its token as it was seen, and a master that begins anew reads what the one before has written.
(docs/decisions/0025)
"""

from __future__ import annotations

import asyncio
from itertools import islice

from rota.client.ids import job_id
from rota.client.model import ResultEntry

from ...context import TermContext
from ...ledger.buckets import Buckets
from ...ledger.commits import Verdict, Write
from ...ledger.ledger import Changes, Condition, Put, Record
from ...ledger.scan import pages
from ...state import moves
from ...state.discarding import Discards
from ...state.quarantine import SetAside
from ...state.records import Awaiting, bits
from ...state.upstream import Became, read, sorted_out
from .awaited import Awaited, Waiting
from .ends import Ends, Entry
from .flows import Flows
from .inputs import Inputs
from .notes import Notes
from .sweeping import sweep, sweep_steps

AT_ONCE = 32
"""Bundles that are looked up at a time."""

MOVES_AT_ONCE = 256

LOOK_S = 10.0
LOOKED_MAX = 500
"""Watches are edges, not truth: so many bundles are looked up again every so often, in turn."""

SWEEP_S = 20.0
"""What jobs were given goes so long after they have ended, at the most."""

LONG_SWEEP_S = 3600.0
"""Likewise what jobs remembered, where it did not go with them."""


class Dependants:
    """One term's. `see` what the watch shows; `run` in the background."""

    def __init__(self, context: TermContext, aside: SetAside, buckets: Buckets, ends: Ends) -> None:
        self._context = context
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._commits = context.commits
        self._fence = context.fence
        self._aside = aside
        self._ends = ends
        self._discards = Discards(context.ledger, context.keys, context.seal, buckets)
        self._awaited = Awaited()
        self._inputs = Inputs(context)
        self._flows = Flows(context, buckets, self._awaited, self._inputs)
        self._notes = Notes(context.keys, self._awaited, self._flows.sections)

    def see(self, changes: Changes) -> None:
        self._notes.see(changes)

    # -- the duty ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self._load()
        next_look = next_sweep = next_long_sweep = self._clock.monotonic()
        while True:
            self._notes.wake.clear()
            await self.settle()
            await self.wake()           # (what has ended by now is let in: the last look comes first)
            now = self._clock.monotonic()
            if now >= next_look:
                next_look = now + LOOK_S
                await self.expire()
                self._awaited.look_again(LOOKED_MAX)
                self._flows.sections.doubt_all()
            if now >= next_sweep:
                next_sweep = now + SWEEP_S
                await self.sweep()
            if now >= next_long_sweep:
                next_long_sweep = now + LONG_SWEEP_S
                await sweep_steps(self._context)
            if self._has_work():
                continue
            try:
                async with asyncio.timeout(self._patience_s()):
                    await self._notes.wake.wait()
            except TimeoutError:
                pass

    def _patience_s(self) -> float:
        next_ms = self._awaited.alarms.next_ms
        return LOOK_S if next_ms is None else min(LOOK_S, max(0.0, next_ms / 1000 - self._clock.wall()) + 0.001)

    def _has_work(self) -> bool:
        return bool(self._awaited.to_look or self._awaited.ready or self._notes.unreadable or self._flows.has_work)

    async def _load(self) -> None:
        """All that waits, and what it has got already."""
        self._notes.begin(await self._flows.read_all())
        async for page in pages(self._ledger, self._keys.awaiting):
            for record in page.records:
                self._notes.add(record)
        self._flows.sections.doubt_all()
        by_bundle = {waiting.bundle: waiting for waiting in self._awaited.waiting.values() if waiting.token is not None}
        if not by_bundle:
            return
        async for page in pages(self._ledger, self._keys.inputs, keys_only=True):
            for record in page.records:
                parsed = self._keys.parse_input(record.key)
                found = by_bundle.get(parsed[0]) if parsed is not None else None
                if parsed is not None and found is not None:
                    _, upstream, jobs, well = parsed
                    if well:
                        self._awaited.has_got(found, upstream, jobs)
                    else:
                        found.badly[upstream] = found.badly.get(upstream, 0) | jobs

    async def settle(self) -> None:
        """Look up what is to be looked up, until nothing is."""
        unreadable, self._notes.unreadable = self._notes.unreadable, []
        for record in unreadable:
            await self._commits.submit(await self._aside.unreadable((self._fence,), record))
        while self._has_work():
            if self._notes.unreadable and not (self._awaited.to_look or self._awaited.ready or self._flows.has_work):
                return
            self._notes.begin(await self._flows.settle())
            await self._let_go()
            batch = list(islice(self._awaited.to_look, AT_ONCE))
            for bundle in batch:
                del self._awaited.to_look[bundle]
            await asyncio.gather(*(self._settle(bundle) for bundle in batch))

    async def _let_go(self) -> None:
        """Those that wait for nothing more."""
        while self._awaited.ready:
            batch = [
                waiting for key in islice(self._awaited.ready, MOVES_AT_ONCE)
                if (waiting := self._awaited.waiting.get(key)) is not None
            ]
            for key in list(islice(self._awaited.ready, MOVES_AT_ONCE)):
                del self._awaited.ready[key]
            await asyncio.gather(*(self._release(waiting, ()) for waiting in batch))

    async def wake(self) -> None:
        """Those who were to wait until now at the most."""
        rung = self._awaited.alarms.rung(int(self._clock.wall() * 1000))
        for start in range(0, len(rung), MOVES_AT_ONCE):
            those = (self._awaited.waiting.get(key) for key in rung[start : start + MOVES_AT_ONCE])
            await asyncio.gather(*(
                self._wake(waiting, waiting.token) for waiting in those
                if waiting is not None and waiting.token is not None
            ))

    async def _wake(self, waiting: Waiting, token: Awaiting) -> None:
        at, order = waiting.at, max(self._notes.revision, self._commits.revision, token.order)

        def wake(order: int, tail: Condition | None) -> Write:
            return moves.wake(self._keys, (self._fence,), at, waiting.bundle, token, order, tail)

        await self._moved(waiting, await self._ends.enter(Entry(token.queue, order, wake)))

    async def expire(self) -> None:
        """Too late for some of them, whatever they wait for."""
        now_ms = self._clock.wall() * 1000
        late = [
            (waiting, waiting.token) for waiting in self._awaited.waiting.values()
            if waiting.token is not None and waiting.begun and 0 < waiting.token.expires <= now_ms
        ]
        for start in range(0, len(late), AT_ONCE):
            await asyncio.gather(*(self._expire(*one) for one in late[start : start + AT_ONCE]))

    async def _expire(self, waiting: Waiting, token: Awaiting) -> None:
        record = Record(waiting.key, b"", 0, waiting.mod_revision, 0)
        await self._move(waiting, await self._discards.expired((self._fence,), record, token))

    async def sweep(self) -> None:
        """Take away what jobs were given that have ended since, and what is left of flows."""
        await sweep(self._context, self._awaited)

    async def _settle(self, upstream: str) -> None:
        """One bundle, and all that wait for jobs of it."""
        those = self._awaited.of(upstream)
        jobs = 0
        for waiting in those:
            jobs |= waiting.left.get(upstream, 0)
        if not jobs:
            return
        became = await read(self._ledger, self._keys, self._context.seal, upstream, jobs)
        if became.is_empty and not any(upstream in waiting.badly for waiting in those):
            return
        for start in range(0, len(those), MOVES_AT_ONCE):
            await asyncio.gather(*(
                self._let_in(waiting, upstream, became) for waiting in those[start : start + MOVES_AT_ONCE]
            ))

    async def _let_in(self, waiting: Waiting, upstream: str, became: Became) -> None:
        token = waiting.token
        if token is None:
            if not await self._flows.note(waiting, upstream, became):
                await self._read_again(waiting)
            return
        good, bad = sorted_out(
            became, waiting.left.get(upstream, 0), waiting.wanted.get(upstream, 0), waiting.badly.get(upstream, 0)
        )
        if bad and token.on_upstream == "cancel":
            await self._cancel(waiting, token, job_id(upstream, bad[0].index), bad[0])
            return
        if bad and token.on_upstream == "run":
            good, bad = good + bad, []
        known_badly = waiting.badly.get(upstream, 0)
        badly = bits([entry.index for entry in bad if entry.index in became.badly or known_badly >> entry.index & 1])
        if not await self._inputs.tell_badly(waiting, upstream, badly):
            await self._read_again(waiting)
            return
        parts = list(self._inputs.parts(waiting, upstream, good))
        for number, (jobs, put) in enumerate(parts):
            if number == len(parts) - 1 and waiting.left == {upstream: jobs}:
                wanted = jobs & waiting.wanted.get(upstream, 0)
                await self._release(waiting, (put,) if wanted else ())
                return
            if not await self._inputs.let_in(waiting, put):
                await self._read_again(waiting)
                return
            self._awaited.has_got(waiting, upstream, jobs)      # (others may come in at the same time)

    async def _release(self, waiting: Waiting, came: tuple[Put, ...]) -> None:
        if waiting.token is None:
            await self._move(waiting, await self._flows.over(waiting))
            return
        token, at, now_ms = waiting.token, waiting.at, int(self._clock.wall() * 1000)
        order = max(self._notes.revision, self._commits.revision, token.order)

        def release(order: int, tail: Condition | None) -> Write:
            return moves.release(self._keys, (self._fence,), at, waiting.bundle, token, order, came, now_ms, tail)

        if token.due > now_ms:
            await self._move(waiting, release(order, None))
        else:
            await self._moved(waiting, await self._ends.enter(Entry(token.queue, order, release)))

    async def _cancel(self, waiting: Waiting, token: Awaiting, job: str, entry: ResultEntry) -> None:
        record = Record(waiting.key, b"", 0, waiting.mod_revision, 0)
        why = f"job {job}, which it waited for, {ENDED.get(entry.status, 'did not end well')}"
        write = await self._discards.waiting((self._fence,), record, token, why=why)
        assert write is not None        # it is for all of its jobs
        await self._move(waiting, write)

    async def _move(self, waiting: Waiting, write: Write) -> None:
        await self._moved(waiting, await self._commits.submit(write))

    async def _moved(self, waiting: Waiting, verdict: Verdict) -> None:
        if verdict.applied:
            self._notes.forget(waiting.key)
        else:
            await self._read_again(waiting)

    async def _read_again(self, waiting: Waiting) -> None:
        """Somebody else has moved or changed it, or we had without knowing."""
        page = await self._ledger.read(waiting.key)
        if not page.records:
            self._notes.forget(waiting.key)
        elif self._awaited.waiting.get(waiting.key) is not waiting:
            return
        elif waiting.token is None:
            self._flows.sections.to_load[waiting.bundle] = None
        else:
            self._notes.add(page.records[0])


ENDED = {"failed": "failed", "cancelled": "was cancelled", "expired": "expired"}
