"""Telling the cluster what this node's code declares: tasks, queues, schedules.

A runner that is started again imports the code afresh, as it lies there then: what has changed is told, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import TypedDict

from rota.client.model import Mode, QueueInfo, TaskInfo
from rota.worker.pool.interface import Runners

from ...admin.operations import Operations
from ...admin.schedules import ScheduleAdmin
from ...context import IdentityContext
from ...ledger.commits import unmodified
from ...ledger.ledger import Put
from ...ledger.patience import patiently
from ...state.records import TaskRecord, decode, encode

LOOK_S = 1.0


class Code(TypedDict):
    """What a member's record says of its code."""

    tasks: dict[str, Mode]
    schedules: list[str]


def code_of(runners: Runners, labels: Collection[str]) -> Code:
    """A task that requires what this node has not is not run here, though its code is."""
    return {
        "tasks": {
            name: info.mode for name, info in sorted(runners.tasks.items()) if set(info.requires) <= set(labels)
        },
        "schedules": sorted(info.name for info in runners.tasks.values() if info.schedule is not None),
    }


class Registration:
    """One identity's. What the code says counts; where nodes have different code, what the last one to start says."""

    def __init__(self, context: IdentityContext, operations: Operations, schedules: ScheduleAdmin) -> None:
        self._context = context
        self._operations = operations
        self._schedules = schedules

    async def follow(
        self, runners: Runners, labels: Collection[str], show: Callable[[Code], Awaitable[None]],
        registered: asyncio.Event,
    ) -> None:
        """Register what the runners have, now and whenever it has changed. The member's record is changed first."""
        known: tuple[dict[str, TaskInfo], dict[str, QueueInfo]] | None = None
        while True:
            now = (dict(runners.tasks), dict(runners.queues))
            if now != known:
                await show(code_of(runners, labels))
                await self.register(now[0].values(), now[1].values())
                known = now
                registered.set()
            await asyncio.sleep(LOOK_S)

    async def register(self, tasks: Iterable[TaskInfo], queues: Iterable[QueueInfo]) -> None:
        """From then on jobs of these tasks are accepted, even while nobody runs them."""
        infos = list(tasks)
        await asyncio.gather(*[self._task(info) for info in infos])
        for declared in queues:
            if declared.settings:
                await patiently(partial(self._operations.set_queue, declared.name, declared.settings))
        for info in infos:
            if info.schedule is not None:
                await patiently(partial(self._schedules.declare, info))

    async def _task(self, info: TaskInfo) -> None:
        context, key = self._context, self._context.keys.task(info.name)
        page = await patiently(lambda: context.ledger.read(key))
        old = page.records[0] if page.records else None
        record = TaskRecord(
            info.mode, info.queue, info.max_concurrency, info.max_per_key, info.on_orphan, info.requeue_delay_s,
            info.parameters, info.rate, info.rate_per_key, info.requires, info.weight,
        )
        if old is None or record != decode(TaskRecord, old.value):
            condition = unmodified(key, old.mod_revision if old is not None else 0)
            await context.commits.write((context.member, condition), (Put(key, encode(record)),))
