"""Jobs that wait for other jobs: let in what has ended, and release who waits for nothing more. The master runs it.

Whatever happens to a job that others wait for shows below the cluster's root; then it is looked up what has become of
it, and those that wait get their part: what it returned (signed anew, on no lease), or that it ended. The last part
comes in the transaction that releases. So nothing has to be counted: what a job has got only grows, each write is
guarded by its token as it was seen, and a master that begins anew reads what the one before has written.
(docs/decisions/0025)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice

import msgspec

from rota.client.ids import job_id
from rota.client.model import ResultEntry

from ..context import TermContext
from ..ledger.buckets import Buckets
from ..ledger.commits import Verdict, Write, unmodified
from ..ledger.ledger import Changes, Condition, Event, Get, Put, Record, Txn, prefix_end
from ..ledger.scan import pages
from ..state import moves
from ..state.discarding import Discards
from ..state.keys import whole
from ..state.quarantine import SetAside
from ..state.records import Awaiting, awaiting_at, bits
from ..state.upstream import Became, read, sorted_out

AT_ONCE = 32
"""Bundles that are looked up at a time."""

BYTES_PER_WRITE = 512 * 1024
LOOK_S = 10.0
LOOKED_MAX = 500
"""Watches are edges, not truth: so many bundles are looked up again every so often, in turn."""

SWEEP_S = 20.0
"""What jobs were given goes so long after they have ended, at the most."""


class Waiting(msgspec.Struct, gc=False):
    """One token below `awaiting/`. Bitmaps by bundle: `left` is what has not been let in, `badly` what of it is known
    not to have ended well."""

    key: bytes
    bundle: str
    mod_revision: int
    token: Awaiting
    left: dict[str, int]
    wanted: dict[str, int]
    badly: dict[str, int] = {}

    @property
    def at(self) -> Condition:
        return unmodified(self.key, self.mod_revision)


class Dependants:
    """One term's. `see` what the watch shows; `run` in the background."""

    def __init__(self, context: TermContext, aside: SetAside, buckets: Buckets) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._commits = context.commits
        self._fence = context.fence
        self._seal = context.seal
        self._aside = aside
        self._discards = Discards(context.ledger, context.keys, context.seal, buckets)
        self._waiting: dict[bytes, Waiting] = {}
        self._of: dict[str, set[bytes]] = {}        # bundle -> keys of those that wait for jobs of it
        self._to_look: dict[str, None] = {}         # bundles, in order
        self._unreadable: list[Record] = []
        self._turn = 0
        self._seen = 0
        self._wake = asyncio.Event()

    # -- what there is -----------------------------------------------------------------------------------------------

    def see(self, changes: Changes) -> None:
        self._seen = changes.revision
        for event in changes.events:
            if event.record.key.startswith(self._keys.awaiting):
                self._note(event)
            if self._of and (bundle := self._bundle_of(event.record.key)) in self._of:
                self._look_at(bundle)

    def _note(self, event: Event) -> None:
        if event.deleted:
            self._forget(event.record.key)
        else:
            self._add(event.record)

    def _add(self, record: Record) -> None:
        known = self._waiting.get(record.key)
        if known is not None and known.mod_revision >= record.mod_revision:
            return
        token = awaiting_at(self._keys, record)
        if token is None:
            if self._keys.parse_awaits(record.key) is not None:     # else it is not ours: left alone
                self._unreadable.append(record)
                self._wake.set()
            return
        bundle = record.key.rpartition(b"/")[2].decode()
        if known is not None:
            known.mod_revision, known.token = record.mod_revision, token
        else:
            self._waiting[record.key] = known = Waiting(
                record.key, bundle, record.mod_revision, token,
                {one.bundle: int(one.jobs or "0", 16) for one in token.upstream},
                {one.bundle: int(one.wanted or "0", 16) for one in token.upstream},
            )
            for upstream in known.left:
                self._of.setdefault(upstream, set()).add(record.key)
        for upstream in known.left:
            self._look_at(upstream)

    def _forget(self, key: bytes) -> None:
        waiting = self._waiting.pop(key, None)
        for upstream in waiting.wanted if waiting is not None else ():
            self._part(key, upstream)

    def _part(self, key: bytes, upstream: str) -> None:
        keys = self._of.get(upstream, set())
        keys.discard(key)
        if not keys:
            self._of.pop(upstream, None)

    def _look_at(self, bundle: str) -> None:
        self._to_look[bundle] = None
        self._wake.set()

    def _bundle_of(self, key: bytes) -> str:
        """The bundle, as enqueued, that a key tells something of."""
        if key.startswith(self._keys.failed):
            parsed = self._keys.parse_failed(key)
            return parsed[1] if parsed is not None else ""
        return whole(key.rpartition(b"/")[2].decode(errors="replace"))

    # -- the duty ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self._load()
        next_look = next_sweep = self._clock.monotonic()
        while True:
            self._wake.clear()
            await self.settle()
            now = self._clock.monotonic()
            if now >= next_look:
                next_look = now + LOOK_S
                await self.expire()
                self._look_again()
            if now >= next_sweep:
                next_sweep = now + SWEEP_S
                await self.sweep()
            if self._to_look or self._unreadable:
                continue
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _load(self) -> None:
        """All that waits, and what it has got already."""
        async for page in pages(self._ledger, self._keys.awaiting):
            for record in page.records:
                self._add(record)
        if not self._waiting:
            return
        by_bundle = {waiting.bundle: waiting for waiting in self._waiting.values()}
        async for page in pages(self._ledger, self._keys.inputs, keys_only=True):
            for record in page.records:
                parsed = self._keys.parse_input(record.key)
                found = by_bundle.get(parsed[0]) if parsed is not None else None
                if parsed is not None and found is not None:
                    _, upstream, jobs, well = parsed
                    if well:
                        self._has_got(found, upstream, jobs)
                    else:
                        found.badly[upstream] = found.badly.get(upstream, 0) | jobs
        for waiting in by_bundle.values():
            if not waiting.left:
                await self._release(waiting, ())

    async def settle(self) -> None:
        """Look up what is to be looked up, until nothing is."""
        unreadable, self._unreadable = self._unreadable, []
        for record in unreadable:
            await self._commits.submit(await self._aside.unreadable((self._fence,), record))
        while self._to_look:
            batch = list(islice(self._to_look, AT_ONCE))
            for bundle in batch:
                del self._to_look[bundle]
            await asyncio.gather(*(self._settle(bundle) for bundle in batch))

    async def expire(self) -> None:
        """Too late for some of them, whatever they wait for."""
        now_ms = self._clock.wall() * 1000
        late = [waiting for waiting in self._waiting.values() if 0 < waiting.token.expires <= now_ms]
        for start in range(0, len(late), AT_ONCE):
            await asyncio.gather(*map(self._expire, late[start : start + AT_ONCE]))

    async def _expire(self, waiting: Waiting) -> None:
        record = Record(waiting.key, b"", 0, waiting.mod_revision, 0)
        await self._move(waiting, await self._discards.expired((self._fence,), record, waiting.token))

    def _look_again(self) -> None:
        """Some of those that are waited for, in turn."""
        bundles = list(self._of)
        self._turn = self._turn + LOOKED_MAX if self._turn + LOOKED_MAX < len(bundles) else 0
        for bundle in bundles[self._turn : self._turn + LOOKED_MAX]:
            self._to_look[bundle] = None

    async def _settle(self, upstream: str) -> None:
        """One bundle, and all that wait for jobs of it."""
        those = [self._waiting[key] for key in self._of.get(upstream, ())]
        jobs = 0
        for waiting in those:
            jobs |= waiting.left.get(upstream, 0)
        if not jobs:
            return
        became = await read(self._ledger, self._keys, self._seal, upstream, jobs)
        for start in range(0, len(those), AT_ONCE):
            await asyncio.gather(*(
                self._let_in(waiting, upstream, became) for waiting in those[start : start + AT_ONCE]
            ))

    async def _let_in(self, waiting: Waiting, upstream: str, became: Became) -> None:
        good, bad = sorted_out(
            became, waiting.left.get(upstream, 0), waiting.wanted.get(upstream, 0), waiting.badly.get(upstream, 0)
        )
        if bad and waiting.token.on_upstream == "cancel":
            await self._cancel(waiting, job_id(upstream, bad[0].index), bad[0])
            return
        if bad and waiting.token.on_upstream == "run":
            good, bad = good + bad, []
        told = waiting.badly.get(upstream, 0)
        if not await self._tell_badly(waiting, upstream, [
            entry for entry in bad if entry.index in became.badly or told >> entry.index & 1
        ]):
            await self._read_again(waiting)
            return
        parts = list(self._parts(waiting, upstream, good))
        for number, (jobs, put) in enumerate(parts):
            if number == len(parts) - 1 and waiting.left == {upstream: jobs}:
                wanted = jobs & waiting.wanted.get(upstream, 0)
                await self._release(waiting, (put,) if wanted else ())
                return
            verdict = await self._commits.submit(moves.let_in((self._fence,), waiting.at, put))
            if not verdict.applied and (verdict.failed is None or verdict.failed.key != put.key):
                await self._read_again(waiting)
                return
            self._has_got(waiting, upstream, jobs)
        if not waiting.left:            # others came in at the same time
            await self._release(waiting, ())

    def _parts(self, waiting: Waiting, upstream: str, entries: list[ResultEntry]) -> Iterator[tuple[int, Put]]:
        """What it is to have of a bundle, cut so that no write is too large. Values go to who wants them."""
        wanted, part, size = waiting.wanted.get(upstream, 0), list[ResultEntry](), 0
        for entry in entries:
            if not wanted >> entry.index & 1:
                entry = ResultEntry(entry.index, entry.status, attempts=entry.attempts)
            weight = len(entry.value) + len(entry.error) + len(entry.traceback)
            if part and size + weight > BYTES_PER_WRITE:
                yield self._put(waiting.bundle, upstream, part)
                part, size = [], 0
            part.append(entry)
            size += weight
        if part:
            yield self._put(waiting.bundle, upstream, part)

    def _put(self, bundle: str, upstream: str, entries: list[ResultEntry]) -> tuple[int, Put]:
        return bits([entry.index for entry in entries]), moves.given(self._keys, self._seal, bundle, upstream, entries)

    async def _tell_badly(self, waiting: Waiting, upstream: str, bad: list[ResultEntry]) -> bool:
        """That some have failed is kept: what is left of them goes before who waits does. That they were retried, too.
        False: who waits is not any more what it was seen as, and nothing of it is stored."""
        jobs, told = bits([entry.index for entry in bad]), waiting.badly.get(upstream, 0)
        if jobs == told:
            return True
        if told:
            area = self._keys.not_well(waiting.bundle, upstream, 0)[:-1]
            page = await self._ledger.read(area, prefix_end(area), keys_only=True)
            for record in page.records:
                if not (await self._commits.submit(moves.let_out((self._fence,), waiting.at, record.key))).applied:
                    return False
        if jobs:
            put = moves.not_well(self._keys, waiting.bundle, upstream, jobs)
            verdict = await self._commits.submit(moves.let_in((self._fence,), waiting.at, put))
            if not verdict.applied and (verdict.failed is None or verdict.failed.key != put.key):
                return False
        waiting.badly[upstream] = jobs
        return True

    async def _release(self, waiting: Waiting, came: tuple[Put, ...]) -> None:
        order = max(self._seen, self._commits.revision, waiting.token.order)
        await self._move(waiting, moves.release(
            self._keys, (self._fence,), waiting.at, waiting.bundle, waiting.token, order, came,
            int(self._clock.wall() * 1000),
        ))

    async def _cancel(self, waiting: Waiting, job: str, entry: ResultEntry) -> None:
        record = Record(waiting.key, b"", 0, waiting.mod_revision, 0)
        why = f"job {job}, which it waited for, {ENDED.get(entry.status, 'did not end well')}"
        write = await self._discards.waiting((self._fence,), record, waiting.token, why=why)
        assert write is not None        # it is for all of its jobs
        await self._move(waiting, write)

    async def _move(self, waiting: Waiting, write: Write) -> None:
        verdict: Verdict = await self._commits.submit(write)
        if verdict.applied:
            self._forget(waiting.key)
        else:
            await self._read_again(waiting)

    async def _read_again(self, waiting: Waiting) -> None:
        """Somebody else has moved or changed it, or we had without knowing."""
        page = await self._ledger.read(waiting.key)
        if not page.records:
            self._forget(waiting.key)
        elif self._waiting.get(waiting.key) is waiting:
            self._add(page.records[0])

    def _has_got(self, waiting: Waiting, upstream: str, jobs: int) -> None:
        left = waiting.left.get(upstream, 0) & ~jobs
        if left:
            waiting.left[upstream] = left
        elif waiting.left.pop(upstream, 0):
            self._part(waiting.key, upstream)

    # -- what is left ------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Take away what jobs were given that have ended since."""
        keys, given = self._keys, dict[str, None]()
        async for page in pages(self._ledger, keys.inputs, keys_only=True):
            for record in page.records:
                if (parsed := keys.parse_input(record.key)) is not None:
                    given[parsed[0]] = None
        waiting = {one.bundle for one in self._waiting.values()}
        over = [bundle for bundle in given if bundle not in waiting]
        for start in range(0, len(over), AT_ONCE):
            await asyncio.gather(*map(self._sweep, over[start : start + AT_ONCE]))

    async def _sweep(self, bundle: str) -> None:
        body, failures = self._keys.body(bundle), self._keys.failures_of(bundle)
        bodies, failed = (await self._ledger.commit(Txn((), (
            Get(body, body + b"/", True, 1), Get(failures, prefix_end(failures), True, 1),
        )))).answers
        if not bodies and not failed:
            await self._ledger.commit(Txn((self._fence,), (moves.forgotten(self._keys, bundle),)))


ENDED = {"failed": "failed", "cancelled": "was cancelled", "expired": "expired"}
