"""Telling the cluster what this node's code declares: tasks, queues, schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from rota.client.model import QueueInfo, TaskInfo

from ..admin.operations import Operations
from ..admin.schedules import ScheduleAdmin
from ..context import IdentityContext
from ..ledger.commits import unmodified
from ..ledger.ledger import Put
from ..ledger.patience import patiently
from ..state.records import TaskRecord, decode, encode


class Registration:
    """One identity's. What the code says counts; where nodes have different code, what the last one to start says."""

    def __init__(self, context: IdentityContext, operations: Operations, schedules: ScheduleAdmin) -> None:
        self._context = context
        self._operations = operations
        self._schedules = schedules

    async def register(self, tasks: Iterable[TaskInfo], queues: Iterable[QueueInfo]) -> None:
        """From then on jobs of these tasks are accepted, even while nobody runs them."""
        infos = list(tasks)
        await asyncio.gather(*[self._task(info) for info in infos])
        for declared in queues:
            if declared.said:
                await patiently(partial(self._operations.set_queue, declared.name, declared.said))
        for info in infos:
            if info.schedule is not None:
                await patiently(partial(self._schedules.declare, info))

    async def _task(self, info: TaskInfo) -> None:
        context, key = self._context, self._context.keys.task(info.name)
        page = await patiently(lambda: context.ledger.read(key))
        old = page.records[0] if page.records else None
        record = TaskRecord(
            info.mode, info.queue, info.max_concurrency, info.max_per_key, info.on_orphan, info.requeue_delay_s,
            info.parameters,
        )
        if old is None or record != decode(TaskRecord, old.value):
            condition = unmodified(key, old.mod_revision if old is not None else 0)
            await context.commits.write((context.member, condition), (Put(key, encode(record)),))
