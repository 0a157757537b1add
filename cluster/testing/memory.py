"""A cluster in memory: a real node on the ledger in memory, its port on loopback, its jobs in this process.

    with rota.testing.MemoryCluster() as cluster:
        handle = remind.using(run_after=timedelta(hours=1)).enqueue("ann")
        cluster.travel(hours=1)
        assert handle.result(timeout=5) == "sent"
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import sys
import threading
from collections.abc import Coroutine
from datetime import timedelta
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self, TypeVar

from rota.client import default
from rota.client.api import Client
from rota.client.codec import UNSIGNED, Seal
from rota.client.errors import InvalidJob

from ..clock import SystemClock
from ..events.hub import Events
from ..ledger.buckets import Buckets
from ..ledger.commits import Commits, created
from ..ledger.ledger import prefix_end
from ..ledger.memory import MemoryLedger
from ..master.scheduler import Scheduler
from ..master.schedules import Schedules
from ..node.node import Node, NodeSettings
from ..port.http import HttpPort
from ..state.keys import Keys
from ..state.quarantine import SetAside
from .local import LocalRunners

T = TypeVar("T")

CLUSTER = "testing"
START_S = 10.0
TICKS_MAX = 10_000
"""Ticks of schedules that one journey fires at most."""

LOOK_S = 0.01


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

    def __init__(self, *, sync: int = 4, async_: int = 100) -> None:
        self.client: Client
        self.clock = TravelClock()
        self._sync = sync
        self._async = async_
        self._ready: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._before: default.Caller | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="rota cluster", daemon=True)
        self._thread.start()
        self.client = Client(self._ready.result(START_S), retry_window_s=5.0)
        self._before = default.swap(self.client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        default.swap(self._before)
        self.client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)

    @property
    def url(self) -> str:
        """Where its HTTP port listens."""
        return self._ready.result(START_S)

    def travel(self, ahead: timedelta | None = None, *, timeout: float = 10.0, **units: float) -> None:
        """Put the clock forward (`cluster.travel(hours=1)`) and run what is due by then; returns when that is done.
        What those jobs schedule in turn, retries among it, runs too if it is due by then."""
        seconds = (ahead or timedelta(**units)).total_seconds()
        if seconds < 0:
            raise InvalidJob("time travel goes forward only")
        self._call(self._travel(seconds))
        self.settle(timeout)

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until nothing runs or waits; what is scheduled for later does not count. Raises TimeoutError."""
        self._call(self._settled(timeout))

    # -- on the cluster's thread -------------------------------------------------------------------------------------

    def _call(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result()

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ledger, self._keys = MemoryLedger(), Keys(CLUSTER)
        self._seal, self._buckets = Seal(UNSIGNED, CLUSTER), Buckets(self._ledger, self.clock, random.Random())
        settings = NodeSettings(
            name="memory", python=f"{sys.version_info.major}.{sys.version_info.minor}", version=version("rota"),
            grace_s=0.0,
        )
        node = Node(
            settings, self._ledger, self._keys, self.clock, random.Random(), self._seal,
            lambda node: LocalRunners(node.on_outcomes, {"async": self._async, "sync": self._sync}),
        )
        try:
            async with HttpPort(node) as port, asyncio.TaskGroup() as group:
                group.create_task(node.run(), name="node")
                while node.why_not_ready() is not None or not node.directory.master:     # noqa: ASYNC110 - no one says so
                    await asyncio.sleep(LOOK_S)
                self._ready.set_result(port.url)
                await self._stop.wait()
                node.drain()
                node.drain()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            await self._ledger.close()

    async def _travel(self, seconds: float) -> None:
        """From tick to tick: each schedule fires as it would have, had somebody waited."""
        target_ms = int((self.clock.wall() + seconds) * 1000)
        end_s = self.clock.ahead_s + seconds
        async with Commits(self._ledger) as commits:
            anything = created(self._keys.root + b"nothing", 0)
            for _ in range(TICKS_MAX):
                schedules = Schedules(
                    self._ledger, self._keys, self.clock, commits, anything, self._seal, Events()
                )
                await schedules.load()
                await schedules.fire_due()
                next_ms = schedules.next_ms
                if next_ms is None or next_ms > target_ms:
                    break
                self.clock.ahead_s += max(next_ms / 1000 - self.clock.wall(), 0.001)
        self.clock.ahead_s = max(self.clock.ahead_s, end_s)
        await self._move_due()

    async def _move_due(self) -> None:
        """The master's scheduler sleeps by the real clock: do its work now."""
        async with Commits(self._ledger) as commits:
            anything = created(self._keys.root + b"nothing", 0)
            aside = SetAside(self._ledger, self._keys, self.clock, self._seal, self._buckets)
            await Scheduler(self._ledger, self._keys, self.clock, commits, anything, aside).move_due()

    async def _settled(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while not await self._is_settled():
                await self._move_due()      # a retry that came due by travelling
                await asyncio.sleep(LOOK_S)

    async def _is_settled(self) -> bool:
        keys = self._keys
        now_ms = int(self.clock.wall() * 1000)
        due = await self._ledger.read(keys.scheduled, keys.due_before(now_ms), limit=1, keys_only=True)
        if due.records:
            return False
        for prefix in (keys.jobs, keys.claims):
            if (await self._ledger.read(prefix, prefix_end(prefix), limit=1, keys_only=True)).records:
                return False
        return True
