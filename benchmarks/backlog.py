"""`python -m benchmarks.backlog`: a million lone jobs that wait, and what they do to enqueues, dispatch and the master.

Two clusters of two nodes, each with an etcd of its own; in one of them a million lone jobs (bundles of one, so each has
a token, a body and a receipt) are enqueued while their queue is paused. Then, in turn, some lone jobs are enqueued in
the empty one and in the full one, and the queue is let go for a while: two rates each, compared pair by pair, because
the machine may be busier at one time than at another. Jobs tell when they began. While the million runs, the master's
node is killed: the watch says how long its successor takes to its first claim. At the end all must have ended, once and
well.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console

from rota.cluster.ledger.ledger import prefix_end

from . import jobs
from .load import Done
from .meters import cpu_by_role, difference, keys_in, processes, rss_mb
from .report import step
from .scale import Ran, Target, at_least, at_most, enqueued, main, outcomes, parser
from .stage import BenchmarkError, Stage
from .takeover import succession

JOBS, PROBE, NODES = 1_000_000, 20_000, 2
QUICK_JOBS, QUICK_PROBE = 10_000, 300
PART, TURNS = 100_000, 3
LEFT_MIN = 1_000
KILL_AFTER_S, QUICK_KILL_AFTER_S = 3.0, 0.5
RATIO, MEMORY_MB, CLAIM_S = 0.8, 300.0, 1.0
LIMIT_S = 3_000.0
LOOK_S, LOOK_MANY_S = 0.25, 10.0


class Span(NamedTuple):
    """From when to when the queue was let go (monotonic)."""

    began: float
    paused: float

    @property
    def seconds(self) -> float:
        return self.paused - self.began


class Turn(NamedTuple):
    """Jobs that were enqueued, and the queue let go for a while. CPU time: microseconds a job, of the enqueue."""

    done: Done
    span: Span
    cpu_us: dict[str, float]
    load: float


async def turn(stage: Stage, number: int, seconds: float | None) -> Turn:
    """`seconds`: how long the queue is let go; None: until it is empty."""
    pids = processes(stage, await stage.members())
    before = cpu_by_role(pids)
    done = await enqueued(stage, "lone", 0, number, await master_url(stage))
    cpu_s = difference(cpu_by_role(pids), before)
    span = await run_for(stage, seconds)
    return Turn(done, span, {role: 1e6 * used / number for role, used in cpu_s.items()}, os.getloadavg()[0])


async def run_for(stage: Stage, seconds: float | None) -> Span:
    """Let the queue go; `seconds` as for `turn`."""
    began = await let_go(stage)
    if seconds is None:
        await stage.drained(LIMIT_S, poll_s=LOOK_S)
    else:
        await asyncio.sleep(seconds)
    paused = time.monotonic()
    await stage.pause(jobs.BACKLOG, True)
    return Span(began, paused)


async def master_url(stage: Stage) -> str:
    return (await stage.members())[await stage.master()].address


def dispatched_s(ran: list[Ran], span: Span, number: int) -> float:
    """Jobs begun a second, by the first so many that began while the queue was let go."""
    begun = sorted(job.started for job in ran if span.began <= job.started < span.paused)[:number]
    if not begun:
        raise BenchmarkError(f"no job began in the {span.seconds:.1f} s for which its queue was let go")
    return len(begun) / (begun[-1] - span.began)


def in_pairs(empty: list[float], full: list[float]) -> float:
    return median(of_full / of_empty for of_empty, of_full in zip(empty, full, strict=True))


async def let_go(stage: Stage) -> float:
    began = time.monotonic()
    await stage.pause(jobs.BACKLOG, False)
    return began


async def kill_master(stage: Stage) -> float:
    """Kill the process of the master's node; from its end as a member to the first claim after it, in seconds."""
    victim = await stage.master()
    if await waiting(stage) < LEFT_MIN:
        raise BenchmarkError("the backlog has run out before the master was killed")
    revision = (await stage.ledger.read(stage.keys.node(victim))).revision
    watching = asyncio.create_task(succession(stage, victim, revision + 1), name="succession")
    os.kill(stage.node_pid(victim), signal.SIGKILL)
    gone_at, claimed_at = await watching
    await stage.replace(victim)
    return claimed_at - gone_at


async def waiting(stage: Stage) -> int:
    return await asyncio.to_thread(keys_in, stage.etcd.endpoint, stage.keys.jobs, prefix_end(stage.keys.jobs))


async def drain(stage: Stage, console: Console, timeout_s: float) -> float:
    """Until nothing is left, with a look now and then: each costs etcd a walk over all that waits."""
    async with asyncio.timeout(timeout_s):
        with console.status("they run") as status:
            while (left := await waiting(stage)) > PROBE:
                status.update(f"they run: {left:,} wait")
                await asyncio.sleep(LOOK_MANY_S)
            return await stage.drained(timeout_s, poll_s=LOOK_S)


async def fill(stage: Stage, console: Console, number: int) -> list[Done]:
    done, url = [], await master_url(stage)
    for start in range(0, number, PART):
        end = min(start + PART, number)
        with step(console, f"{end:,} of {number:,} jobs wait"):
            done.append(await enqueued(stage, "lone", 0, end - start, url))
    return done


async def run(plan: argparse.Namespace, folder: Path, console: Console, figures: dict[str, Any]) -> list[Target]:
    number, probe = (QUICK_JOBS, QUICK_PROBE) if plan.quick else (plan.jobs, min(PROBE, plan.jobs))
    async with _stage(folder / "empty", plan) as empty, _stage(folder / "full", plan) as full:
        pid = full.node_pid(await full.master())
        memory_before = rss_mb(pid)
        filled = await fill(full, console, number)
        turns: list[tuple[Turn, Turn]] = []
        for count in range(TURNS):
            with step(console, f"{probe:,} jobs on an empty store, {probe:,} with the backlog: {count + 1} of {TURNS}"):
                there = await turn(empty, probe, None)
                turns.append((there, await turn(full, probe, there.span.seconds)))
        memory_grown = rss_mb(pid, peak=True) - memory_before
        with step(console, "they run, and the master is killed"):
            began = await let_go(full)
            await asyncio.sleep(QUICK_KILL_AFTER_S if plan.quick else KILL_AFTER_S)
            claim_s = await kill_master(full)
        with step(console, "the rest runs"):
            drained = await drain(full, console, LIMIT_S)
        with step(console, "results are counted"):
            alone = [job for there, _ in turns for job in await outcomes(empty, there.done)]
            ran = [job for done in (*filled, *(here.done for _, here in turns)) for job in await outcomes(full, done)]
    sides = [_figures(turns_of, of, probe) for turns_of, of in zip(zip(*turns, strict=True), (alone, ran), strict=True)]
    left = sum(job.started >= began for job in ran)
    figures |= {
        "jobs": number, "probe": probe, "empty": sides[0], "full": sides[1], "first_claim_s": claim_s,
        "enqueued_parts_s": [done.enqueued_s for done in filled], "drained_s": left / (drained - began),
        "master_rss_before_mb": memory_before, "master_rss_growth_mb": memory_grown,
    }
    enqueue, dispatch = (in_pairs(*(side[name] for side in sides)) for name in ("enqueued_s", "dispatched_s"))
    return [
        at_least("enqueue rate, of that on an empty store", enqueue, RATIO, ""),
        at_least("dispatch rate, of that on an empty store", dispatch, RATIO, ""),
        at_most("growth of the master's memory, peak", memory_grown, MEMORY_MB, "MB"),
        at_most("from the old master's end to its successor's first claim", claim_s, CLAIM_S, "s"),
    ]


@asynccontextmanager
async def _stage(folder: Path, plan: argparse.Namespace) -> AsyncIterator[Stage]:
    await asyncio.to_thread(folder.mkdir)
    async with Stage(folder, nodes=NODES, binary=plan.etcd) as stage:
        await stage.pause(jobs.BACKLOG, True)
        yield stage


def _figures(turns: tuple[Turn, ...], ran: list[Ran], probe: int) -> dict[str, list[Any]]:
    return {
        "enqueued_s": [turn.done.enqueued_s for turn in turns],
        "dispatched_s": [dispatched_s(ran, turn.span, probe) for turn in turns],
        "enqueue_cpu_us": [turn.cpu_us for turn in turns], "load": [turn.load for turn in turns],
    }


def arguments() -> argparse.Namespace:
    made = parser("backlog", __doc__)
    made.add_argument("--jobs", type=int, default=JOBS)
    return made.parse_args()


if __name__ == "__main__":
    main("backlog", run, arguments(), LIMIT_S)
