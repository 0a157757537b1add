"""The JSON of the port: enqueue from any language, look at jobs and at the cluster. Nothing here unpickles."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from rota.client import errors
from rota.client.api.results import gone
from rota.client.errors import InvalidJob, LedgerError, Overloaded, RotaError
from rota.client.ids import Names, idempotent_id, job_id, normal, parse_job_id
from rota.client.model import NO_TERMS, UNREADABLE, Enqueue, FlowTerms, Options, Receipt, ResultEntry, Terms
from rota.client.options import checks as options
from rota.client.options.backoff import TABLE_MAX
from rota.client.options.checks import duration_s, priority, queue_name
from rota.client.options.terms import IDEMPOTENCY_CHARS_MAX, GivenTerms
from rota.client.upstream import refs_of, upstream_of
from rota.client.wire.keyring import Keyring
from rota.client.wire.offload import is_check
from rota.client.wire.sealing import is_sealed, key_of
from rota.client.wire.views import JobsFilter

from .answers import HEADERS, json_page, limit_of, listed, number_of, refuse, wait_s
from .calls import Calls, JsonCall
from .flows import FlowPages
from .happenings import Happenings, Streams, wants_stream
from .many import Many
from .outboxes import OutboxPages
from .schedules import SchedulePages
from .service import NodeService
from .verbs import JOB_PATHS, Verbs, job_of

log = logging.getLogger("rota.http")

ANSWER_S = 8.0
"""A page that the store keeps waiting so long is given up: clients wait ten seconds."""

ENQUEUE_S = 30.0
"""The same for an enqueue: what clients of rota's own give it."""

STREAM_S = 3_600.0
"""Events are pushed for so long; then the client asks again, from where it was."""

LISTED_MAX = 1_000

STATUS: dict[type[RotaError], int] = {
    errors.Unauthorized: 401,
    errors.SignatureRefused: 403,
    errors.JobUnknown: 404,
    errors.UnknownTask: 404,
    errors.InvalidJob: 400,
    errors.NotSerializable: 400,
    errors.JobTooLarge: 413,
    errors.Overloaded: 429,
    errors.QueueFull: 429,
    errors.JobExists: 409,
    errors.EnqueueUnknown: 504,
    errors.ResultInvalid: 502,
    errors.Unreachable: 503,
    errors.OperationUnknown: 404,
    errors.FlowUnknown: 404,
}
ADVICE: dict[type[RotaError], str] = {
    errors.UnknownTask: "the nodes know the tasks of the modules given to `rota node --app`; GET /v1/nodes lists them",
    errors.Overloaded: "repeat after the seconds that Retry-After says",
    errors.EnqueueUnknown: "repeat with the same Idempotency-Key: it is stored once",
    errors.SignatureRefused: "see the key files of both ends",
    errors.Unreachable: "ask another node, or again when the store is back; GET /readyz and `rota doctor` say more",
}


class NewJob(JsonCall, kw_only=True, forbid_unknown_fields=True):
    """What `POST /v1/jobs` takes."""

    priority: int = 0
    delay_s: float = 0.0
    max_attempts: int | None = None
    timeout_s: float | None = None
    keep_result_s: float | None = None
    keep_finished_s: float | None = None
    backoff_base_s: float | None = None
    backoff_cap_s: float | None = None
    retry_delays_s: tuple[float, ...] = ()
    keep_log: int | None = None
    level: str = "durable"
    key: str = ""
    unique_key: str | int | None = None
    unique_until: str | None = None
    unique_for_s: float | None = None
    on_conflict: str | None = None
    expires_s: float | None = None
    idempotency_window_s: float | None = None
    after: tuple[str, ...] = ()
    on_upstream: str | None = None
    requires: tuple[str, ...] | None = None
    weight: int | None = None
    fair_key: str | int | None = None
    rate_key: str | int | None = None


_decode_new_job = msgspec.json.Decoder(NewJob).decode
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Routes:
    """The handlers of all JSON paths."""

    def __init__(
        self, service: NodeService, keyring: Keyring, streams: Streams, wall: Callable[[], float] = time.time
    ) -> None:
        self._service = service
        self._keyring = keyring
        self._streams = streams
        self._calls = Calls(service, keyring, wall)
        self._names = Names()

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v1/jobs", self._page(self._enqueue, ENQUEUE_S))
        router.add_get("/v1/jobs", self._page(self._jobs))
        self._add_happenings(router)
        for job in JOB_PATHS:
            router.add_get(f"{job}/body", self._page(self._body))
            router.add_get(job, self._page(self._job))
        router.add_get("/v1/tasks", self._page(self._tasks))
        router.add_get("/v1/nodes", self._page(self._nodes))
        router.add_get("/v1/queues", self._page(self._queues))
        router.add_get("/v1/failed", self._page(self._failed))
        router.add_get("/v1/finished", self._page(self._finished))
        router.add_get("/v1/stats", self._page(self._stats))
        verbs = Verbs(self._service)
        for path, verb in (
            ("/v1/queues/{queue}", verbs.set_queue), ("/v1/queues/{queue}/head", verbs.head),
            *((f"{job}/cancel", verbs.cancel) for job in JOB_PATHS),
        ):
            router.add_post(path, self._page(_as_json(verb)))
        many = Many(self._service)
        for path, deed in (
            ("/v1/failed/retry", many.retry_failed), ("/v1/failed/delete", many.delete_failed),
            ("/v1/queues/{queue}/empty", many.empty), ("/v1/jobs/cancel", many.cancel),
        ):
            router.add_post(path, self._page(deed))
        router.add_get("/v1/operations", self._page(_as_json(many.all)))
        router.add_get("/v1/operations/{operation}", self._page(_as_json(many.one)))
        self._add_schedules(router)
        self._add_flows(router)
        outboxes = OutboxPages(self._service)
        router.add_get("/v1/outboxes", self._page(_as_json(outboxes.list)))
        router.add_post("/v1/outboxes/{outbox}/turn", self._page(_as_json(outboxes.turn)))
        router.add_get("/livez", self._live)
        router.add_get("/readyz", self._ready)

    def _add_happenings(self, router: web.UrlDispatcher) -> None:
        happenings = Happenings(self._service, self._streams)
        page = self._page(_as_json(happenings.events))
        stream = self._page(happenings.stream, STREAM_S)

        async def events(request: web.Request) -> web.StreamResponse:
            return await (stream if wants_stream(request) else page)(request)

        for job in JOB_PATHS:
            router.add_get(f"{job}/events", events)
            router.add_get(f"{job}/log", self._page(_as_json(happenings.log)))

    def _add_schedules(self, router: web.UrlDispatcher) -> None:
        pages = SchedulePages(self._service, self._calls)
        one = "/v1/schedules/{schedule}"
        router.add_get("/v1/schedules", self._page(pages.list))
        router.add_get(one, self._page(pages.get))
        for path, verb in (
            (one, pages.put), (f"{one}/pause", pages.pause), (f"{one}/resume", pages.resume),
            (f"{one}/run", pages.run_now), (f"{one}/delete", pages.delete),
        ):
            router.add_post(path, self._page(verb))

    def _add_flows(self, router: web.UrlDispatcher) -> None:
        pages = FlowPages(self._service, self._job_of_flow)
        one = "/v1/flows/{flow}"
        router.add_get("/v1/flows", self._page(pages.all))
        router.add_post("/v1/flows", self._page(pages.make, ENQUEUE_S))
        router.add_get(one, self._page(pages.get))
        router.add_get(f"{one}/results", self._page(pages.results))
        router.add_post(f"{one}/cancel", self._page(pages.cancel))
        router.add_post(f"{one}/retry", self._page(pages.retry))

    def _page(self, handler: Handler, answer_s: float | None = None) -> Handler:
        """Answers errors as JSON."""
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                async with asyncio.timeout((answer_s or ANSWER_S) + wait_s(request)):
                    return await handler(request)
            except TimeoutError:
                return self._too_late(request)
            except LedgerError as error:
                return _answer_for(of_store(error), ready=self._service.why_not_ready() is None)
            except RotaError as error:
                return _answer_for(error, ready=self._service.why_not_ready() is None)
            except (asyncio.CancelledError, web.HTTPException):
                raise
            except Exception:
                log.exception("a request failed: %s %.200s", request.method, request.path)
                return refuse(500, "Internal", "the node had an unexpected error; its log says more")

        return answer

    def _too_late(self, request: web.Request) -> web.Response:
        """A look can be asked for again; what was to be done may still be done, when the store is back."""
        why = self._service.why_not_ready() or "the store (etcd) gives this node no answer"
        if request.method == "GET":
            return _answer_for(errors.Unreachable(why), ready=False)
        if request.path == "/v1/jobs":
            advice, what = ADVICE[errors.EnqueueUnknown], "the job may be stored, now or later"
            return refuse(504, "EnqueueUnknown", f"{why}: {what}", advice)
        what = "it may be carried out yet"
        return refuse(504, "Unreachable", f"{why}: {what}", "have a look when the store is back")

    async def _enqueue(self, request: web.Request) -> web.Response:
        job = _decode_job(await request.read())
        bundle = self._bundle_of(request.headers.get("Idempotency-Key"))
        (answer,) = await self._service.enqueue([await self._bundle(bundle, job)], 0)
        if not isinstance(answer, Receipt):
            raise answer
        id_ = job_id(answer.bundle, 0)
        page = {"id": id_, "level": answer.level, "revision": answer.revision, "existing": answer.existing}
        return json_page(page, status=200 if answer.existing else 201, headers={"Location": f"/v1/jobs/{id_}"})

    async def _job_of_flow(self, bundle: str, given: bytes, flow: FlowTerms, refs: dict[str, str]) -> Enqueue:
        job = _decode_job(given)
        job.after = tuple(refs.get(one, one) for one in job.after)
        return await self._bundle(bundle, job, flow)

    async def _bundle(self, bundle: str, job: NewJob, flow: FlowTerms | None = None) -> Enqueue:
        header, payload = await self._calls.header(
            bundle, job, _options(job), priority=priority(job.priority), key=options.key(job.key),
            delay_s=duration_s(job.delay_s, "delay_s"), flow=flow.id if flow is not None else "",
        )
        terms = _terms(job)
        if flow is not None:
            terms = _in_flow(terms or NO_TERMS, flow, bundle)
        return Enqueue(
            bundle=bundle,
            task=header.task,
            queue=header.queue,
            count=1,
            mode=header.mode,
            body=self._calls.body(header, payload),
            priority=header.priority,
            delay_s=header.delay_s,
            level=options.level(job.level),
            key=header.key,
            terms=terms,
        )

    def _bundle_of(self, idempotency_key: str | None) -> str:
        """The same key, the same bundle: a repeat within the time that receipts are kept is answered by the first."""
        if idempotency_key is None:
            return self._names.next()
        if not 0 < len(idempotency_key) <= IDEMPOTENCY_CHARS_MAX:
            raise InvalidJob(f"Idempotency-Key: 1 to {IDEMPOTENCY_CHARS_MAX} characters")
        return idempotent_id(self._service.cluster, idempotency_key)

    async def _job(self, request: web.Request) -> web.Response:
        job_id = job_of(request)
        wait = request.query.get("wait")
        if wait is None:
            return json_page(await self._service.job(job_id))
        number_of(wait, "wait")
        entry = await self._result(job_id, wait_s(request))
        if entry is None:
            return json_page(await self._service.job(job_id), status=202)
        return json_page(_result_page(job_id, entry))

    async def _body(self, request: web.Request) -> web.Response:
        """As it is stored: whoever reads it checks its signature."""
        body = await self._service.body(job_of(request))
        return web.Response(body=body, content_type="application/octet-stream", headers=HEADERS)

    async def _result(self, job_id: str, patience_s: float) -> ResultEntry | None:
        bundle, index = parse_job_id(job_id)
        found: asyncio.Future[ResultEntry] = asyncio.get_running_loop().create_future()

        def push(_bundle: str, data: bytes) -> None:
            if not data:
                if not found.done():
                    found.set_exception(gone(job_id))
                return
            try:
                entries = self._keyring.results_of(bundle, data, self._service.cluster).entries
            except RotaError as error:
                if not found.done():
                    found.set_exception(error)
                return
            for entry in entries:
                if entry.index == index and not found.done():
                    found.set_result(entry)

        end = await self._service.follow(bundle.partition("-")[0], [bundle], push)
        try:
            async with asyncio.timeout(patience_s):
                return await found
        except TimeoutError:
            return None
        finally:
            end()

    async def _jobs(self, request: web.Request) -> web.Response:
        queue, limit, after = _which_part(request)
        place, task = request.query.get("place", ""), normal(request.query.get("task", ""))
        more = JobsFilter(
            request.query.get("key", ""), _moment(request, "since"), _moment(request, "until"),
            request.query.get("label", ""),
        )
        return json_page(await self._service.jobs(place, queue or "", task, limit, after, more))

    async def _tasks(self, _request: web.Request) -> web.Response:
        return json_page(await self._service.tasks())

    async def _nodes(self, _request: web.Request) -> web.Response:
        return json_page(await self._service.nodes())

    async def _queues(self, request: web.Request) -> web.Response:
        limit = limit_of(request, LISTED_MAX) if "limit" in request.query else LISTED_MAX
        return listed(request, *await self._service.queue_part(request.query.get("after", ""), max(limit, 1)))

    async def _failed(self, request: web.Request) -> web.Response:
        queue, limit, after = _which_part(request)
        return listed(request, *await self._service.failed(queue, limit, after))

    async def _finished(self, request: web.Request) -> web.Response:
        queue, limit, after = _which_part(request)
        return listed(request, *await self._service.finished(queue, limit, after))

    async def _stats(self, _request: web.Request) -> web.Response:
        return json_page(await self._service.stats())

    async def _live(self, _request: web.Request) -> web.Response:
        return json_page({"status": "ok"})

    async def _ready(self, _request: web.Request) -> web.Response:
        why_not = self._service.why_not_ready()
        if why_not is None:
            return json_page({"status": "ok"})
        return json_page({"status": "not ready", "why": why_not}, status=503)


def _answer_for(error: RotaError, *, ready: bool) -> web.Response:
    status = STATUS.get(type(error), 500)
    if isinstance(error, errors.Unreachable):
        return refuse(503, "Unreachable", str(error), ADVICE[errors.Unreachable], {"Retry-After": "1"})
    if isinstance(error, Overloaded):
        status = 429 if ready else 503
        headers = {"Retry-After": str(math.ceil(error.retry_after_s))}
        return refuse(status, "Overloaded", str(error), ADVICE[errors.Overloaded], headers)
    if isinstance(error, errors.QueueFull):
        headers = {"Retry-After": str(math.ceil(error.retry_after_s))}
        return refuse(429, "QueueFull", str(error), ADVICE[errors.Overloaded], headers)
    if isinstance(error, errors.JobExists):
        return refuse(409, "JobExists", str(error), "", {"Location": f"/v1/jobs/{error.job_id}"})
    if status == 500:
        log.error("a request failed: %s: %s", type(error).__name__, error)
        return refuse(500, "Internal", "the node had an unexpected error; its log says more")
    return refuse(status, type(error).__name__, str(error), ADVICE.get(type(error), ""))


def of_store(error: errors.LedgerError) -> RotaError:
    """What a client is told when the store did not do what its node asked. Errors of the store stay inside, with what
    they say: the node's own log has them."""
    if isinstance(error, errors.NoSpace):
        return Overloaded("the store (etcd) is full: free space or raise its quota, then disarm its alarm", 5.0)
    if isinstance(error, errors.LedgerDenied):
        return errors.Unreachable("the store (etcd) refuses this node: see its password or certificate")
    return errors.Unreachable("the store (etcd) does not answer this node now")


def _as_json(verb: Callable[[web.Request], Awaitable[Any]]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return json_page(await verb(request))

    return answer


def _options(job: NewJob) -> Options:
    if len(job.retry_delays_s) > TABLE_MAX:
        raise InvalidJob(f"retry_delays_s: at most {TABLE_MAX}; the last one is waited after all further attempts")
    return Options(
        None if job.max_attempts is None else options.attempts(job.max_attempts),
        None if job.timeout_s is None else duration_s(job.timeout_s, "timeout_s", zero=False),
        _seconds(job.keep_result_s, "keep_result_s"),
        _seconds(job.keep_finished_s, "keep_finished_s"),
        _seconds(job.backoff_base_s, "backoff_base_s"),
        _seconds(job.backoff_cap_s, "backoff_cap_s"),
        tuple(duration_s(delay, "retry_delays_s") for delay in job.retry_delays_s),
        None if job.keep_log is None else options.log_lines(job.keep_log),
    )


def _terms(job: NewJob) -> Terms | None:
    given = GivenTerms(
        job.unique_key, job.unique_until, job.unique_for_s, job.on_conflict, job.expires_s,
        idempotency_window=job.idempotency_window_s, on_upstream=job.on_upstream,
        requires=job.requires, weight=job.weight, fair_key=job.fair_key, rate_key=job.rate_key,
    )
    terms = given.over(NO_TERMS) if given.anything else None
    if job.after:
        terms = msgspec.structs.replace(terms or NO_TERMS, after=upstream_of(refs_of(job.after), ()))
    return terms


def _in_flow(terms: Terms, flow: FlowTerms, bundle: str) -> Terms:
    """Jobs of one flow that is made here have names of one session."""
    own = bundle.partition("-")[0] + "-"
    after = tuple(msgspec.structs.replace(one, own=one.bundle.startswith(own)) for one in terms.after)
    return msgspec.structs.replace(terms, after=after, flow=flow)


def _seconds(value: float | None, name: str) -> float | None:
    return None if value is None else duration_s(value, name)


def _moment(request: web.Request, name: str) -> float | None:
    """Seconds since 1970."""
    given = request.query.get(name)
    return None if given is None else number_of(given, name)


def _which_part(request: web.Request) -> tuple[str | None, int, str]:
    """`?queue=`, `?limit=` and `?after=` of a list."""
    queue = request.query.get("queue")
    return queue and queue_name(queue), limit_of(request, LISTED_MAX), request.query.get("after", "")


def _decode_job(body: bytes) -> NewJob:
    try:
        body.decode()
        job = _decode_new_job(body)
    except UNREADABLE as error:
        raise InvalidJob(f"the body is not what POST /v1/jobs takes: {error}") from None
    return job


def _result_page(job_id: str, entry: ResultEntry) -> dict[str, Any]:
    page: dict[str, Any] = {"id": job_id, "status": entry.status, "attempts": entry.attempts, "codec": entry.codec}
    if entry.status != "ok":
        return page | {"error": entry.error, "traceback": entry.traceback}
    if is_check(entry.value):
        return page | {"value": None, "note": "the result lies in the object store: only rota's Python client reads it"}
    if is_sealed(entry.value):
        return page | {"value": None, "note": f"the result is encrypted, with key {key_of(entry.value)}"}
    if entry.codec == "json":
        return page | {"value": msgspec.Raw(entry.value)}
    return page | {"value": None, "note": "the result is pickled: only rota's Python client reads it"}
