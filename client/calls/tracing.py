"""OpenTelemetry at the end that enqueues: a span for each job that is made; its context travels in the job's headers.

Only imported by who asks for it (`rota.otel`): it needs `opentelemetry-api`. Names are those of the semantic
conventions for messaging.
"""

from __future__ import annotations

from opentelemetry import propagate
from opentelemetry.trace import SpanKind, Tracer, TracerProvider, get_tracer

from ..errors import InvalidJob
from ..options.headers import checked
from .outgoing import Outgoing

SYSTEM = "rota"
TRACEPARENT = "traceparent"


class Tracing:
    """What spans are made with; None where nobody asked for any. Of this process."""

    tracer: Tracer | None = None


def use(provider: TracerProvider | None) -> None:
    """Make spans with this provider; None: with the one that is set for the process."""
    Tracing.tracer = get_tracer("rota", tracer_provider=provider)


def describing(operation: str, queue: str, task: str) -> dict[str, str | int]:
    """What all spans of a job say."""
    return {
        "messaging.system": SYSTEM, "messaging.operation.name": operation, "messaging.operation.type": operation,
        "messaging.destination.name": queue, "rota.task": task,
    }


def created(job: Outgoing) -> None:
    """A step of `before_enqueue`: the span under which all that becomes of the job will hang. What it is to carry and
    has no room for is left out, down to nothing: no job is refused for its trace."""
    tracer = Tracing.tracer
    if tracer is None:
        return
    about = describing("create", job.queue, job.task)
    with tracer.start_as_current_span(f"create {job.queue}", kind=SpanKind.PRODUCER, attributes=about):
        carried: dict[str, str] = {}
        propagate.inject(carried)
    for chosen in (carried, {name: text for name, text in carried.items() if name == TRACEPARENT}):
        try:
            checked({**job.headers, **chosen})
        except InvalidJob:
            continue
        job.headers.update(chosen)
        return
