"""OpenTelemetry at the end that runs jobs: a span for the time that a job has waited, and one for each run, below the
span that made it. Only imported by who asks for it (`rota.otel`, or `rota node --otel`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from rota.client.calls import outgoing, tracing
from rota.client.calls.tracing import Tracing, describing
from rota.client.options.checks import now_s
from rota.client.options.retries import Snooze

from . import around, hooks
from .context import Cancelled, JobContext, suspended_in

LAST, FIRST = 10_000, -10_000
"""Jobs are seen as all other middleware has left them; and a run with all that is round it."""

NS = 1_000_000_000
UNNAMED = "unknown_service"
"""What the SDK calls a service that has no name."""


def instrument(provider: TracerProvider | None = None) -> None:
    """See `rota.otel.instrument`."""
    tracing.use(provider)
    if (FIRST, _run) not in around.steps:
        outgoing.before_enqueue(order=LAST)(tracing.created)
        around.steps.append((FIRST, _run))
        around.steps.sort(key=lambda entry: entry[0])
        hooks.on_runner_stop(_flush)


def uninstrument() -> None:
    """See `rota.otel.uninstrument`."""
    Tracing.tracer = None
    outgoing.steps[:] = [entry for entry in outgoing.steps if entry[1] is not tracing.created]
    around.steps[:] = [entry for entry in around.steps if entry[1] is not _run]


def begin_runner() -> None:
    """In a runner of a node that exports spans, before its app is imported."""
    trace.set_tracer_provider(exporting("rota-runner"))
    instrument()


def exporting(service: str) -> Any:
    """A provider that sends spans by OTLP, as the environment's `OTEL_…` say: the service's name, too. Raises
    ImportError."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as Provider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()            # what the environment says
    if str(resource.attributes.get("service.name", UNNAMED)).startswith(UNNAMED):
        resource = resource.merge(Resource({"service.name": service}))
    provider = Provider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


@contextmanager
def _run(job: JobContext) -> Iterator[None]:
    tracer = Tracing.tracer
    if tracer is None:
        yield
        return
    came_from = propagate.extract(job.headers)
    if job.attempt == 1 and not job.takeovers:
        _waited(tracer, job, came_from)
    about = describing("process", job.queue, job.task) | {
        "messaging.message.id": job.id, "rota.attempt": job.attempt, "rota.fencing_token": job.fencing_token,
    }
    with tracer.start_as_current_span(
        f"process {job.queue}", came_from, SpanKind.CONSUMER, about, record_exception=False,
        set_status_on_exception=False,
    ) as span:
        if job.takeovers:
            span.add_event("rota.takeover", {"rota.takeovers": job.takeovers})
        try:
            yield
        except BaseException as error:
            _ended_by(span, error)
            raise
        span.set_attribute("rota.outcome", "ok")


def _waited(tracer: trace.Tracer, job: JobContext, came_from: Context) -> None:
    """From the enqueue to the first run, its delay included: by the clocks of two machines."""
    now = int(now_s() * NS)
    span = tracer.start_span(
        f"wait {job.queue}", came_from, SpanKind.INTERNAL,
        describing("wait", job.queue, job.task) | {"messaging.message.id": job.id},
        start_time=min(int(job.enqueued_at * NS) or now, now),
    )
    span.end(now)


def _ended_by(span: Span, error: BaseException) -> None:
    """What is no failure is said as what it is."""
    if suspended_in(error) is not None:
        span.set_attribute("rota.outcome", "suspended")
    elif isinstance(error, Cancelled | asyncio.CancelledError):
        span.set_attribute("rota.outcome", "cancelled")
    elif isinstance(error, Snooze):
        span.set_attribute("rota.outcome", "snoozed")
    else:
        span.set_attributes({"rota.outcome": "failed", "error.type": type(error).__qualname__})
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))


def _flush() -> None:
    """Before a runner ends; what is killed sends nothing any more."""
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(2_000)
