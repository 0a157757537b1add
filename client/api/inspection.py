"""What people see of a running cluster, as methods of the clients: its nodes, tasks, queues, jobs and flows.

Each is a GET to a node's HTTP port (`rota.cluster.port.routes`).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlencode

from ..options import checks as options
from ..wire.views import (
    FailedView,
    FinishedView,
    FlowsPage,
    JobsPage,
    JobView,
    NodeView,
    OutboxView,
    Place,
    QueueView,
    StatsView,
    TaskView,
)
from . import flows

T = TypeVar("T")


class AsyncInspection:
    """Methods of `AsyncClient`."""

    async def _page(self, path: str, kind: type[T]) -> T:
        raise NotImplementedError

    async def _list(self, what: str, queue: str | None, item: type[T], limit: int) -> list[T]:
        """Up to `limit` items, however many a node tells at a time."""
        raise NotImplementedError

    async def tasks(self) -> list[TaskView]:
        """The tasks that nodes have registered, by name: how each is called, and which nodes know it now."""
        return await self._page("/v1/tasks", list[TaskView])

    async def nodes(self) -> list[NodeView]:
        """The members of the cluster: who is master, what each runs and how full it is."""
        return await self._page("/v1/nodes", list[NodeView])

    async def outboxes(self) -> list[OutboxView]:
        """The outboxes of databases that have a relay now, and what it told last."""
        return await self._page("/v1/outboxes", list[OutboxView])

    async def queues(self) -> list[QueueView]:
        """Every queue that holds a job or has settings, with its counts."""
        return await self._list("queues", None, QueueView, sys.maxsize)

    async def jobs(
        self, place: Place | None = None, *, queue: str = "", task: str = "", key: str = "", label: str = "",
        since: datetime | timedelta | float | None = None, until: datetime | timedelta | float | None = None,
        limit: int = 100, after: str = "",
    ) -> JobsPage:
        """Jobs by where they are: "running", "claimed", "waiting", "blocked", "retrying", "scheduled", "awaiting",
        "failed", or "finished" (and kept, `keep_finished`); those of a queue, of a task, or all; those with a key that
        `max_per_key` counts by, or that require a label of their node (both of jobs that have not ended); those that
        were enqueued, or, if they have ended, did so, from `since` on and before `until`: a datetime with a time zone,
        seconds since 1970, or a timedelta, which means so long ago. At most 1,000 at a time: `after` is the `next` of
        the part before. A part may be short, or empty, and the list go on: `each_job` goes through all parts. Raises
        `InvalidJob`."""
        return await self._page(_jobs_path(place, queue, task, limit, after, key, label, since, until), JobsPage)

    async def each_job(self, place: Place | None = None, **which: Any) -> AsyncIterator[JobView]:
        """All jobs that `jobs` would list with these arguments, part by part: `async for job in client.each_job(...)`.
        What moves meanwhile may be left out, or come twice."""
        page = JobsPage([], which.pop("after", ""))
        while True:
            page = await self.jobs(place, after=page.next, **which)
            for job in page:
                yield job
            if not page.next:
                return

    async def failed(self, queue: str | None = None, limit: int = 100) -> list[FailedView]:
        """Failed jobs of one queue, or of all, in the order of queues and ids."""
        return await self._list("failed", queue, FailedView, limit)

    async def finished(self, queue: str | None = None, limit: int = 100) -> list[FinishedView]:
        """Jobs that ended well and are kept: those whose task or enqueue says `keep_finished`."""
        return await self._list("finished", queue, FinishedView, limit)

    async def stats(self) -> StatsView:
        """Counts of the whole cluster, and what this node has done since it started."""
        return await self._page("/v1/stats", StatsView)

    async def flows(self, name: str = "", *, limit: int = 100, after: str = "") -> FlowsPage:
        """Flows, those of that name or all, the newest first: those that are not over, and those that are kept. `after`
        is the `next` of the page before."""
        return await self._page(flows.listing(name, limit, after), FlowsPage)


class Inspection:
    """Methods of `Client`. See `AsyncInspection`."""

    def _page(self, path: str, kind: type[T]) -> T:
        raise NotImplementedError

    def _list(self, what: str, queue: str | None, item: type[T], limit: int) -> list[T]:
        raise NotImplementedError

    def tasks(self) -> list[TaskView]:
        """See `AsyncClient.tasks`."""
        return self._page("/v1/tasks", list[TaskView])

    def nodes(self) -> list[NodeView]:
        """The members of the cluster: who is master, what each runs and how full it is."""
        return self._page("/v1/nodes", list[NodeView])

    def outboxes(self) -> list[OutboxView]:
        """See `AsyncClient.outboxes`."""
        return self._page("/v1/outboxes", list[OutboxView])

    def queues(self) -> list[QueueView]:
        """Every queue that holds a job or has settings, with its counts."""
        return self._list("queues", None, QueueView, sys.maxsize)

    def jobs(
        self, place: Place | None = None, *, queue: str = "", task: str = "", key: str = "", label: str = "",
        since: datetime | timedelta | float | None = None, until: datetime | timedelta | float | None = None,
        limit: int = 100, after: str = "",
    ) -> JobsPage:
        """See `AsyncClient.jobs`."""
        return self._page(_jobs_path(place, queue, task, limit, after, key, label, since, until), JobsPage)

    def each_job(self, place: Place | None = None, **which: Any) -> Iterator[JobView]:
        """See `AsyncClient.each_job`; `for job in client.each_job(...)`."""
        page = JobsPage([], which.pop("after", ""))
        while True:
            page = self.jobs(place, after=page.next, **which)
            yield from page
            if not page.next:
                return

    def failed(self, queue: str | None = None, limit: int = 100) -> list[FailedView]:
        """Failed jobs of one queue, or of all, in the order of queues and ids."""
        return self._list("failed", queue, FailedView, limit)

    def finished(self, queue: str | None = None, limit: int = 100) -> list[FinishedView]:
        """See `AsyncClient.finished`."""
        return self._list("finished", queue, FinishedView, limit)

    def stats(self) -> StatsView:
        """Counts of the whole cluster, and what this node has done since it started."""
        return self._page("/v1/stats", StatsView)

    def flows(self, name: str = "", *, limit: int = 100, after: str = "") -> FlowsPage:
        """See `AsyncClient.flows`."""
        return self._page(flows.listing(name, limit, after), FlowsPage)


def _jobs_path(
    place: str | None, queue: str, task: str, limit: int, after: str, key: str = "", label: str = "",
    since: datetime | timedelta | float | None = None, until: datetime | timedelta | float | None = None,
) -> str:
    query = {
        "place": place or "", "queue": queue, "task": task, "key": key, "label": label,
        "since": options.moment(since, "since"), "until": options.moment(until, "until"),
        "limit": int(limit), "after": after,
    }
    return f"/v1/jobs?{urlencode({name: value for name, value in query.items() if value != ''})}"
