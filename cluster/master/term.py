"""A master's term: the thin shell that carries out what the aggregator decides.

It shares nothing with its own node but the ledger, and yields every few milliseconds. At one revision it reads nodes,
tasks, queues and all claims, then the first page of each queue; then one watch over the cluster keeps it up to date.
Every write is guarded by the term's fence, so a master that has been succeeded can decide what it likes.
"""

from __future__ import annotations

import asyncio
import random

from msgspec.structs import replace

from rota.client.codec import Seal
from rota.client.errors import LedgerError

from ..cancellation import apart
from ..clock import Clock
from ..events.aside import teller
from ..events.hub import Events
from ..events.records import SnapshotRetaken, StrayFound, TookOver
from ..ledger.buckets import Buckets
from ..ledger.commits import Commits, Verdict, unmodified
from ..ledger.ledger import Changes, Condition, Event, Ledger, Page, Record, prefix_end
from ..ledger.patience import steadily
from ..ledger.scan import pages
from ..state import moves
from ..state.keys import Keys, shown
from ..state.quarantine import SetAside, damage
from ..state.records import Token
from .bulk import Bulk
from .dispatch import PAGE_FIRST, Aggregator, Command, GiveClaim, LoadPage, Quarantine, Split, TakeOver
from .election import Deposed
from .retention import Retention
from .scheduler import Scheduler
from .schedules import Schedules
from .takeover import take_over

TICK_S = 0.25
COMPARE_S = 30.0
STRAYS_S = 60.0


class Master:
    """One term. `run` returns never: it raises `Deposed` when the fence fails, or is cancelled."""

    def __init__(
        self, ledger: Ledger, keys: Keys, clock: Clock, fence: Condition, seal: Seal, rng: random.Random,
        *, events: Events, keep_failed_s: float = 0.0, node: str = "",
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._fence = fence
        self._seal = seal
        self._rng = rng
        self._events = events
        self._keep_failed_s = keep_failed_s
        self._node = node
        assert isinstance(fence.operand, int)
        self.fence_revision = fence.operand
        self._strays_at = 0.0
        self._wake = asyncio.Event()
        self._deposed: asyncio.Future[None] | None = None
        self.aggregator = Aggregator(keys)

    async def run(self) -> None:
        """Serve the term, from a fresh snapshot whenever the watch has lost its place."""
        async with Commits(self._ledger) as commits:
            self._commits = commits
            self._deposed = asyncio.get_running_loop().create_future()
            said = ""
            try:
                while True:
                    try:
                        await apart(self._serve(), "master-serve")
                    except* (LedgerError, _OutOfStep) as group:
                        if (why := str(group.exceptions[0])) != said:
                            self._events.emit(SnapshotRetaken(why))
                        said = why
                    await asyncio.sleep(TICK_S)     # not in there: what cancels it would come out in a group
            finally:
                self._deposed = None

    async def _serve(self) -> None:
        await self._commits.until_idle()        # what was decided before must not come to pass unseen
        self.aggregator = Aggregator(self._keys)
        buckets = Buckets(self._ledger, self._clock, self._rng)
        self._aside = SetAside(self._ledger, self._keys, self._clock, self._seal, buckets, teller(self._events))
        self._scheduler = Scheduler(
            self._ledger, self._keys, self._clock, self._commits, self._fence, self._aside
        )
        self._schedules = Schedules(
            self._ledger, self._keys, self._clock, self._commits, self._fence, self._seal, self._events
        )
        self._bulk = Bulk(
            self._ledger, self._keys, self._clock, self._fence, self._seal, self._rng, events=self._events,
            on_deposed=self._depose, node=self._node,
        )
        revision = await self._snapshot()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._watch(revision), name="master-watch")
            group.create_task(self._scheduler.run(), name="master-scheduler")
            group.create_task(self._schedules.run(), name="master-schedules")
            group.create_task(steadily("comparing", self._compare, _OutOfStep), name="master-compare")
            retention = Retention(
                self._ledger, self._keys, self._clock, self._commits, self._fence, self._keep_failed_s, self._events
            )
            group.create_task(steadily("dropping old failures", retention.run), name="master-retention")
            group.create_task(self._until_deposed(), name="master-fence")
            group.create_task(self._bulk.run(), name="master-bulk")
            await self._decide()

    async def _until_deposed(self) -> None:
        assert self._deposed is not None
        await self._deposed

    # -- looking -----------------------------------------------------------------------------------------------------

    async def _snapshot(self) -> int:
        """Read what must be known before the first decision, at one revision."""
        keys, now = self._keys, self._clock.monotonic()
        revision = 0
        for prefix in (keys.nodes, keys.tasks, keys.queues, keys.claims):
            async for page in pages(self._ledger, prefix, revision=revision):
                revision = page.revision
                self.aggregator.apply([Event(False, record) for record in page.records], revision, now)
        await self._first_pages(revision)
        self.aggregator.open()
        self._wake.set()
        return revision

    async def _first_pages(self, revision: int) -> None:
        """The head of every (queue, priority) that holds a job. What one read shows is used for all of them that it
        shows: etcd walks over everything behind it, however little is asked for."""
        keys = self._keys
        key, end, more = keys.jobs, prefix_end(keys.jobs), True
        while more:
            page = await self._ledger.read(key, end, limit=PAGE_FIRST, revision=revision)
            lanes: dict[tuple[str, int], list[Record]] = {}
            for record in page.records:
                key, parsed = record.key + b"\0", keys.parse_job(record.key)
                if parsed is not None:          # else it is not ours: left alone
                    lanes.setdefault((parsed.queue, parsed.priority), []).append(record)
                    key = prefix_end(keys.lane(parsed.queue, parsed.priority))
            more = page.more
            last = next(reversed(lanes), None)
            for lane, records in lanes.items():
                self.aggregator.expect_page(*lane)
                self.aggregator.page(*lane, records, more=more and lane == last)

    async def _watch(self, revision: int) -> None:
        root = self._keys.root
        async with self._ledger.watch(root, prefix_end(root), from_revision=revision + 1) as watch:
            async for changes in watch:
                self._see(changes)
        raise _OutOfStep("the watch has ended")

    def _see(self, changes: Changes) -> None:
        self.aggregator.apply(changes.events, changes.revision, self._clock.monotonic())
        self._scheduler.see(changes)
        self._schedules.see(changes)
        self._bulk.see(changes)
        if changes.events:
            self._wake.set()
            if any(event.record.key == self._fence.key for event in changes.events):
                self._depose()          # somebody deleted our election key, or wrote over it

    async def _compare(self) -> None:
        """Watches are edges, not truth: now and then look at who is a member, and at claims under nobody."""
        keys = self._keys
        while True:
            await asyncio.sleep(COMPARE_S)
            members = await self._ledger.read(keys.nodes, prefix_end(keys.nodes), keys_only=True)
            await asyncio.sleep(2.0)        # by now the watch must have shown all that
            now = await self._ledger.read(keys.nodes, prefix_end(keys.nodes), keys_only=True)
            known = {keys.node(node) for node in self.aggregator.seats}
            before, after = self._members_in(members), self._members_in(now)
            stable, gone = before & after, known - before - after
            if stable - known or gone:
                raise _OutOfStep("the watch has missed that a node came or went")

    def _members_in(self, page: Page) -> set[bytes]:
        """What is a member to the aggregator as well."""
        return {record.key for record in page.records if record.lease and self._keys.parse_node(record.key) is not None}

    # -- deciding ----------------------------------------------------------------------------------------------------

    async def _decide(self) -> None:
        while True:
            self._wake.clear()
            self._name_strays()
            wall_s = self._clock.wall()
            commands = self.aggregator.decide(self._clock.monotonic(), int(wall_s * 1000))
            for command in commands:
                self._carry_out(command)
            if commands:
                await asyncio.sleep(0)
                continue
            try:
                next_ms = self.aggregator.next_ms
                async with asyncio.timeout(TICK_S if next_ms is None else min(TICK_S, next_ms / 1000 - wall_s + 0.001)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _name_strays(self) -> None:
        count, now = self.aggregator.unparsable, self._clock.monotonic()
        if count and now >= self._strays_at:
            self._strays_at, self.aggregator.unparsable = now + STRAYS_S, 0
            self._events.emit(StrayFound(shown(self.aggregator.unparsable_key), count))

    def _carry_out(self, command: Command) -> None:
        match command:
            case GiveClaim():
                self._give(command)
            case Split():
                self._group.create_task(self._split(command), name="master-split")
            case LoadPage():
                self._group.create_task(self._load(command), name="master-page")
            case TakeOver(node):
                self._group.create_task(self._take_over(node), name=f"takeover-{node}")
            case Quarantine(record):
                self._group.create_task(self._set_aside(record, None, "unreadable"), name="master-set-aside")

    def _give(self, command: GiveClaim) -> None:
        """Move the token under the node: refused if it has moved, if the node has changed, or if we are deposed."""
        item, seat, aggregator = command.item, command.seat, self.aggregator
        token = item.token if item.token.mode == command.held.mode else replace(item.token, mode=command.held.mode)
        write = moves.claim(
            self._keys, (self._fence, unmodified(self._keys.node(seat.node), seat.mod_revision)),
            unmodified(item.key, item.mod_revision), item.bundle, token, seat.node, fence=self.fence_revision,
            serial=command.serial,
        )

        def settled(future: asyncio.Future[Verdict]) -> None:
            verdict = self._verdict(future)
            if verdict is not None:
                aggregator.settle(
                    item, seat, command.held, applied=verdict.applied, token_stale=self._is_about(verdict, item.key),
                    doubtful_at=verdict.revision if verdict.repeated else None, now=self._clock.monotonic(),
                    revision=self._instead(verdict, item.key),
                )
                if not verdict.applied:
                    self._wake.set()

        self._commits.submit(write).add_done_callback(settled)

    def _verdict(self, future: asyncio.Future[Verdict]) -> Verdict | None:
        """None where the term is over anyway, or the store refused for want of space (tried again by the next term)."""
        if future.cancelled():
            return None
        error = future.exception()
        if error is not None:
            if not isinstance(error, LedgerError):
                raise error
            self._give_up(f"a claim could not be committed: {error}")
            return None
        verdict = future.result()
        if verdict.failed is not None and verdict.failed.key == self._fence.key:
            self._depose()
            return None
        return verdict

    def _depose(self) -> None:
        if self._deposed is not None and not self._deposed.done():
            self._deposed.set_exception(Deposed("another node is master"))

    def _give_up(self, why: str) -> None:
        if self._deposed is not None and not self._deposed.done():
            self._deposed.set_exception(_OutOfStep(why))
            self._deposed = asyncio.get_running_loop().create_future()

    @staticmethod
    def _is_about(verdict: Verdict, key: bytes) -> bool:
        return verdict.failed is not None and verdict.failed.key == key

    def _instead(self, verdict: Verdict, key: bytes) -> int:
        """The revision of the token that lies where another was expected, or 0."""
        return verdict.found.mod_revision if self._is_about(verdict, key) and verdict.found is not None else 0

    async def _split(self, command: Split) -> None:
        item = command.item
        body = await self._ledger.read(self._keys.body(item.bundle))
        wrong = damage(item.bundle, item.token, body.records[0].value if body.records else b"")
        if wrong:
            await self._set_aside(Record(item.key, b"", 0, item.mod_revision, 0), item.token, wrong)
            self.aggregator.settle(item, None, applied=True, token_stale=True, doubtful_at=None, now=0.0)
            return
        write = moves.split(
            self._keys, (self._fence,), unmodified(item.key, item.mod_revision), item.bundle, item.token,
            body.records[0], command.size,
        )
        future = self._commits.submit(write)
        await asyncio.wait([future])
        verdict = self._verdict(future)
        if verdict is not None:
            stale = not verdict.applied
            self.aggregator.settle(
                item, None, applied=verdict.applied, token_stale=stale, doubtful_at=None, now=0.0,
                revision=verdict.revision,
            )
            self._wake.set()

    async def _load(self, command: LoadPage) -> None:
        lane = self._keys.lane(command.queue, command.priority)
        after = command.after + b"\0" if command.after else lane
        page = await self._ledger.read(after, prefix_end(lane), limit=command.limit)
        self.aggregator.page(command.queue, command.priority, page.records, more=page.more)
        self._wake.set()

    async def _take_over(self, node: str) -> None:
        began = self._clock.monotonic()
        moved = await take_over(
            self._ledger, self._keys, self._clock, self._commits, self._fence, node,
            tasks=self.aggregator.tasks, aside=self._aside,
        )
        if moved is None:
            self._depose()
        elif moved:
            self._events.emit(TookOver(node, moved, self._clock.monotonic() - began))

    async def _set_aside(self, record: Record, token: Token | None, reason: str) -> None:
        """If it is still there, as it was."""
        if token is None:
            write = await self._aside.unreadable((self._fence,), record)
        else:
            write = await self._aside.fail((self._fence,), record, token, reason)
        await self._commits.submit(write)


class _OutOfStep(Exception):
    """What the master knows has parted from the store: look again."""


