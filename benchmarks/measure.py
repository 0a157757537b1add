"""One case after the other: start a load, read the meters before and after it, count what came out."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from rota.client.model import Results
from rota.cluster.ledger.ledger import prefix_end

from . import jobs
from .load import Done
from .meters import cpu_by_role, difference, etcd_counters, machine, processes
from .percentiles import percentile
from .stage import BenchmarkError, Stage

LOAD_START_S = 240.0
DRAIN_S = 180.0
RESULTS_PAGE = 2_000
ROLES = ("client", "node", "runner", "guard", "etcd")


@dataclass(frozen=True)
class Case:
    """`by`: which rate is the headline: "ended" (all outcomes committed), "enqueued", or "latency" (its target is in
    bare puts, made at the same pace)."""

    name: str
    title: str
    seconds: float
    count: int
    by: str = "ended"
    target: float = 0.0
    hold: bool = False          # enqueue while the queue is paused, and measure from when it is let go


CASES = (
    Case("bulk", "bulk: one producer, enqueue_many, to the last outcome", 8, 200_000, target=25_000),
    Case("bulk-plain", "the same, plain functions", 6, 150_000),
    Case("backlog", "drain of a backlog", 12, 200_000, target=25_000, hold=True),
    Case("in-flight", "64 calls in flight, one process", 6, 100_000, by="enqueued", target=8_000),
    Case("in-flight-results", "64 calls in flight, each to its result", 6, 100_000, by="enqueued"),
    Case("processes", "64 processes, one call each", 6, 60_000, by="enqueued", target=1_500),
    Case("producer", "one synchronous producer", 4, 20_000, by="enqueued"),
    Case("pipeline", "the same loop in rota.pipeline()", 4, 100_000, by="enqueued", target=10_000),
    Case("idle", "idle latency, enqueue to result", 6, 2_000, by="latency", target=6),
    Case("idle-paced", "the same, 10 ms of rest before each", 6, 400, by="latency", target=6),
    Case("bulk-names", "bulk, after 20,000 queue names were used once", 8, 200_000),
)


class Figures(msgspec.Struct):
    """What was measured of one case. Rates are jobs per second, CPU is milliseconds per 1,000 jobs (so microseconds a
    job), etcd's work is per job."""

    name: str
    title: str
    by: str
    target: float
    jobs: int
    enqueued_s: float
    ended_s: float
    jobs_per_bundle: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_us: dict[str, float]
    etcd: dict[str, float]
    load: list[float]

    @property
    def rate(self) -> float:
        return self.enqueued_s if self.by == "enqueued" else self.ended_s


@asynccontextmanager
async def load_process(
    stage: Stage, name: str, seconds: float, count: int, url: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A load that is connected (to any node, or to one) and waits for its start."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load", name, "--seconds", str(seconds), "--count", str(count),
        env=stage.client_environment([url] if url else await stage.urls()), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, limit=64 * 1024 * 1024,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LOAD_START_S):
            if await process.stdout.readline() != b"ready\n":
                raise BenchmarkError(f"the load {name} did not start")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def carry_out(process: asyncio.subprocess.Process) -> Done:
    """Let a load that waits begin; what it did."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"go\n")
    line = await process.stdout.readline()
    if not line:
        raise BenchmarkError("the load has ended without a report")
    return msgspec.json.decode(line, type=Done)


async def measure(stage: Stage, case: Case, scale: float = 1.0) -> Figures:
    """Run one case to its end and check that every job has ended well."""
    seconds, count = max(0.4, case.seconds * scale), max(64, int(case.count * scale))
    if case.hold:
        await stage.pause(jobs.BACKLOG, False)
    async with load_process(stage, case.name, seconds, count) as process:
        await stage.drained()
        pids = processes(stage, await stage.members())
        if case.hold:
            await stage.pause(jobs.BACKLOG, True)
            done = await carry_out(process)
        cpu, etcd = cpu_by_role(pids), await asyncio.to_thread(etcd_counters, stage.etcd.endpoint)
        if case.hold:
            began = time.monotonic()
            await stage.pause(jobs.BACKLOG, False)
        else:
            done = await carry_out(process)
            began = done.started
        ended = await stage.drained(DRAIN_S)
        cpu = difference(cpu_by_role(pids), cpu)
        etcd = difference(await asyncio.to_thread(etcd_counters, stage.etcd.endpoint), etcd)
    await _check(stage, case, done)
    cpu["client"] = done.cpu_s
    latencies = done.latencies_ms
    return Figures(
        case.name, case.title, case.by, case.target, done.jobs,
        enqueued_s=done.enqueued_s, ended_s=done.jobs / (ended - began),
        jobs_per_bundle=done.jobs / done.bundles,
        p50_ms=percentile(latencies, 50) if latencies else None,
        p99_ms=percentile(latencies, 99) if latencies else None,
        cpu_us={role: 1e6 * cpu[role] / done.jobs for role in ROLES},
        etcd={name: value / done.jobs for name, value in etcd.items()},
        load=[round(x, 2) for x in _load()],
    )


def _load() -> list[float]:
    loads = machine()["load"]
    assert isinstance(loads, list)
    return loads


async def _check(stage: Stage, case: Case, done: Done) -> None:
    """Every job has exactly one result, and it is good."""
    if not done.jobs:
        raise BenchmarkError(f"{case.name}: nothing was enqueued")
    found = 0
    for session in done.sessions:
        async for results in results_of(stage, session):
            found += sum(entry.status == "ok" for entry in results.entries)
    if found != done.jobs + done.warm_up:
        raise BenchmarkError(f"{case.name}: {done.jobs:,} jobs, but {found - done.warm_up:,} good results")


async def results_of(stage: Stage, session: str) -> AsyncIterator[Results]:
    """Everything that the store holds of one client's results."""
    prefix = stage.keys.results_of(session)
    key, more = prefix, True
    while more:
        page = await stage.ledger.read(key, prefix_end(prefix), limit=RESULTS_PAGE)
        for record in page.records:
            yield msgspec.msgpack.decode(record.value, type=Results)
            key = record.key + b"\0"
        more = page.more
