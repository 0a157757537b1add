"""Traces by OpenTelemetry: `pip install 'rota[otel]'`.

    import rota.otel

    rota.otel.instrument()      # in the module that declares the tasks, and wherever else jobs are enqueued

A span for each job that is made, below the caller's; and below that one for its wait and one for each run, wherever it
runs. See docs/tracing.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rota.worker.runner import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["instrument", "uninstrument"]


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Make spans of all jobs that this process enqueues or runs, from now on. `tracer_provider`: None is the one that
    is set for the process, whenever that is. Called again, it only changes the provider."""
    tracing.instrument(tracer_provider)


def uninstrument() -> None:
    """Make no more spans."""
    tracing.uninstrument()
