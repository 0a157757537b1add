"""A master's term: the thin shell that carries out what the aggregator decides.

It shares nothing with its own node but the ledger, and yields every few milliseconds. At one revision it reads nodes,
tasks, queues and all claims, then the first page of each queue; then one watch over the cluster keeps it up to date.
(Not by `ledger/follow`: that lists what it watches, and a master must not read all that waits. Where its watch is
overtaken it looks afresh as a whole.)
"""

from __future__ import annotations

import asyncio

from rota.client.errors import LedgerError

from ..cancellation import apart
from ..context import NodeContext, TermContext
from ..events.aside import teller
from ..events.records import SnapshotRetaken, StrayFound
from ..ledger.buckets import Buckets
from ..ledger.ledger import Changes, Condition, prefix_end
from ..ledger.patience import steadily
from ..state.discarding import Discards
from ..state.keys import shown
from ..state.nonempty import commits_of
from ..state.quarantine import SetAside
from .carrying_out import CarryingOut
from .dispatch.aggregator import Aggregator
from .dispatch.picture import Picture
from .duties.bulk import Bulk
from .duties.dependants import Dependants
from .duties.ends import Ends
from .duties.lending import Lending
from .duties.retention import Retention
from .duties.scheduler import Scheduler
from .duties.schedules import Schedules
from .election.authority import Authority, OutOfStep
from .snapshot import compare, take_snapshot

TICK_S = 0.25
STRAYS_S = 60.0


class Master:
    """One term. `run` returns never: it raises `Deposed` when the fence fails, or is cancelled."""

    def __init__(self, context: NodeContext, fence: Condition, *, node: str, keep_failed_s: float = 0.0) -> None:
        self._node = node
        self._fence = fence
        self._keep_failed_s = keep_failed_s
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._seal = context.seal
        self._rng = context.rng
        self._events = context.events
        self._strays_at = 0.0
        self._wake = asyncio.Event()        # there is something to decide
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve the term, from a fresh snapshot whenever the watch has lost its place."""
        async with commits_of(self._ledger, self._keys) as commits:
            context = TermContext(
                node=self._node, fence=self._fence, ledger=self._ledger, commits=commits, keys=self._keys,
                clock=self._clock, rng=self._rng, seal=self._seal, events=self._events,
            )
            self._authority = Authority()
            last = ""
            try:
                while True:
                    try:
                        await apart(self._serve(context), "master-serve")
                    except* (LedgerError, OutOfStep) as group:
                        if (why := str(group.exceptions[0])) != last:
                            self._events.emit(SnapshotRetaken(why))
                        last = why
                    await asyncio.sleep(TICK_S)     # not in there: what cancels it would come out in a group
            finally:
                self._authority.is_over()

    async def _serve(self, context: TermContext) -> None:
        await context.commits.until_idle()      # what was decided before must not come to pass unseen
        self.picture = picture = Picture(self._keys)
        self.aggregator = aggregator = Aggregator(picture)
        buckets = Buckets(self._ledger, self._clock, self._rng)
        aside = SetAside(self._ledger, self._keys, self._clock, self._seal, buckets, teller(self._events))
        discards = Discards(self._ledger, self._keys, self._seal, buckets)
        ends = Ends(self._ledger, self._keys, context.commits, picture.is_serial)
        self._scheduler = Scheduler(context, aside, discards, ends)
        self._schedules = Schedules(context)
        self._dependants = Dependants(context, aside, buckets, ends)
        self._bulk = Bulk(context, self._authority, picture.is_serial)
        self._lending = Lending(context, picture, self._authority)
        revision = await take_snapshot(self._ledger, self._keys, self._clock, picture)
        await self._lending.load(revision)
        self._wake.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(revision), name="master-watch")
            group.create_task(self._scheduler.run(), name="master-scheduler")
            group.create_task(self._schedules.run(), name="master-schedules")
            group.create_task(self._dependants.run(), name="master-dependants")
            group.create_task(
                steadily("comparing", lambda: compare(self._ledger, self._keys, picture), OutOfStep),
                name="master-compare",
            )
            group.create_task(steadily("saying what is lent", self._lending.run), name="master-lending")
            retention = Retention(context, self._keep_failed_s)
            group.create_task(steadily("dropping old failures", retention.run), name="master-retention")
            group.create_task(self._authority.lost(), name="master-fence")
            group.create_task(self._bulk.run(), name="master-bulk")
            await self._decide(CarryingOut(
                context, self._authority, aggregator, aside, discards, buckets, group, self._wake
            ))

    # -- looking -----------------------------------------------------------------------------------------------------

    async def _watch(self, revision: int) -> None:
        root = self._keys.root
        async with self._ledger.watch(root, prefix_end(root), from_revision=revision + 1) as watch:
            async for changes in watch:
                self._see(changes)
        raise OutOfStep("the watch has ended")

    def _see(self, changes: Changes) -> None:
        self.picture.apply(changes.events, changes.revision, self._clock.monotonic())
        self._scheduler.see(changes)
        self._schedules.see(changes)
        self._dependants.see(changes)
        self._bulk.see(changes)
        self._lending.see(changes)
        if changes.events:
            self._pace()
            if any(event.record.key == self._fence.key for event in changes.events):
                self._authority.depose()        # somebody deleted our election key, or wrote over it

    def _pace(self) -> None:
        """See that the loop decides when what has been seen is due."""
        now = self._clock.monotonic()
        if (due := self.picture.due(now)) is None or self._wake.is_set():
            return
        if due <= now:
            self._wake.set()
        elif self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(due - now, self._wake.set)

    # -- deciding ----------------------------------------------------------------------------------------------------

    async def _decide(self, carrying_out: CarryingOut) -> None:
        while True:
            self._wake.clear()
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            self._name_strays()
            wall_s = self._clock.wall()
            commands = self.aggregator.decide(self._clock.monotonic(), int(wall_s * 1000))
            for command in commands:
                carrying_out.carry_out(command)
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
        if (now := self._clock.monotonic()) >= self._strays_at:
            count, key = self.picture.strays()
            if count:
                self._strays_at = now + STRAYS_S
                self._events.emit(StrayFound(shown(key), count))
