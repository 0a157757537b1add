"""Traces by OpenTelemetry: from the caller's span through the enqueue, the wait and every run."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import rota
import rota.otel
import rota.testing
from rota.client.calls.outgoing import Outgoing
from rota.client.calls.tracing import created
from rota.client.options import headers as texts
from rota.cluster.clock import SystemClock
from rota.cluster.events import records as r
from rota.cluster.events.hub import Events
from rota.cluster.telemetry.traces import Traces
from rota.worker.channel.frames import Work
from rota.worker.runner import tracing
from rota.worker.runner.context import current_job, running


@rota.task(queue="images", max_attempts=2, backoff_base=0.01, backoff_cap=0.01)
def traced(fail_first: bool = False) -> dict[str, str]:
    job = rota.current_job()
    assert job is not None
    if fail_first and job.attempt == 1:
        raise ValueError("not yet")
    return dict(job.headers)


@rota.task(queue="images")
async def atraced(inner: bool) -> str:
    if inner:
        return (await traced.aenqueue()).id
    raise rota.Cancelled("enough")


class Seen:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("app")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen()
    rota.otel.instrument(seen.provider)
    yield seen
    rota.otel.uninstrument()


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def test_from_the_callers_span_to_the_run(seen: Seen) -> None:
    with rota.testing.MemoryCluster(), seen.tracer.start_as_current_span("checkout"):
        handle = traced.enqueue()
        carried = handle.result(60)
    caller, made, waited, ran = map(seen.one, ("checkout", "create images", "wait images", "process images"))
    assert parent_of(made) == id_of(caller)
    assert parent_of(waited) == parent_of(ran) == id_of(made)
    assert len({span.context.trace_id for span in (caller, made, waited, ran) if span.context}) == 1
    assert (made.kind, ran.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert set(carried) == {"traceparent"} and f"{id_of(made):016x}" in carried["traceparent"]
    assert dict(ran.attributes or {}) == {
        "messaging.system": "rota", "messaging.operation.name": "process", "messaging.operation.type": "process",
        "messaging.destination.name": "images", "messaging.message.id": handle.id, "rota.task": traced.name,
        "rota.attempt": 1, "rota.fencing_token": (ran.attributes or {})["rota.fencing_token"], "rota.outcome": "ok",
    }
    assert waited.start_time and waited.end_time and ran.start_time
    assert waited.start_time <= waited.end_time <= ran.start_time + 50_000_000


def test_each_attempt_is_a_span_and_what_failed_says_so(seen: Seen) -> None:
    with rota.testing.MemoryCluster() as cluster:
        handle = traced.enqueue(fail_first=True)
        cluster.travel(seconds=1)
        handle.result(60)
    first, second = seen.named("process images")
    assert parent_of(first) == parent_of(second) == id_of(seen.one("create images"))
    assert first.status.status_code is StatusCode.ERROR and first.events[0].name == "exception"
    assert (first.attributes or {})["error.type"] == "ValueError"
    assert second.status.status_code is StatusCode.UNSET
    assert [(span.attributes or {})["rota.attempt"] for span in (first, second)] == [1, 2]
    assert len(seen.named("wait images")) == 1, "a retry waits in the sight of all, between two runs"


def test_many_jobs_and_jobs_of_jobs_and_a_cancelled_one(seen: Seen) -> None:
    with rota.testing.MemoryCluster() as cluster:
        traced.enqueue_many([(), ()]).results(60)
        assert len({parent_of(span) for span in seen.named("process images")}) == 2
        seen.exporter.clear()
        inner = atraced.enqueue(True).result(60)
        cluster.client.handle(inner).result(60)
        outer = next(it for it in seen.named("process images") if (it.attributes or {})["rota.task"] == atraced.name)
        made = next(it for it in seen.named("create images") if (it.attributes or {})["rota.task"] == traced.name)
        assert parent_of(made) == id_of(outer)
        with pytest.raises(rota.JobCancelled):
            atraced.enqueue(False).result(60)
        cancelled = seen.named("process images")[-1]
        assert (cancelled.attributes or {})["rota.outcome"] == "cancelled"
        assert cancelled.status.status_code is StatusCode.UNSET


def test_a_context_from_elsewhere_comes_over_http(seen: Seen) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with rota.testing.MemoryCluster() as cluster:
        job = {"task": traced.name, "queue": "images", "headers": {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}}
        request = urllib.request.Request(
            f"{cluster.url}/v1/jobs", json.dumps(job).encode(), {"Authorization": f"Bearer {cluster.token}"}
        )
        with urllib.request.urlopen(request) as answer:
            cluster.client.handle(json.load(answer)["id"]).result(60)
    ran = seen.one("process images")
    assert ran.context is not None and f"{ran.context.trace_id:032x}" == trace


def test_no_job_is_refused_for_its_trace(seen: Seen) -> None:
    full = {f"h{n}": "x" for n in range(texts.HEADERS_MAX)}
    job = Outgoing("app:task", (), {}, dict(full), "images", 0)
    created(job)
    assert job.headers == full and seen.one("create images")


def test_who_asks_for_nothing_pays_nothing() -> None:
    assert traced.is_bare
    rota.otel.instrument()                  # no provider is set: nothing is recorded, and no byte travels
    rota.otel.instrument()
    try:
        job = Outgoing("app:task", (), {}, {}, "images", 0)
        created(job)
        assert job.headers == {} and not traced.is_bare
    finally:
        rota.otel.uninstrument()
    assert traced.is_bare


def test_a_run_after_a_takeover_says_so(seen: Seen) -> None:
    work = Work(1, "k3f9q2m7xa5t-00000001", "app:task", "images", "sync", 1, 7, 1.0, "json", [], takeovers=1)
    token = running.set((work, 0))
    try:
        job = current_job()
        assert job is not None and job.takeovers == 1
        with tracing._run(job):
            pass
    finally:
        running.reset(token)
    (event,) = seen.one("process images").events
    assert event.name == "rota.takeover" and not seen.named("wait images")


def test_a_takeover_is_a_span_as_long_as_it_took(seen: Seen) -> None:
    events = Events()
    Traces(seen.provider, lambda: "b-1", SystemClock().wall).listen(events)
    events.emit(r.TookOver("a-1", 12, 0.345))
    span = seen.one("takeover")
    assert span.start_time and span.end_time and (span.end_time - span.start_time) / 1e9 == pytest.approx(0.345)
    assert dict(span.attributes or {}) == {
        "rota.node": "b-1", "rota.lost_node": "a-1", "rota.claims": 12, "rota.takeover.duration_s": 0.345,
    }
