"""A node: one member process. It joins, takes jobs in, runs what it is given, stands for election, and leaves.

`Node` puts its parts together and outlives its identities (`identities`); what the HTTP port asks of it, its `service`
answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from rota.worker.channel.frames import Work
from rota.worker.pool.interface import Runners

from ..admin.status import Status
from ..admin.strides import Known
from ..context import NodeContext
from ..events.records import ClusterEvent, JobSetAside
from ..ledger.patience import steadily
from ..recent import Recent
from ..state.directory import Directory
from .bodies.cache import BodyCache
from .identities import Identities
from .life import Parts
from .membership.reach import Reach
from .membership.standing import Standing
from .observation import Observation
from .outcomes.followers import Followers
from .outcomes.keeping import KeptFailures
from .outcomes.progress import Progress
from .runners_side import RunnersSide
from .running.shown import Shown
from .running.volatile import RESULTS_MAX, Volatile
from .service import Service
from .settings import NodeSettings


class Node:
    def __init__(self, settings: NodeSettings, context: NodeContext, runners: Runners) -> None:
        ledger, keys, clock, events = context.ledger, context.keys, context.clock, context.events
        self.events, self.runners = context.events, runners
        self.standing = standing = Standing()
        self.directory = directory = Directory(ledger, keys)
        cache, local = BodyCache(), Recent[str, list[bytes]](RESULTS_MAX)
        self._followers = Followers(ledger, keys, context.seal, clock, cache, local)
        volatile = Volatile(
            runners, context.seal, self._followers, standing, events, KeptFailures(standing, directory), local
        )
        shown = Shown(runners, clock, standing, volatile)
        self._parts = parts = Parts(
            settings=settings, context=context, standing=standing, runners=runners, directory=directory, cache=cache,
            volatile=volatile, shown=shown, progress=Progress(shown.job_of),
            status=Status(ledger, keys, clock, directory, context.seal, shown), reach=Reach(clock, events),
            followers=self._followers,
        )
        self.identities = Identities(parts)
        self.service = Service(parts, self.identities, self._followers)
        self.observed = Observation(standing, runners, self.identities, self.service, clock)
        self._side = RunnersSide(parts, self.identities, self.service)
        events.listen(partial(_report_failure, runners), (JobSetAside,))

    @property
    def leaving(self) -> asyncio.Event:
        return self.standing.leaving

    @property
    def known(self) -> Known:
        """What its lists have found out of where things lie."""
        return self._parts.status.known

    def about(self, phase: str) -> None:
        """What it does before it is a member, for whoever asks why it is not ready."""
        self.standing.phase = phase

    async def run(self, address: str = "") -> None:
        """Be a member until drained. `address`: where its port is reached. Raises what made it impossible (a
        `ConfigError`, mostly)."""
        self.standing.address = address
        try:
            self.standing.phase = "its runners are starting: they import the app"
            if not await self.unless_leaving(self._parts.runners.start(self._side)):
                return
            self.standing.phase = "joining the cluster"
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(steadily("following the cluster", self.directory.run), name="directory"),
                    group.create_task(steadily("following results", self._followers.run), name="followers"),
                    group.create_task(steadily("counting", self._count), name="status"),
                ]
                await self.identities.run()
                for task in background:
                    task.cancel()
        finally:
            self.identities.ended()
            await self._parts.runners.stop(0.0)

    async def unless_leaving(self, step: Coroutine[Any, Any, None]) -> bool:
        """Carry out what comes before it is a member. False if it was told to leave meanwhile."""
        task = asyncio.create_task(step, name="start")
        leaving = asyncio.create_task(self.standing.leaving.wait(), name="leaving")
        try:
            await asyncio.wait([task, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            return False
        task.result()
        return True

    def drain(self) -> None:
        """Leave in good order; a second call hurries: running jobs are killed and handed back at once."""
        if self.standing.leaving.is_set():
            self.standing.in_a_hurry.set()
        self.standing.leaving.set()

    async def _count(self) -> None:
        await self._parts.status.run(lambda: self.identities.counters)


def _report_failure(runners: Runners, aside: ClusterEvent) -> None:
    """No runner has seen it: ours call the application's error hooks."""
    assert isinstance(aside, JobSetAside)
    work = Work(0, aside.bundle, aside.task, aside.queue, "sync", aside.attempt, 0, 0.0, "pickle", [])
    runners.report(work, aside.index, aside.error)
