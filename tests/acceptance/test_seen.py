"""The master is killed, and all are told, with one takeover time: history, metrics, dashboard, log and trace."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from .rig import Rig, until
from .test_takeover import all_end, enqueue_naps, holds_work


async def test_a_killed_master_is_seen_everywhere_with_one_takeover_time(
    etcd: Any, cluster_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"log_format": "json", "dev": False, "otel": True}
    async with (
        collector(monkeypatch) as spans,
        Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, sync=1, ttl_s=8, **settings) as rig,
    ):
        handles = await enqueue_naps(rig, tmp_path / "journal", 200)
        victim = await rig.master()
        await holds_work(rig, victim)
        rig.kill_node(victim)

        async def succeeded() -> str:
            master = await rig.master()
            return master if master != victim else ""

        master = await until(succeeded, "another node is master")
        url = next(it for it in await rig.urls() if it)
        async with aiohttp.ClientSession(url, headers=rig.headers) as web:

            async def look(path: str) -> Any:
                async with web.get(path, headers={"Accept": "text/html"}) as answer:
                    assert answer.status == 200
                    return await (answer.json() if path.startswith("/v1/") else answer.text())

            async def told() -> Any:
                seen = await look("/v1/overview")
                gone = [it for it in seen["history"] if it["event"] == "node_gone" and it["fields"]["node"] == victim]
                taken = seen["last_takeover"]
                return seen if gone and taken is not None and taken["fields"]["node"] == victim else None

            seen = await until(told, "the takeover is in the history")
            took_s = seen["last_takeover"]["fields"]["duration_s"]
            assert seen["master"] == master == seen["last_takeover"]["node"] and seen["master_since"] is not None
            page = (await look("/")).replace("\u00a0", " ")
        assert f"took over what {victim} held" in page and f"in {took_s:.3g} s" in page
        assert page.count(f"{took_s:.3g} s") >= 2, "the card and the event give one and the same figure"
        assert took_s in [await last_takeover(rig, it) for it in await rig.urls()]
        logged = [line for line in lines(rig, rig.name_of(master)) if line.get("event") == "took_over"]
        assert [line["fields"]["duration_s"] for line in logged] == [took_s] and logged[0]["node"] == master
        await all_end(handles)

        async def traced() -> list[Any]:
            return [span for span in spans if span.name == "takeover" and text_of(span, "rota.lost_node") == victim]

        (takeover,) = await until(traced, "the takeover is in the trace")
        assert number_of(takeover, "rota.takeover.duration_s") == took_s
        assert abs((takeover.end_time_unix_nano - takeover.start_time_unix_nano) / 1e9 - took_s) < 1e-6
        lost = await until(
            lambda: [span for span in spans if [event.name for event in span.events] == ["rota.takeover"]],
            "runs of jobs that were taken over say so",
        )
        assert {span.name for span in lost} == {"process default"}


@asynccontextmanager
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Any]]:
    """Takes spans by OTLP, as the SDK's exporter sends them; nodes and runners find it in their environment."""
    spans: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        sent = ExportTraceServiceRequest.FromString(
            gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body
        )
        spans.extend(span for part in sent.resource_spans for scope in part.scope_spans for span in scope.spans)
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{host}:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    try:
        yield spans
    finally:
        await runner.cleanup()


def text_of(span: Any, name: str) -> str:
    return next((str(it.value.string_value) for it in span.attributes if it.key == name), "")


def number_of(span: Any, name: str) -> float:
    return next(float(it.value.double_value) for it in span.attributes if it.key == name)


async def last_takeover(rig: Rig, url: str) -> float | None:
    async with aiohttp.ClientSession(headers=rig.headers) as web, web.get(f"{url}/metrics") as answer:
        text = await answer.text()
    found = [
        sample.value for family in text_string_to_metric_families(text) for sample in family.samples
        if sample.name == "rota_last_takeover_seconds"
    ]
    return found[0] if found else None


def lines(rig: Rig, name: str) -> list[dict[str, Any]]:
    """Each line of a node's log is JSON, whichever of its processes wrote it."""
    text = rig.log(name)
    return [json.loads(line) for line in re.split(r"\n", text) if line]
