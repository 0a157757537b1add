"""A cluster in memory: a real node on the ledger in memory, its port on loopback, its jobs in this process.

    with rota.testing.MemoryCluster() as cluster:
        handle = remind.using(run_after=timedelta(hours=1)).enqueue("ann")
        cluster.travel(hours=1)
        assert handle.result(timeout=5) == "sent"
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import secrets
import sys
import threading
import time
from collections.abc import Collection, Coroutine
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self, TypeVar

from rota.client.api.clients import Client
from rota.client.calls import default
from rota.client.errors import InvalidJob
from rota.client.options import checks as options
from rota.client.settings.local import Local
from rota.client.wire.keyring import Keyring, Seal
from rota.worker.runner.steps import Waits

from ..boot.sites import sites_of
from ..clock import SystemClock
from ..context import NodeContext, TermContext
from ..events.hub import Events
from ..ledger.buckets import Buckets
from ..ledger.commits import Commits, created, unmodified
from ..ledger.ledger import Get, Record, Txn, prefix_end
from ..ledger.memory import MemoryLedger
from ..ledger.scan import scan
from ..master.duties.ends import Ends, Entry
from ..master.duties.scheduler import Scheduler
from ..master.duties.schedules import Schedules
from ..node.node import Node
from ..node.settings import NodeSettings
from ..port.http import HttpPort
from ..state import moves
from ..state.discarding import Discards
from ..state.keys import Keys
from ..state.nonempty import commits_of
from ..state.quarantine import SetAside
from ..state.records import Token, awaiting_at, waiting_at
from ..state.upstream import got, read, sorted_out
from ..telemetry.telemetry import Telemetry
from .local import LocalRunners

T = TypeVar("T")

CLUSTER = "testing"
START_S = 10.0
TICKS_MAX = 10_000
"""Moments at which something is due that one journey stops at; beyond, the rest is done at its end."""

LOOK_S = 0.01
NEVER_MS = 1 << 62
TOLD_MAX = 5
UNSETTLED = ("running", "claimed", "waiting", "blocked")


class TravelClock(SystemClock):
    """The machine's clocks, with a wall clock that can be put forward."""

    ahead_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead_s


class MemoryCluster:
    """One node, without etcd and without processes; everything else is the real thing: enqueue, dispatch, limits,
    retries, serial queues, results. While it is entered, `task.enqueue` goes there.

    It knows the tasks that are declared when it is entered; those declared later, in a test, are shipped by value.
    """

    def __init__(self, *, sync: int = 4, async_: int = 100, labels: Collection[str] = ()) -> None:
        self.client: Client
        self.clock = TravelClock()
        self._sync = sync
        self._async = async_
        self._labels = options.labels(labels)
        self._ready: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._before: default.Caller | None = None
        self._key = secrets.token_bytes(32)
        self._keyring = Keyring({"testing": self._key})
        self.token = secrets.token_urlsafe(32)
        """What its HTTP port asks for: `Authorization: Bearer …`."""
        self.credentials: dict[str, Any] = {"token": self.token, "key": self._keyring}
        """For clients of other users. (This one's find them, as with `rota dev`: `rota.AsyncClient(cluster.url)`.)"""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="rota cluster", daemon=True)
        self._thread.start()
        self.client = Client(self._ready.result(START_S), retry_window_s=5.0, **self.credentials)
        self._before = default.swap(self.client)
        Waits.clock = self.clock.wall
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        default.swap(self._before)
        Waits.clock = time.time
        self.client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)

    @property
    def url(self) -> str:
        """Where its HTTP port listens."""
        return self._ready.result(START_S)

    def travel(self, ahead: timedelta | None = None, *, timeout: float = 10.0, **units: float) -> None:
        """Put the clock forward (`cluster.travel(hours=1)`) and run what is due by then, each at its time; returns when
        that is done. What those jobs schedule in turn, retries among it, runs too if it is due by then. Raises
        TimeoutError as `settle`: `timeout` seconds for what is due at one moment."""
        seconds = (ahead or timedelta(**units)).total_seconds()
        if seconds < 0:
            raise InvalidJob("time travel goes forward only")
        self._call(self._travel(seconds, timeout))

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until nothing runs or waits; what is scheduled for later does not count, nor what stands behind a job in
        a serial queue that is tried again later, or waits for such a job or for one that did not end well. Raises
        TimeoutError, which says what runs or waits, and why."""
        self._call(self._settled(timeout))

    # -- on the cluster's thread -------------------------------------------------------------------------------------

    def _call(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result()

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ledger, self._keys = MemoryLedger(), Keys(CLUSTER)
        self._seal, self._buckets = Seal(self._keyring, CLUSTER), Buckets(self._ledger, self.clock, random.Random())
        settings = NodeSettings(
            name="memory", python=f"{sys.version_info.major}.{sys.version_info.minor}", version=version("rota"),
            grace_s=0.0, labels=self._labels,
        )
        context = NodeContext(
            ledger=self._ledger, keys=self._keys, clock=self.clock, rng=random.Random(), seal=self._seal,
            events=Events(),
        )
        node = self._node = Node(
            settings, context, LocalRunners({"async": self._async, "sync": self._sync}),
        )
        telemetry = Telemetry(node.observed, context, node.directory, known=node.known)
        sites = sites_of(node.service, telemetry, self.token)
        port = HttpPort(node.service, token=self.token, keyring=self._keyring, sites=sites)
        try:
            async with port, asyncio.TaskGroup() as group:
                group.create_task(node.run(), name="node")
                seen = group.create_task(telemetry.run(), name="telemetry")
                while node.service.why_not_ready() or not node.directory.master:    # noqa: ASYNC110 - no one says so
                    await asyncio.sleep(LOOK_S)
                local = Local(os.environ)       # further clients of this user find key and token there
                local.publish(port.port, f"testing:{self._key.hex()}\n", self.token)
                self._ready.set_result(port.url)
                await self._stop.wait()
                local.withdraw(port.port, self.token)
                node.drain()
                node.drain()
                seen.cancel()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            await self._ledger.close()

    async def _travel(self, seconds: float, timeout: float) -> None:
        """From one thing that is due to the next: each runs, and each schedule fires, as it would have, had somebody
        waited."""
        end_s, end_ms = self.clock.ahead_s + seconds, int((self.clock.wall() + seconds) * 1000)
        for _ in range(TICKS_MAX):
            next_ms = min(await self._fire_due(), await self._next_due())
            if next_ms > end_ms:
                break
            wait_s = max(0.0, (next_ms + 1) / 1000 - self.clock.wall())     # by then it is due, however one rounds
            self.clock.ahead_s = min(self.clock.ahead_s + wait_s, end_s)
            await self._fire_due()
            await self._move_due()
            await self._settled(timeout)
        self.clock.ahead_s = max(self.clock.ahead_s, end_s)
        await self._move_due()
        await self._settled(timeout)

    async def _fire_due(self) -> int:
        """Let schedules fire that are due; returns when the next one is, in ms."""
        async with commits_of(self._ledger, self._keys) as commits:
            schedules = Schedules(self._term(commits))
            await schedules.load()
            await schedules.fire_due()
            return NEVER_MS if schedules.next_ms is None else schedules.next_ms

    async def _next_due(self) -> int:
        """When the next scheduled job is due, or the head of a serial queue is tried again."""
        found = [NEVER_MS]
        async for record in scan(self._ledger, self._keys.scheduled, limit=1):
            due = self._keys.parse_due(record.key)
            found += [due[0]] if due is not None else []
        async for record in scan(self._ledger, self._keys.jobs):
            token = waiting_at(self._keys, record)
            if token is not None and token.not_before > self.clock.wall() * 1000:
                found.append(token.not_before)
        async for record in scan(self._ledger, self._keys.awaiting):
            awaiting = awaiting_at(self._keys, record)
            if awaiting is not None and awaiting.until > self.clock.wall() * 1000:
                found.append(awaiting.until)
        return min(found)

    async def _move_due(self) -> None:
        """The master's scheduler sleeps by the real clock: do its work now."""
        async with commits_of(self._ledger, self._keys) as commits:
            aside = SetAside(self._ledger, self._keys, self.clock, self._seal, self._buckets)
            discards = Discards(self._ledger, self._keys, self._seal, self._buckets)
            ends = Ends(self._ledger, self._keys, commits, self._is_serial)
            await Scheduler(self._term(commits), aside, discards, ends).move_due()
            await self._wake(commits, ends)

    async def _wake(self, commits: Commits, ends: Ends) -> None:
        """Who was to wait for other jobs until now at the most, and still does when the master has looked at those."""
        now_ms = int(self.clock.wall() * 1000)
        async for record in scan(self._ledger, self._keys.awaiting):
            token = awaiting_at(self._keys, record)
            if token is None or not 0 < token.until <= now_ms or await self._goes_on(record):
                continue
            wake = partial(
                moves.wake, self._keys, (created(self._keys.root + b"nothing", 0),),
                unmodified(record.key, record.mod_revision), record.key.rpartition(b"/")[2].decode(), token,
            )
            await ends.enter(Entry(token.queue, max(commits.revision, token.order), wake))

    def _is_serial(self, queue: str) -> bool:
        return (record := self._node.directory.queues.get(queue)) is not None and record.serial

    def _term(self, commits: Commits) -> TermContext:
        """As if we were master, beside it: what was done is not done again."""
        return TermContext(
            node="", fence=created(self._keys.root + b"nothing", 0), ledger=self._ledger, commits=commits,
            keys=self._keys, clock=self.clock, rng=random.Random(), seal=self._seal, events=Events(),
        )

    async def _settled(self, timeout: float) -> None:
        """Raises TimeoutError, which says what it was that waited, or ran, and why."""
        try:
            async with asyncio.timeout(timeout):
                while not await self._is_settled():
                    await self._move_due()      # a retry that came due by travelling
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"not settled within {timeout:g} s: {await self._unsettled()}") from None

    async def _is_settled(self) -> bool:
        """At one revision: what moves meanwhile is in one of its places."""
        keys, now_ms = self._keys, int(self.clock.wall() * 1000)
        due, claims, waiting, awaiting = (await self._ledger.commit(Txn((), (
            Get(keys.scheduled, keys.due_before(now_ms), True, 1), Get(keys.claims, prefix_end(keys.claims), True, 1),
            Get(keys.jobs, prefix_end(keys.jobs)), Get(keys.awaiting, prefix_end(keys.awaiting)),
        )))).answers
        if due or claims or not self._rests(waiting, now_ms):
            return False
        return not any([await self._goes_on(record) or self._is_late(record, now_ms) for record in awaiting])

    def _is_late(self, record: Record, now_ms: int) -> bool:
        token = awaiting_at(self._keys, record)
        return token is not None and 0 < token.until <= now_ms

    async def _goes_on(self, record: Record) -> bool:
        """Whether a job that waits for others waits for the master only."""
        token, bundle = awaiting_at(self._keys, record), record.key.rpartition(b"/")[2].decode()
        if token is not None and token.section:
            section = await self._ledger.read(self._keys.section(token.flow, token.section), keys_only=True)
            if not section.records:
                return False
        has, text = await got(self._ledger, self._keys, bundle)
        for one in token.upstream if token is not None else ():
            jobs, wanted = int(one.jobs, 16) & ~has.get(one.bundle, 0), int(one.wanted or "0", 16)
            became = await read(self._ledger, self._keys, self._seal, one.bundle, jobs)
            good, bad = sorted_out(became, jobs, wanted, text.get(one.bundle, 0))
            if len(good) + len(bad) < jobs.bit_count() or (bad and token is not None and token.on_upstream == "block"):
                return False
        return token is not None

    def _rests(self, waiting: tuple[Record, ...], now_ms: int) -> bool:
        """Whether all that lies in queues stands behind the head of a serial queue that is tried again later: that is
        scheduled, too."""
        heads: dict[str, Token | None] = {}
        for record in waiting:
            if (job := self._keys.parse_job(record.key)) is not None:
                heads.setdefault(job.queue, waiting_at(self._keys, record))
        serial = {name for name, record in self._node.directory.queues.items() if record.serial}
        return all(
            queue in serial and head is not None and head.not_before > now_ms for queue, head in heads.items()
        )

    async def _unsettled(self) -> str:
        page = await self._node.service.jobs("", "", "", 1_000, "")
        views = [await self._node.service.job(view.id) for view in page.jobs if view.place in UNSETTLED]
        text = "; ".join(f"job {view.id} ({view.task}) is {view.place}: {view.why}" for view in views[:TOLD_MAX])
        return text + (f"; and {len(views) - TOLD_MAX} more" if len(views) > TOLD_MAX else "")
