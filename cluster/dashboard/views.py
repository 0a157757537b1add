"""What the pages show: from a request to the values of its template."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from rota.client.api.flows import normal_id as normal_flow
from rota.client.errors import JobUnknown
from rota.client.ids import normal
from rota.client.options.checks import queue_name
from rota.client.wire.views import PLACES, JobView, QueueView

from ..port.service import NodeService
from ..port.verbs import job_of, normal_id
from ..telemetry.telemetry import Telemetry
from .arguments import described
from .charts import latency, throughput
from .graph import graph
from .search import TOLD_MAX, Query, found

QUEUES_PER_PAGE = 50
JOBS_PER_PAGE = 50
SCHEDULES_PER_PAGE = 100
FLOWS_PER_PAGE = 50
FAILED_SHOWN = 10
COUNT_S = 0.25
"""How long a page waits for the first count of a node, which finds out where the queues lie."""

TASKS_MAX = 500

ENDED = ("finished", "failed", "unknown")


class Views:
    def __init__(self, service: NodeService, telemetry: Telemetry) -> None:
        self._service = service
        self._telemetry = telemetry

    async def overview(self, _request: web.Request) -> dict[str, Any]:
        seen = await self._telemetry.overview()
        last = [minute for minute in seen.hour if not minute.is_empty]
        return {
            "seen": seen, "throughput": throughput(seen.hour), "latency": latency(seen.hour),
            "enqueued_per_s": sum(node.enqueued_per_s or 0.0 for node in seen.nodes),
            "ended_per_s": sum(node.ended_per_s or 0.0 for node in seen.nodes),
            "running": sum(node.running or 0 for node in seen.nodes),
            "capacity": sum(sum(node.capacity.values()) for node in seen.nodes),
            "failed_in_hour": sum(minute.failed for minute in last),
        }

    async def nodes(self, _request: web.Request) -> dict[str, Any]:
        seen = await self._telemetry.overview()
        return {"seen": seen, "history": self._telemetry.history(100)}

    async def queues(self, request: web.Request) -> dict[str, Any]:
        after, find = request.query.get("after", ""), normal(request.query.get("find", "").strip())
        if find and not after:
            after = just_before(find)
        is_counted = await self._telemetry.depths.ask(COUNT_S) is not None
        rows, more = await self._service.queue_part(after, QUEUES_PER_PAGE) if is_counted else ([], "")
        if find:
            rows = [row for row in rows if row.queue.startswith(find)]
        more = more if more.startswith(find) else ""
        return {
            "rows": rows, "find": find, "is_counted": is_counted, "after": request.query.get("after", ""),
            "next": "/queues?" + urlencode({"after": more} | ({"find": find} if find else {})) if more else "",
        }

    async def settings(self, request: web.Request) -> dict[str, Any]:
        """Of one queue, and what tasks say in code."""
        queue = normal(request.query.get("queue", "").strip())
        row = None
        if queue:
            found, _ = await self._service.queue_part(just_before(queue_name(queue)), 1)
            row = next((row for row in found if row.queue == queue), QueueView(queue))
        return {"queue": queue, "row": row, "tasks": (await self._service.tasks())[:TASKS_MAX]}

    async def jobs(self, request: web.Request) -> dict[str, Any]:
        query = Query(request)
        if query.id:
            return {"go": f"/jobs/{normal_id(query.id)}"}
        tasks = [task.name for task in await self._service.tasks()]
        page = await found(self._service, query, tasks, JOBS_PER_PAGE)
        return {
            "page": page, "query": query, "places": PLACES, "tasks": tasks[:TOLD_MAX],
            "next": query.address(page.next) if page.next else "",
        }

    async def job(self, request: web.Request) -> dict[str, Any]:
        job_id = job_of(request)
        view = await self._service.job(job_id)
        arguments = ""
        with contextlib.suppress(JobUnknown):
            arguments = described(await self._service.body(job_id))
        return {
            "job": view, "arguments": arguments, "log": await self._service.log(job_id), "steps": steps(view),
            "ended": view.place in ENDED,
            "is_failed": view.place in ("failed", "blocked"),
        }

    async def failed(self, request: web.Request) -> dict[str, Any]:
        query = {name: request.query.get(name, "").strip() for name in ("queue", "after")}
        rows, more = await self._service.failed(normal(query["queue"]) or None, JOBS_PER_PAGE, query["after"])
        named = {name: value for name, value in query.items() if value} | {"after": more}
        return {"rows": rows, "query": query, "next": f"/failed?{urlencode(named)}" if more else ""}

    async def flows(self, request: web.Request) -> dict[str, Any]:
        after = request.query.get("after", "")
        page = await self._service.flows.page("", FLOWS_PER_PAGE, after)
        return {
            "page": page, "after": after, "next": f"/flows?{urlencode({'after': page.next})}" if page.next else "",
        }

    async def flow(self, request: web.Request) -> dict[str, Any]:
        flow = await self._service.flows.view(normal_flow(request.match_info["id"]), last=False)
        return {"flow": flow, "graph": graph(flow), "failed": await self._failures(flow.failed[:FAILED_SHOWN])}

    async def _failures(self, jobs: list[str]) -> list[JobView]:
        """What failed, with its error; one that was deleted meanwhile is without."""
        return [await self._known(job) for job in jobs]

    async def _known(self, job: str) -> JobView:
        try:
            return await self._service.job(job)
        except JobUnknown:
            return JobView(job, "unknown")

    async def schedules(self, request: web.Request) -> dict[str, Any]:
        after = request.query.get("after", "")
        rows = await self._service.schedules.list(after, SCHEDULES_PER_PAGE)
        full = len(rows) == SCHEDULES_PER_PAGE
        return {
            "rows": rows, "after": after, "next": f"/schedules?{urlencode({'after': rows[-1].name})}" if full else "",
        }


def just_before(name: str) -> str:
    """What sorts before all that begins so, and behind all else that does."""
    last = ord(name[-1]) - 1
    return name[:-1] + chr(0xD7FF if 0xD800 <= last < 0xE000 else last) + "\U0010ffff"


def steps(job: JobView) -> list[dict[str, Any]]:
    """A job's life, from its enqueue on: what is known of it, in order."""
    found: list[dict[str, Any]] = []
    if job.enqueued_at:
        found.append({"at": job.enqueued_at, "what": "enqueued", "kind": "plain", "took": None, "node": ""})
    for attempt in job.history:
        took = attempt.ended_at - attempt.began_at if attempt.began_at and attempt.ended_at else None
        outcome = attempt.outcome or "began"
        kind = "good" if outcome == "it ended well" else "busy" if outcome == "runs" else "bad"
        found.append({
            "at": attempt.began_at or attempt.ended_at, "what": f"attempt {attempt.attempt}: {outcome}", "kind": kind,
            "took": took, "node": attempt.node,
        })
    if job.due:
        found.append({"at": job.due, "what": "due", "kind": "plain", "took": None, "node": ""})
    if job.place in ("finished", "failed") and job.finished_at and not job.history:
        kind = "good" if job.place == "finished" else "bad"
        found.append({
            "at": job.finished_at, "what": job.why or job.place, "kind": kind, "took": None, "node": job.node,
        })
    return found
