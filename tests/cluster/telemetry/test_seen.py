"""What a cluster shows of itself over its port: metrics, overview, history, events as they happen."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

import rota
from rota.client.model import Outcome
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.client.wire.views import QueueView
from rota.cluster.clock import SystemClock
from rota.cluster.context import NodeContext
from rota.cluster.events import records as r
from rota.cluster.events.hub import Events
from rota.cluster.ledger.ledger import Delete, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.node import Node
from rota.cluster.node.settings import NodeSettings
from rota.cluster.port import seen
from rota.cluster.port.http import HttpPort
from rota.cluster.state.keys import Keys
from rota.cluster.telemetry import chronicle, exposition, feed
from rota.cluster.telemetry.depths import Depth
from rota.cluster.telemetry.records import happened_in, node_seen_in
from rota.cluster.telemetry.telemetry import Telemetry
from rota.cluster.testing.local import LocalRunners

from ...client.fake_service import KEYRING, FakeService

KEYS = Keys("t")


class Live:
    """A node with its telemetry and its port."""

    def __init__(self, node: Node, telemetry: Telemetry, url: str, session: aiohttp.ClientSession) -> None:
        self.node = node
        self.telemetry = telemetry
        self.url = url
        self._session = session

    async def get(self, path: str) -> Any:
        async with self._session.get(self.url + path) as answer:
            assert answer.status == 200, await answer.text()
            return await (answer.text() if path == "/metrics" else answer.json())

    async def metrics(self) -> dict[str, float]:
        """Sample by name and labels."""
        return {
            sample.name + "".join(f"|{value}" for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(await self.get("/metrics")) for sample in family.samples
        }


@asynccontextmanager
async def live(ledger: MemoryLedger, name: str = "n", token: str | None = None) -> AsyncIterator[Live]:
    context = NodeContext(
        ledger=ledger, keys=KEYS, clock=SystemClock(), rng=random.Random(name), seal=Seal(UNSIGNED, "t"),
        events=Events(),
    )
    settings = NodeSettings(name=name, python="3.11", version="0", grace_s=0.0, lease_ttl_s=2)
    node = Node(settings, context, LocalRunners({"async": 5, "sync": 2}))
    telemetry = Telemetry(node.observed, context, node.directory)
    async with HttpPort(node.service, token=token, sites=[seen.SeenPages(telemetry)]) as port:
        tasks = [asyncio.create_task(node.run(), name="node"), asyncio.create_task(telemetry.run(), name="telemetry")]
        async with aiohttp.ClientSession() as session:
            await until(lambda: node.service.why_not_ready() is None and node.directory.master)
            yield Live(node, telemetry, port.url, session)
        tasks[1].cancel()
        node.drain()
        node.drain()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Any, limit_s: float = 20.0) -> Any:
    async with asyncio.timeout(limit_s):
        while not (value := condition()):       # noqa: ASYNC110 - no one says so
            await asyncio.sleep(0.01)
        return value


@rota.task(max_attempts=1)
def breaks() -> None:
    raise ValueError("no luck")


async def test_metrics_say_what_happened() -> None:
    async with live(MemoryLedger()) as here, rota.AsyncClient(here.url) as client:
        for _ in range(3):
            await (await client.enqueue(lambda: 7))
        with pytest.raises(rota.JobFailed):
            await (await client.enqueue(breaks))
        said = await here.metrics()
        assert said["rota_jobs_enqueued_total"] == 4
        assert said[f"rota_jobs_ended_total|failed|{breaks.name}"] == 1
        assert sum(value for key, value in said.items() if key.startswith("rota_jobs_ended_total")) == 4
        assert sum(value for key, value in said.items() if key.startswith("rota_job_run_seconds_count")) == 4
        assert said["rota_job_wait_seconds_count|default"] == 4
        assert said["rota_elections_total"] == 1 and said["rota_master"] == 1 and said["rota_members"] == 1
        assert said["rota_ready"] == 1 and 0 < said["rota_lease_margin_seconds"] <= 2
        assert said["rota_runners_capacity|sync"] == 2 and said["rota_runners_busy"] == 0
        assert said["rota_queue_jobs|default|failed"] == 1 and said["rota_queue_jobs_at_least"] == 0
        assert said["process_resident_memory_bytes"] > 0


async def test_the_metrics_page_names_every_metric() -> None:
    """docs/metrics.md is what people build alerts on."""
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    async with live(MemoryLedger()) as here:
        here.node.events.emit(r.TookOver("n2", 3, 0.25))
        families = [family.name for family in text_string_to_metric_families(await here.get("/metrics"))]
    missing = [name for name in families if name.startswith("rota_") and f"`{name}" not in page]
    assert not missing


async def test_hostile_names_break_no_line() -> None:
    async with live(MemoryLedger()) as here:
        for name in ('a"b\\c\nrota_master 5', "\ud800", "\u202e"):
            here.node.events.runs_ended(name, [Outcome(0, "ok", ran_s=0.1)])
        said = await here.metrics()
        assert said['rota_jobs_ended_total|ok|a"b\\c\nrota_master 5'] == 1 and said["rota_master"] == 1


def test_many_queues_are_a_bounded_page() -> None:
    rows = [QueueView(f"q{number}", waiting=number, oldest_s=float(number)) for number in range(10_000)]
    families = list(exposition._queues(Depth(1.0, rows, False, True)))
    jobs = next(family for family in families if family.name == "rota_queue_jobs")
    assert len(jobs.samples) == len(exposition.STATES) * (exposition.QUEUES_MAX + 1)
    assert sum(sample.value for sample in jobs.samples) == sum(range(10_000))
    assert math.isclose(families[1].samples[-1].value, 10_000 - exposition.QUEUES_MAX - 1)


async def test_a_token_is_asked_for() -> None:
    pages = seen.SeenPages(None)            # type: ignore[arg-type]
    port = HttpPort(FakeService(), token="secret", keyring=KEYRING, sites=[pages])      # type: ignore[arg-type]
    async with port, aiohttp.ClientSession() as web:
        for path in ("/metrics", "/v1/overview", "/v1/history", "/v1/events"):
            async with web.get(port.url + path) as answer:
                assert answer.status == 401, path


async def test_nodes_tell_each_other_while_somebody_looks() -> None:
    ledger = MemoryLedger()
    async with live(ledger, "one") as one, live(ledger, "two") as two, rota.AsyncClient(two.url) as client:
        await until(lambda: len(one.node.directory.members) == 2)
        for _ in range(5):
            await (await client.enqueue(lambda: 7))
        assert not (await ledger.read(KEYS.seen_nodes, KEYS.seen_nodes + b"\xff")).records     # nobody has looked
        page = await one.get("/v1/overview")
        assert page["missing"] in ([], [two.node.service.node]) and page["master"] == one.node.service.node
        await until(lambda: two.node.service.node in one.telemetry._chronicle.nodes)
        page = await one.get("/v1/overview")
        assert sum(minute[1] for minute in page["hour"]) == 5 and len(page["hour"]) == 60
        assert [(it["node"], it["master"]) for it in page["nodes"]] == sorted(
            [(one.node.service.node, True), (two.node.service.node, False)]
        )
        assert page["master_since"] is not None and page["totals"]["waiting"] == 0
        assert {"became_master", "node_joined"} <= {it["event"] for it in page["history"]}


async def test_a_lost_node_and_its_takeover_are_in_history_metrics_and_stream_with_one_figure() -> None:
    ledger = MemoryLedger()
    async with live(ledger, "one") as one:
        web = aiohttp.ClientSession()
        async with web, web.get(f"{one.url}/v1/events") as stream, live(ledger, "two") as two:
            await until(lambda: two.node.service.node in one.node.directory.members)
            name, identity = two.node.service.node, two.node.observed.identity()
            assert identity is not None
            await ledger.commit(Txn((), (Delete(identity[0].key),)))
            one.node.events.emit(r.TookOver(name, 3, 0.125))
            heard = await _heard(stream, {"took_over", "node_gone"})
        assert heard["took_over"]["fields"] == {"node": name, "claims": 3, "duration_s": 0.125}
        assert heard["node_gone"]["fields"] == {"node": name}
        page = await one.get("/v1/overview")
        assert page["last_takeover"]["fields"]["duration_s"] == 0.125
        assert (await one.metrics())["rota_last_takeover_seconds"] == 0.125
        assert [it["event"] for it in await one.get("/v1/history?limit=200")].count("took_over") == 1


async def _heard(stream: aiohttp.ClientResponse, wanted: set[str]) -> dict[str, Any]:
    """The first event of each of these names."""
    heard: dict[str, Any] = {}
    name = ""
    async with asyncio.timeout(20):
        async for line in stream.content:
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: ") and name in wanted:
                heard.setdefault(name, json.loads(line[6:]))
            if wanted <= heard.keys():
                break
    return heard


async def test_a_stream_tells_of_other_nodes_and_of_jobs_if_asked() -> None:
    ledger = MemoryLedger()
    async with live(ledger, "one") as one, live(ledger, "two") as two, aiohttp.ClientSession() as web:
        async with web.get(f"{one.url}/v1/events?jobs=1") as stream:
            await until(lambda: one.telemetry.feed.listeners == 1)
            two.node.events.emit(r.BulkEnded("op", "retry", 3))
            one.node.events.emit(r.JobEnded("b", 0, "t\nevent: forged", "q", 1, "ok", "", 0.1))
            heard = await _heard(stream, {"bulk_ended", "job_ended"})
        assert heard["bulk_ended"]["node"] == two.node.service.node
        assert heard["job_ended"]["fields"]["task"] == "t\nevent: forged"
        await until(lambda: one.telemetry.feed.listeners == 0, 40)
        assert not one.node.events.wanted(r.JobStarted)


async def test_a_reader_that_does_not_read_is_told_what_it_missed() -> None:
    async with live(MemoryLedger()) as here:
        with here.telemetry.feed.listen() as listener:
            for _ in range(feed.WAITING_MAX + 7):
                here.node.events.emit(r.VolatileLost(1))
            assert listener.missed == 7 and listener.queue.qsize() == feed.WAITING_MAX


async def test_history_stays_short_and_keeps_elections() -> None:
    ledger = MemoryLedger()
    async with live(ledger) as here:
        known = here.telemetry._chronicle
        await until(lambda: known.last("became_master"))
        for number in range(chronicle.KEPT + 50):
            await known._write_down(here.telemetry.feed.describe(r.BulkEnded(f"op{number}", "retry", 1)))
        await until(lambda: len(known.history) == chronicle.KEPT + 52)     # with its own: joined, became master
        await known.prune_once()
        await until(lambda: len(known.history) == chronicle.KEPT + 1)
        assert known.last("became_master") is not None


async def test_a_flood_is_not_written_down() -> None:
    async with live(MemoryLedger()) as here:
        for _ in range(5 * chronicle.NOTED_MAX):
            here.node.events.emit(r.SnapshotRetaken("again"))
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)
        assert len(here.telemetry._chronicle.history) <= chronicle.NOTED_MAX


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"at": "x"}', b"\xff", b"[" * 5000, b'{"at": 1}'])
def test_what_somebody_else_wrote_below_seen_is_nothing(value: bytes) -> None:
    assert happened_in(value) is None and node_seen_in(value) is None
