"""`python -m benchmarks.seen`: what people look at while a million jobs wait in ten thousand queues.

The tokens are written straight into an etcd with fsync on: half of the jobs in one queue, in bundles as `enqueue_many`
makes them (`--bundle 1`: each alone, which takes minutes more to write), the rest one by one and evenly over the
others; all queues are paused, so that nothing else goes on. Then a node that has just started is asked for the
overview, and for pages of the dashboard and of the port, as a browser would: each several times, the first time told
apart. At last nothing is asked for, and it is measured what the node's process uses without and with open pages (their
streams of events).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from rich.console import Console

from rota.client.errors import LedgerError
from rota.cluster.ledger.ledger import Op, Put, Txn
from rota.cluster.state.records import QueueRecord, Token, encode

from .meters import cpu_s
from .percentiles import percentile
from .report import step, table_of
from .scale import Target, at_most, main, parser
from .stage import Stage, until

JOBS, QUICK_JOBS = 1_000_000, 20_000
QUEUES, QUICK_QUEUES = 10_000, 300
PER_TXN, IN_FLIGHT = 100, 16
BIG, TASK = "backlog", "benchmarks.jobs:nothing"
TIMES = 7
BUNDLE = 60
IDLE_S, QUICK_IDLE_S = 20.0, 2.0
SETTLE_S, REST_SHARE = 60.0, 0.03
OPEN = 10
LIMIT_S = 900.0

OVERVIEW_MS, PAGE_MS, COUNTED_MS, CORE_SHARE = 300.0, 1_000.0, 4_000.0, 1.0
COUNTED = ("GET /v1/queues", "GET /v1/stats")
"""Not what a person waits for: lists for programs, given up after eight seconds."""


def name_of(number: int) -> str:
    return BIG if number == 0 else f"tenant-{number:05d}"


def tokens(stage: Stage, jobs: int, queues: int, bundle: int) -> Iterator[Op]:
    """Half of the jobs in the first queue, in bundles, the others in turns."""
    keys, at, big = stage.keys, int(1000 * time.time()) - 1_000, jobs // 2
    for number in range(jobs):
        count = min(bundle, big - number) if number < big else 1
        if number < big and number % bundle:
            continue
        queue = name_of(0 if number < big else number % (queues - 1) + 1)
        order = 1_000 + number // 5
        token = Token(TASK, queue, 0, order, count, "sync", at)
        yield Put(keys.job(queue, 0, order, f"k3f9q2m7xa5t-{number:08x}"), encode(token))


async def write(stage: Stage, ops: Iterator[Op]) -> None:
    async def some() -> None:
        while batch := tuple(itertools.islice(ops, PER_TXN)):
            while True:
                with contextlib.suppress(LedgerError):      # a busy machine: the same once more
                    await stage.ledger.commit(Txn((), batch))
                    break
                await asyncio.sleep(1.0)

    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))


async def fill(stage: Stage, jobs: int, queues: int, bundle: int) -> None:
    paused = encode(QueueRecord(paused=True))
    await write(stage, (Put(stage.keys.queue(name_of(number)), paused) for number in range(queues)))
    await write(stage, tokens(stage, jobs, queues, bundle))


async def at_rest(stage: Stage, limit_s: float) -> None:
    """What the node does in the background (it counts) is over: its process does next to nothing."""
    (identity,) = await stage.members()
    pid, until_s = stage.node_pid(identity), time.monotonic() + limit_s
    while time.monotonic() < until_s:
        before = cpu_s(pid)
        await asyncio.sleep(2.0)
        if cpu_s(pid) - before < 2.0 * REST_SHARE:
            return


async def start_afresh(stage: Stage) -> None:
    """Another process at the same address, which has seen nothing yet; what the old one was is gone."""
    (old,) = await stage.members()
    await stage.replace(old)

    async def alone() -> bool:
        members = await stage.members()
        return len(members) == 1 and old not in members and await stage.master() in members

    await until(alone, "the new node is alone")


def pages(queues: int) -> dict[str, str]:
    """What is asked for, by what it is called."""
    middle, last = name_of(queues // 2), name_of(queues - 1)
    return {
        "GET /v1/overview": "/v1/overview", "overview": "/", "queues": "/queues",
        "queues, from the middle": f"/queues?after={middle}", "queues, the last": f"/queues?after={last[:-2]}",
        "queues, one by name": f"/queues?find={middle}", "jobs": "/jobs", "jobs that wait": "/jobs?place=waiting",
        "jobs of the big queue": f"/jobs?queue={BIG}", "jobs of one queue": f"/jobs?queue={middle}",
        "jobs of a task that has none": "/jobs?task=app:other", "failed set": "/failed", "schedules": "/schedules",
        "nodes": "/nodes", "GET /v1/jobs": "/v1/jobs?place=waiting", "GET /v1/queues": "/v1/queues",
        "GET /v1/stats": "/v1/stats", "GET /metrics": "/metrics",
    }


@asynccontextmanager
async def browser(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    (url,) = await stage.urls()
    headers = {"Authorization": f"Bearer {stage.token}"}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        yield session


async def asked(session: aiohttp.ClientSession, path: str) -> float:
    """Milliseconds until all of it is here."""
    began = time.monotonic()
    async with session.get(path) as answer:
        await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
    return 1e3 * (time.monotonic() - began)


async def idle(stage: Stage, seconds: float, open_pages: int) -> dict[str, float]:
    """Per cent of a core that node and etcd use while so many pages are open and nothing happens."""
    (identity,) = await stage.members()
    pids = {"node": stage.node_pid(identity), "etcd": stage.etcd.pid}
    async with browser(stage) as session, AsyncExitStack() as streams:
        for _ in range(open_pages):
            answer = await streams.enter_async_context(session.get("/v1/events"))
            await answer.content.readline()
        await asyncio.sleep(seconds / 10)
        before, began = {what: cpu_s(pid) for what, pid in pids.items()}, time.monotonic()
        await asyncio.sleep(seconds)
        spent = time.monotonic() - began
        return {what: 100 * (cpu_s(pid) - before[what]) / spent for what, pid in pids.items()}


async def run(plan: argparse.Namespace, folder: Path, console: Console, figures: dict[str, Any]) -> list[Target]:
    jobs, queues = (QUICK_JOBS, QUICK_QUEUES) if plan.quick else (JOBS, QUEUES)
    async with Stage(folder, nodes=1, binary=plan.etcd) as stage:
        with step(console, f"{jobs:,} jobs in {queues:,} queues are written"):
            await fill(stage, jobs, queues, plan.bundle)
        with step(console, "the node is started afresh"):
            await start_afresh(stage)
            await at_rest(stage, SETTLE_S)
        took: dict[str, list[float]] = {}
        with step(console, "pages are asked for"):
            async with browser(stage) as session:
                for what, path in pages(queues).items():
                    took[what] = [await asked(session, path) for _ in range(TIMES)]
                overview = msgspec.json.decode(await (await session.get("/v1/overview")).read())
        await at_rest(stage, SETTLE_S)
        seconds = QUICK_IDLE_S if plan.quick else IDLE_S
        cpu = {}
        for number in (0, 1, OPEN):
            with step(console, f"nothing happens, {number} pages are open"):
                cpu[number] = await idle(stage, seconds, number)
    rows = [
        (what, f"{times[0]:,.0f}", f"{percentile(times[1:], 50):,.0f}", f"{max(times[1:]):,.0f}")
        for what, times in took.items()
    ]
    console.print(table_of("milliseconds", ("page", "first", "median", "longest"), rows))
    console.print(f"counted: {overview.get('totals')}")
    figures |= {
        "jobs": jobs, "queues": queues, "bundle": plan.bundle, "took_ms": took, "cpu_percent": cpu,
        "etcd": stage.etcd.version,
    }
    others = [ms for what, times in took.items() for ms in times if "overview" not in what and what not in COUNTED]
    counted = [ms for what in COUNTED for ms in took[what]]
    return [
        at_most("overview, the first request", took["GET /v1/overview"][0], OVERVIEW_MS, "ms"),
        at_most("overview, any request", max(took["GET /v1/overview"] + took["overview"]), OVERVIEW_MS, "ms"),
        at_most("any other page", max(others), PAGE_MS, "ms"),
        at_most("what counts a thousand queues", max(counted), COUNTED_MS, "ms"),
        at_most("an open page on an idle cluster", cpu[1]["node"] - cpu[0]["node"], CORE_SHARE, "% of a core"),
        at_most("the whole node, a page open", cpu[1]["node"], 2 * CORE_SHARE, "% of a core"),
    ]


if __name__ == "__main__":
    options = parser("seen", __doc__)
    options.add_argument("--bundle", type=int, default=BUNDLE, help="jobs of a bundle in the large queue (%(default)s)")
    main("seen", run, options.parse_args(), LIMIT_S)
