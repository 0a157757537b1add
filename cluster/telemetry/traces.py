"""What happens to the cluster as spans of OpenTelemetry: a takeover, with the very time that metrics and log say.

Only imported by a node that was asked for it (`rota node --otel`).
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.trace import SpanKind, TracerProvider, get_tracer

from ..events import records as r
from ..events.hub import Events

NS = 1_000_000_000


class Traces:
    """`node`: its name, as of now; `wall`: its clock."""

    def __init__(self, provider: TracerProvider, node: Callable[[], str], wall: Callable[[], float]) -> None:
        self._tracer = get_tracer("rota", tracer_provider=provider)
        self._node = node
        self._wall = wall

    def listen(self, events: Events) -> None:
        events.listen(self._took_over, (r.TookOver,))

    def _took_over(self, event: r.ClusterEvent) -> None:
        assert isinstance(event, r.TookOver)
        ended = int(self._wall() * NS)
        span = self._tracer.start_span(
            "takeover", kind=SpanKind.INTERNAL, start_time=ended - int(event.duration_s * NS), attributes={
                "rota.node": self._node(), "rota.lost_node": event.node, "rota.claims": event.claims,
                "rota.takeover.duration_s": event.duration_s,
            },
        )
        span.end(ended)
