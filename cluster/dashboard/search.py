"""Looking for jobs, as people do: by an id, by a part of a task's name, until a page is full or it has taken long."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from aiohttp import web

from rota.client.ids import normal
from rota.client.wire.views import JobsFilter, JobsPage, JobView

from ..port.service import NodeService

FIELDS = ("place", "queue", "task", "key")
TOLD_MAX = 500
"""Names of tasks and of queues that the page proposes."""

LOOK_S = 0.4
"""A part of the list looks through so many records, and may hold few jobs or none: then the next one is asked for."""


class Query:
    """What a page of jobs was asked for."""

    def __init__(self, request: web.Request) -> None:
        self.id = request.query.get("id", "").strip()
        self.after = request.query.get("after", "")
        self.said = {field: request.query.get(field, "").strip() for field in FIELDS}
        self.queue, self.task = normal(self.said["queue"]), normal(self.said["task"])

    @property
    def is_narrow(self) -> bool:
        return any(self.said.values())

    def address(self, after: str = "") -> str:
        """Of the list that these fields make, or of its part behind `after`."""
        fields = {name: value for name, value in (*self.said.items(), ("after", after)) if value}
        return f"/jobs?{urlencode(fields)}" if fields else "/jobs"


async def found(service: NodeService, query: Query, tasks: list[str], limit: int) -> JobsPage:
    """A task that is none is a part of the names of those that are meant."""
    whole = query.task if query.task in tasks else ""
    fits = JobsFilter(key=query.said["key"], task_part="" if whole else query.task)
    jobs: list[JobView] = []
    after, until = query.after, time.monotonic() + LOOK_S
    while True:
        part = await service.jobs(query.said["place"], query.queue, whole, limit - len(jobs), after, fits)
        jobs += part.jobs
        after = part.next
        if not after or len(jobs) >= limit or time.monotonic() > until:
            return JobsPage(jobs, after)
