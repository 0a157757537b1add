"""What the port offers to programs, route by route: what `openapi.py` describes. A test compares it with the router,
and with real answers of every route."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rota.client.model import OnFull, ScheduleInfo
from rota.client.wire.views import (
    EventsPage,
    FailedView,
    FinishedView,
    FlowDone,
    FlowsPage,
    FlowView,
    JobsPage,
    JobView,
    LogView,
    NodeView,
    OperationView,
    OutboxTurn,
    OutboxView,
    Place,
    QueueSettings,
    QueueView,
    ScheduleView,
    StatsView,
    TaskView,
    TurnAsked,
)

from ..telemetry.overview import Overview
from ..telemetry.records import Happened
from .many import Empty, ToCancel, Which
from .routes import NewJob
from .verbs import JOB_PATHS, Head

# -- answers that nothing else has a name for


class Enqueued(msgspec.Struct):
    """A job that is stored. `existing`: it was there before, and has the `unique_key`. `revision`: of the store."""

    id: str
    level: Literal["durable", "delayed", "none"]
    revision: int
    existing: bool


class Outcome(msgspec.Struct, omit_defaults=True):
    """What came of a job. `value` is there where it ended well and its result is JSON; `error` where it did not."""

    id: str
    status: str
    attempts: int
    codec: str
    value: Any = None
    note: str = ""
    error: str = ""
    traceback: str = ""


class Named(msgspec.Struct):
    """The job that was made, or is concerned."""

    id: str


class Cancelled(msgspec.Struct):
    """`requested`: the node that has the job is asked to stop it."""

    outcome: Literal["cancelled", "requested", "ended"]


class Deleted(msgspec.Struct):
    deleted: str


class Health(msgspec.Struct, omit_defaults=True):
    """`why`: said to who has shown the token."""

    status: Literal["ok", "not ready"]
    why: str = ""


class Problem(msgspec.Struct):
    """Why a request was refused: a stable name, a sentence for people, and what to do about it ("": nothing to add)."""

    error: str
    message: str
    advice: str


class QueueChanges(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Those that are there are changed. null takes a limit or a rate away."""

    paused: bool = False
    serial: bool = False
    max_concurrency: int | None = None
    rate: str | None = None
    max_waiting: int | None = None
    on_full: OnFull = "refuse"


class NewScheduleCall(ScheduleInfo, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule: a call, and when it is made."""

    task: str
    args: list[Any] = msgspec.field(default_factory=list)
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    queue: str = "default"
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class NewFlowCall(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A flow: at most 1,000 jobs, each as `POST /v1/jobs` takes it, with a `ref` by which others name it in their
    `after`. All are stored, or none is."""

    name: str
    jobs: list[dict[str, Any]]
    keep_s: float = 3600.0


class MadeFlow(msgspec.Struct):
    """The flow, and its jobs in the order of the request."""

    id: str
    jobs: list[str]


# -- the routes

TEXT, STREAM, BYTES = "text/plain", "text/event-stream", "application/octet-stream"

QUERY: dict[str, tuple[Any, str]] = {
    "place": (Place, "only jobs that are there"),
    "queue": (str, "only of this queue"),
    "task": (str, "only of this task"),
    "key": (str, "only of this key"),
    "label": (str, "only jobs that require this label of their node"),
    "since": (float, "only from this moment on, in seconds since 1970"),
    "until": (float, "only before this moment"),
    "limit": (int, "how many at most"),
    "after": (str, "where to go on: `next` of the page before, or what its header `Link` says"),
    "wait": (float, "seconds to wait for it, 60 at most"),
    "jobs": (Literal["1"], "also each job that ends on this node"),
    "name": (str, "only of this name"),
    "few": (Literal["1"], "without its jobs, but for the last ones"),
}


class Route(msgspec.Struct, frozen=True):
    """`answers`: by status, a type of JSON or a media type, or several of them. `id` is stable: generated clients name
    their methods so."""

    method: Literal["get", "post"]
    path: str
    id: str
    summary: str
    answers: dict[int, Any]
    query: tuple[str, ...] = ()
    body: Any = None
    is_open: bool = False
    headers: tuple[str, ...] = ()
    deprecated: bool = False


def _get(path: str, id_: str, summary: str, answer: Any, *query: str, **more: Any) -> Route:
    return Route("get", path, id_, summary, {200: answer}, query, **more)


def _post(path: str, id_: str, summary: str, answers: Any, body: Any = None, *query: str, **more: Any) -> Route:
    known = answers if isinstance(answers, dict) else {200: answers}
    return Route("post", path, id_, summary, known, query, body, **more)


def _operation(path: str, id_: str, summary: str, body: Any) -> Route:
    """Begins something that is done to many jobs."""
    return _post(path, id_, summary, {200: OperationView, 202: OperationView}, body, "wait")


def _of_one_job(path: str) -> list[Route]:
    return [
        Route("get", path, "getJob", "where a job is; with `wait` what came of it",
              {200: (JobView, Outcome), 202: JobView}, ("wait",)),
        _get(f"{path}/body", "getJobBody", "a job's arguments as they are stored: pickled or JSON, and signed", BYTES),
        Route("get", path + "/events", "getJobEvents", "what happens to a job, as soon as there is something; a stream "
              "if `Accept` says so", {200: (EventsPage, STREAM)}, ("after", "wait")),
        _get(f"{path}/log", "getJobLog", "the lines that are kept of a job's log", LogView),
        _post(f"{path}/cancel", "cancelJob", "cancel a job", Cancelled),
    ]


def _old(route: Route) -> Route:
    return msgspec.structs.replace(route, id=route.id + "ByParts", deprecated=True)


ROUTES: tuple[Route, ...] = (
    _post("/v1/jobs", "enqueue", "enqueue one job: answered when it is stored. 200: another job has the `unique_key`",
          {201: Enqueued, 200: Enqueued}, NewJob, headers=("Idempotency-Key",)),
    _get("/v1/jobs", "listJobs", "jobs by where they are, part by part", JobsPage,
         "place", "queue", "task", "key", "label", "since", "until", "limit", "after"),
    _operation("/v1/jobs/cancel", "cancelJobs", "cancel many jobs", ToCancel),
    *_of_one_job(JOB_PATHS[0]),
    *(_old(route) for route in _of_one_job(JOB_PATHS[1])),
    _get("/v1/tasks", "listTasks", "the tasks that nodes have registered", list[TaskView]),
    _get("/v1/nodes", "listNodes", "the members", list[NodeView]),
    _get("/v1/queues", "listQueues", "the queues that hold jobs or have settings, part by part",
         list[QueueView], "limit", "after"),
    _post("/v1/queues/{queue}", "setQueue", "change settings of a queue; answers all of them", QueueSettings,
          QueueChanges),
    _operation("/v1/queues/{queue}/empty", "emptyQueue", "cancel all jobs that wait in a queue", Empty),
    _post("/v1/queues/{queue}/head", "moveHead", "retry or skip the failed head of a serial queue", Named, Head),
    _get("/v1/failed", "listFailed", "the failed set, part by part", list[FailedView], "queue", "limit", "after"),
    _operation("/v1/failed/retry", "retryFailed", "retry failed jobs", Which),
    _operation("/v1/failed/delete", "deleteFailed", "delete failed jobs", Which),
    _get("/v1/finished", "listFinished", "jobs that ended well and are kept, part by part", list[FinishedView],
         "queue", "limit", "after"),
    _get("/v1/operations", "listOperations", "what is done to many jobs now, and was in the last hour",
         list[OperationView]),
    _get("/v1/operations/{operation}", "getOperation", "one of them, as soon as it has ended", OperationView, "wait"),
    _get("/v1/schedules", "listSchedules", "schedules by name, part by part", list[ScheduleView], "limit", "after"),
    _get("/v1/schedules/{schedule}", "getSchedule", "a schedule", ScheduleView),
    _post("/v1/schedules/{schedule}", "putSchedule", "make or change a schedule", ScheduleView, NewScheduleCall),
    _post("/v1/schedules/{schedule}/pause", "pauseSchedule", "pause a schedule", ScheduleView),
    _post("/v1/schedules/{schedule}/resume", "resumeSchedule", "let a schedule go on", ScheduleView),
    _post("/v1/schedules/{schedule}/run", "runSchedule", "enqueue a job of a schedule now", Named),
    _post("/v1/schedules/{schedule}/delete", "deleteSchedule", "forget a schedule", Deleted),
    _get("/v1/flows", "listFlows", "flows, the newest first, part by part", FlowsPage, "name", "limit", "after"),
    _post("/v1/flows", "makeFlow", "store a graph of jobs as one", {201: MadeFlow}, NewFlowCall),
    _get("/v1/flows/{flow}", "getFlow", "a flow: its jobs, where they are, what waits for what; with `wait` when it "
         "is over, or can go on no more", FlowView, "few", "wait"),
    _get("/v1/flows/{flow}/results", "getFlowResults", "what its last jobs returned, as it is stored: signed "
         "MessagePack, part by part", BYTES, "after"),
    _post("/v1/flows/{flow}/cancel", "cancelFlow", "cancel what has not ended of it; again while `left` says so",
          FlowDone),
    _post("/v1/flows/{flow}/retry", "retryFlow", "run its failed jobs again", FlowDone),
    _get("/v1/outboxes", "listOutboxes", "the outboxes of databases that have a relay now", list[OutboxView]),
    _post("/v1/outboxes/{outbox}/turn", "takeTurn", "take, keep or leave the turn of an outbox's relay", OutboxTurn,
          TurnAsked),
    _get("/v1/stats", "getStats", "totals and rates", StatsView),
    _get("/v1/overview", "getOverview", "the cluster at a glance", Overview),
    _get("/v1/history", "getHistory", "what happened to the cluster, the newest first", list[Happened], "limit"),
    _get("/v1/events", "streamEvents", "what happens, as it happens, as server-sent events", STREAM, "jobs"),
    _get("/metrics", "getMetrics", "for Prometheus", TEXT),
    _get("/v1/openapi.json", "getDescription", "this description", dict[str, Any]),
    Route("get", "/v1/ws", "connect", "a WebSocket for rota's own clients", {101: None, 426: Problem}),
    _get("/livez", "getLiveness", "whether the process answers", Health, is_open=True),
    Route("get", "/readyz", "getReadiness", "whether the node can work", {200: Health, 503: Health}, is_open=True),
)
