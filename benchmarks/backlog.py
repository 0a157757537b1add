"""`python -m benchmarks.backlog`: a million lone jobs that wait, and what they do to enqueues, dispatch and the master.

Two nodes. First, on an empty store, some lone jobs (bundles of one, so each has a token, a body and a receipt of its
own) are enqueued while their queue is paused, and then let go: two rates. Then a million are enqueued, and the same two
rates are measured with these waiting; that of dispatch by the first jobs of the million, which tell when they began.
While they run, the master's node is killed: the watch says how long its successor takes to its first claim. At the end
all of them must have ended, once and well.

The minutes between the two measurements may find the machine busier or less: the load average and the CPU time that a
job took of nodes, runners and etcd are kept beside each rate.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from rota.cluster.ledger.ledger import prefix_end

from . import jobs
from .load import Done
from .meters import cpu_by_role, difference, keys_in, processes, rss_mb
from .report import step
from .scale import Ran, Target, at_least, at_most, enqueued, main, outcomes, parser
from .stage import Stage
from .takeover import succession

JOBS, PROBE, NODES = 1_000_000, 20_000, 2
QUICK_JOBS, QUICK_PROBE = 3_000, 300
PARTS = 10
RATIO, MEMORY_MB, CLAIM_S = 0.8, 300.0, 1.0
LIMIT_S = 3_000.0
LOOK_S, LOOK_MANY_S = 0.25, 10.0


class Probe(NamedTuple):
    """Some jobs that were enqueued: jobs a second, CPU microseconds a job, and the load average after it."""

    done: Done
    cpu_us: dict[str, float]
    load: float


async def probe_enqueues(stage: Stage, number: int, url: str) -> Probe:
    pids = processes(stage, await stage.members())
    before = cpu_by_role(pids)
    done = await enqueued(stage, "lone", 0, number, url)
    cpu_s = difference(cpu_by_role(pids), before)
    return Probe(done, {role: 1e6 * used / number for role, used in cpu_s.items()}, os.getloadavg()[0])


def dispatched_s(ran: list[Ran], let_go: float, number: int) -> float:
    """Jobs begun a second, by the first so many that began."""
    return number / (sorted(job.started for job in ran)[number - 1] - let_go)


async def let_go(stage: Stage) -> float:
    began = time.monotonic()
    await stage.pause(jobs.BACKLOG, False)
    return began


async def kill_master(stage: Stage) -> float:
    """Kill the process of the master's node; from its end as a member to the first claim after it, in seconds."""
    victim = await stage.master()
    revision = (await stage.ledger.read(stage.keys.node(victim))).revision
    watching = asyncio.create_task(succession(stage, victim, revision + 1), name="succession")
    os.kill(stage.node_pid(victim), signal.SIGKILL)
    gone_at, claimed_at = await watching
    await stage.replace(victim)
    return claimed_at - gone_at


async def drain(stage: Stage, console: Console, timeout_s: float) -> float:
    """Until nothing is left, with a look now and then: each costs etcd a walk over all that waits."""
    where = (stage.etcd.endpoint, stage.keys.jobs, prefix_end(stage.keys.jobs))
    async with asyncio.timeout(timeout_s):
        with console.status("they run") as status:
            while (left := await asyncio.to_thread(keys_in, *where)) > PROBE:
                status.update(f"they run: {left:,} wait")
                await asyncio.sleep(LOOK_MANY_S)
            return await stage.drained(timeout_s, poll_s=LOOK_S)


async def fill(stage: Stage, console: Console, number: int, url: str) -> list[Done]:
    done = []
    for part in range(PARTS):
        with step(console, f"{number * (part + 1) // PARTS:,} of {number:,} jobs wait"):
            count = number * (part + 1) // PARTS - number * part // PARTS
            done.append(await enqueued(stage, "lone", 0, count, url))
    return done


async def run(plan: argparse.Namespace, folder: Path, console: Console, figures: dict[str, Any]) -> list[Target]:
    number, probe = (QUICK_JOBS, QUICK_PROBE) if plan.quick else (plan.jobs, min(PROBE, plan.jobs))
    async with Stage(folder, nodes=NODES, binary=plan.etcd) as stage:
        master = await stage.master()
        pid, url = stage.node_pid(master), (await stage.members())[master].address
        await stage.pause(jobs.BACKLOG, True)
        with step(console, f"empty store: {probe:,} jobs are enqueued, and run"):
            empty = await probe_enqueues(stage, probe, url)
            before_go = await let_go(stage)
            await stage.drained(LIMIT_S, poll_s=LOOK_S)
            loads = [os.getloadavg()[0]]
        await stage.pause(jobs.BACKLOG, True)
        memory_before = rss_mb(pid)
        filled = await fill(stage, console, number, url)
        with step(console, f"{probe:,} more are enqueued"):
            full = await probe_enqueues(stage, probe, url)
        empty_s = dispatched_s(await outcomes(stage, empty.done), before_go, probe)
        with step(console, "they run, until the master is killed"):
            after_go = await let_go(stage)
            await asyncio.sleep(2 * probe / empty_s)
            memory_grown = rss_mb(pid, peak=True) - memory_before
            loads.append(os.getloadavg()[0])
            claim_s = await kill_master(stage)
        with step(console, "the rest runs"):
            drained = await drain(stage, console, LIMIT_S)
        with step(console, "results are counted"):
            ran = [job for done in (*filled, full.done) for job in await outcomes(stage, done)]
    full_s = dispatched_s(ran, after_go, probe)
    figures |= {
        "jobs": number, "probe": probe, "enqueued_empty_s": empty.done.enqueued_s,
        "enqueued_full_s": full.done.enqueued_s, "enqueue_cpu_us": [empty.cpu_us, full.cpu_us],
        "enqueue_load": [empty.load, full.load], "dispatch_load": loads,
        "enqueued_parts_s": [done.enqueued_s for done in filled], "dispatched_empty_s": empty_s,
        "dispatched_full_s": full_s, "drained_s": len(ran) / (drained - after_go), "first_claim_s": claim_s,
        "master_rss_before_mb": memory_before, "master_rss_growth_mb": memory_grown,
    }
    return [
        at_least("enqueue rate, of that on an empty store", full.done.enqueued_s / empty.done.enqueued_s, RATIO, ""),
        at_least("dispatch rate, of that on an empty store", full_s / empty_s, RATIO, ""),
        at_most("growth of the master's memory, peak", memory_grown, MEMORY_MB, "MB"),
        at_most("from the old master's end to its successor's first claim", claim_s, CLAIM_S, "s"),
    ]


def arguments() -> argparse.Namespace:
    made = parser("backlog", __doc__)
    made.add_argument("--jobs", type=int, default=JOBS)
    return made.parse_args()


if __name__ == "__main__":
    main("backlog", run, arguments(), LIMIT_S)
