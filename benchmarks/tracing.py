"""`python -m benchmarks.tracing`: what OpenTelemetry costs a job, where it is enqueued and where it runs.

As `benchmarks.hotpath`, without a store or a socket: first without tracing, then instrumented while no provider is set,
then with the SDK's batch processor and an exporter that throws everything away. Needs `opentelemetry-sdk`.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from rota.worker.runner import tracing

from .hotpath import Layer, Meter, client, runner_async, runner_sync

LAYERS: dict[str, Layer] = {"enqueue": client, "run, async def": runner_async, "run, plain": runner_sync}


class Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def measured(bundles: int) -> dict[str, float]:
    found = {}
    for name, layer in LAYERS.items():
        meter = Meter(counting=False)
        layer(meter, bundles)
        found[name] = meter.least
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--bundles", type=int, default=200)
    bundles = parser.parse_args().bundles
    gc.set_threshold(10_000, 20, 20)
    rows = {"without": measured(bundles)}
    tracing.instrument()
    rows["no provider"] = measured(bundles)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracing.instrument(provider)
    rows["spans"] = measured(bundles)
    tracing.uninstrument()
    provider.shutdown()
    for name in LAYERS:
        told = ", ".join(f"{what} {row[name]:.1f}" for what, row in rows.items())
        print(f"{name:15} {told} us a job; a span costs it {rows['spans'][name] - rows['without'][name]:.1f} us")


if __name__ == "__main__":
    main()
