"""What is measured of rota: the cases of `make bench`, and what has no rival in it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rota.client.calls.pickling import load_value
from rota.cluster.demo import tasks
from rota.cluster.demo.performance import files_of

from .. import backlog, jobs
from ..decisions import Table, burst
from ..floor import measure_floor
from ..load import Done
from ..measure import CASES, carry_out, load_process, measure, results_of
from ..meters import difference, etcd_counters
from ..percentiles import percentile
from ..scale import Ran, enqueued
from ..stage import Stage

OURS = ("bulk", "bulk-plain", "backlog", "in-flight", "processes", "producer", "pipeline", "idle", "idle-paced")
FLOOR_S = 4.0
LATENCIES = 150
TURNS = 5
COMPUTE = 1_200
DECIDED = 6_000
LONE, PROBE, PARTS_A_TURN = 1_000_000, 16_000, 4
MANY, PART = 5_000_000, 500_000
FILLING_S = 600.0
LET_GO_S = 3.0
"""At least: of what has begun by then, as many count as on the empty side."""

KILL_AFTER_S = 2.0

Facts = dict[str, list[float]]


class Scale:
    """How much of everything: 1, or less for a look whether it works."""

    def __init__(self, of: float, binary: Path | None) -> None:
        self.of = of
        self.binary = binary

    def number(self, whole: int, least: int = 1) -> int:
        return max(int(whole * self.of), least)

    @asynccontextmanager
    async def stage(self, **settings: Any) -> AsyncIterator[Stage]:
        with tempfile.TemporaryDirectory(prefix="rota-bench-") as folder:
            async with Stage(Path(folder), binary=self.binary, **settings) as stage:
                yield stage


async def of_cases(scale: Scale, facts: Facts) -> None:
    """One round of what rivals are compared with."""
    async with scale.stage() as stage:
        floor = await measure_floor(stage.ledger, FLOOR_S * scale.of)
        facts["puts"].append(floor.put_s)
        facts["paced-put-ms"].append(floor.paced_put_p50_ms)
        for case in CASES:
            if case.name not in OURS:
                continue
            figures = await measure(stage, case, scale.of)
            facts[case.name].append(figures.p50_ms or 0.0 if case.by == "latency" else figures.rate)
            if case.name == "bulk":
                facts["cpu-s"].append(sum(figures.cpu_us.values()) / 1000)
        for name in ("first-line", "first-line-none"):
            async with load_process(stage, name, 0, scale.number(LATENCIES, 20)) as process:
                facts[name].append(percentile((await carry_out(process)).latencies_ms, 50))


async def of_work(scale: Scale, facts: Facts) -> None:
    """The demo's files, as rota's jobs and in a `ProcessPoolExecutor`, in turns. Both are warm, and have a process for
    each core."""
    files = files_of(None)
    files = files[: scale.number(len(files), 50)]
    async with scale.stage(app=tasks.__name__) as stage, stage.client(await stage.urls()) as client:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            await asyncio.to_thread(lambda: list(pool.map(tasks.look_into, files[:20])))
            for handle in await client.enqueue_many(tasks.count, [(str(file),) for file in files[:20]]):
                await handle
            for _ in range(TURNS):
                began = time.monotonic()
                await asyncio.to_thread(lambda: list(pool.map(_looked_into, files)))
                facts["pool-s"].append(time.monotonic() - began)
                began = time.monotonic()
                handles = await client.enqueue_many(tasks.count, [(str(file),) for file in files])
                await asyncio.gather(*handles, return_exceptions=True)
                facts["work-s"].append(time.monotonic() - began)


def _looked_into(file: Path) -> object:
    try:
        return tasks.look_into(file)
    except SyntaxError as error:        # the standard library has files that are meant not to parse
        return str(error)


async def of_loops(scale: Scale, facts: Facts) -> None:
    """`async def` jobs that compute, with one process for them and with two, in turns."""
    count = scale.number(COMPUTE, 240)
    async with scale.stage(async_processes=1, sync=1) as one, scale.stage(async_processes=2, sync=1) as two:
        for _ in range(TURNS):
            for name, stage in (("one-loop", one), ("two-loops", two)):
                async with load_process(stage, "compute", 0, count) as process:
                    facts[name].append((await carry_out(process)).enqueued_s)


async def of_sizes(scale: Scale, facts: Facts) -> None:
    """What a lone job costs a master that is fed by hand, by how many nodes there are."""
    count = scale.number(DECIDED, 500)
    for _ in range(TURNS):
        for nodes in (2, 10, 50):
            facts[f"master-us-{nodes}"].append(burst(Table(nodes), count))


async def of_many(scale: Scale, facts: Facts) -> None:
    """Jobs of `enqueue_many`, 5,000,000 of them, wait; the master's process is killed: until the first claim."""
    left = scale.number(MANY, 10_000)
    async with scale.stage(nodes=2) as stage:
        await stage.pause(jobs.BACKLOG, True)
        while left > 0:
            await enqueued(stage, "waiting", FILLING_S, min(left, PART))
            left -= PART
        await _first_claim(stage, scale, facts, "first-claim-many-s")


async def of_backlog(scale: Scale, facts: Facts) -> None:
    """A million lone jobs wait: what lone jobs cost beside them, and a new master. They are not run to their end:
    `python -m benchmarks.backlog` does that."""
    number, probe = scale.number(LONE, 5_000), scale.number(PROBE, 300)
    async with scale.stage(nodes=2) as empty, scale.stage(nodes=2) as full:
        for stage in (empty, full):
            await stage.pause(jobs.BACKLOG, True)
        urls = await full.urls()
        parts = [enqueued(full, "lone", 0, number // len(urls), url) for url in urls]
        filled = {"empty": list[Done](), "full": list(await asyncio.gather(*parts))}
        spans = []
        for _ in range(TURNS):
            await _enqueued_beside(empty, full, probe, facts, filled)
            there = await backlog.run_for(empty, None)
            spans.append((there, await backlog.run_for(full, max(LET_GO_S, there.seconds))))
        await _first_claim(full, scale, facts, "first-claim-s")
        begun = [await _begun(empty, filled["empty"]), await _begun(full, filled["full"])]
    for there, here in spans:
        facts["begun-empty"].append(backlog.dispatched_s(begun[0], there, probe))
        facts["begun-full"].append(backlog.dispatched_s(begun[1], here, probe))


async def _enqueued_beside(
    empty: Stage, full: Stage, probe: int, facts: Facts, filled: dict[str, list[Done]]
) -> None:
    """So many on either side, in small parts by turns: a store that tidies up for a second (etcd's compaction, its own
    collector of garbage) counts as what it is in the long run, and so does a machine whose speed changes. How often it
    did either stands beside the rates."""
    spent, part = {"empty": 0.0, "full": 0.0}, max(probe // PARTS_A_TURN, 1)
    before = {name: etcd_counters(stage.etcd.endpoint) for name, stage in (("empty", empty), ("full", full))}
    for _ in range(PARTS_A_TURN):
        for name, stage in (("empty", empty), ("full", full)):
            done = await enqueued(stage, "lone", 0, part, await backlog.master_url(stage))
            filled[name].append(done)
            spent[name] += done.enqueued - done.started
    for name, stage in (("empty", empty), ("full", full)):
        facts[f"enqueued-{name}"].append(PARTS_A_TURN * part / spent[name])
        tidied = difference(etcd_counters(stage.etcd.endpoint), before[name])
        for what in ("collections", "compactions"):
            facts[f"etcd-{what}-{name}"].append(tidied[what])


async def _first_claim(stage: Stage, scale: Scale, facts: Facts, name: str) -> None:
    await backlog.let_go(stage)
    await asyncio.sleep(KILL_AFTER_S * min(1.0, 5 * scale.of))
    facts[name].append(await backlog.kill_master(stage))


async def _begun(stage: Stage, loads: list[Done]) -> list[Ran]:
    """What those have told that have ended by now."""
    ran = []
    for done in loads:
        for session in done.sessions:
            async for results in results_of(stage, session):
                values = [load_value(entry.codec, entry.value) for entry in results.entries]
                ran += [Ran(*value) for value in values if value is not None]
    return ran


Part = Callable[[Scale, Facts], Coroutine[Any, Any, None]]
PARTS: dict[str, tuple[str, Part]] = {
    "work": ("the demo's files, beside a ProcessPoolExecutor", of_work),
    "loops": ("async jobs that compute, in one process and in two", of_loops),
    "sizes": ("a master of 2, 10 and 50 nodes, simulated", of_sizes),
    "many": ("a new master, 5,000,000 waiting", of_many),
    "backlog": ("a backlog of 1,000,000 lone jobs", of_backlog),
}


def no_facts() -> Facts:
    return defaultdict(list)
