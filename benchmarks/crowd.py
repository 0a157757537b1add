"""`python -m benchmarks.crowd`: 100,000 `async def` jobs that sleep, all running at the same time on one node.

They are enqueued while their queue is paused; from letting it go, all have to begin before the first ends. Each job
tells when it began and ended, so that how many ran at once is counted from the jobs themselves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from . import jobs
from .meters import processes, rss_mb
from .report import step
from .scale import Ran, Target, at_least, at_most, check_starts, enqueued, main, outcomes, parser
from .stage import Stage

JOBS, SLEEP_S = 100_000, 10.0
QUICK_JOBS, QUICK_SLEEP_S = 1_000, 2.0
DRAIN_S = 20.0
MEMORY_MB = 1_500.0
LIMIT_S = 300.0


def most_at_once(ran: Iterable[Ran]) -> int:
    changes = sorted([(job.started, 1) for job in ran] + [(job.ended, -1) for job in ran])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


async def run(plan: argparse.Namespace, folder: Path, console: Console, figures: dict[str, Any]) -> list[Target]:
    sleep_s = QUICK_SLEEP_S if plan.quick else plan.sleep
    number = QUICK_JOBS if plan.quick else plan.jobs
    async with Stage(folder, capacity=number, binary=plan.etcd) as stage:
        await stage.pause(jobs.BACKLOG, True)
        pids = processes(stage, await stage.members())
        before = {role: [rss_mb(pid) for pid in pids[role]] for role in ("node", "runner")}
        with step(console, f"{number:,} jobs are enqueued, their queue is paused"):
            done = await enqueued(stage, "crowd", sleep_s, number)
        with step(console, f"they start, sleep {sleep_s:g} s, and end"):
            let_go = time.monotonic()
            await stage.pause(jobs.BACKLOG, False)
            drained = await stage.drained(LIMIT_S)
        after = {role: [rss_mb(pid, peak=True) for pid in pids[role]] for role in ("node", "runner")}
        with step(console, "results are counted"):
            ran = await outcomes(stage, done)
            check_starts(ran)
    first_end, last_start = min(job.ended for job in ran), max(job.started for job in ran)
    figures |= {
        "jobs": number, "sleep_s": sleep_s, "enqueued_s": done.enqueued_s,
        "first_start_s": min(job.started for job in ran) - let_go, "last_start_s": last_start - let_go,
        "first_end_s": first_end - let_go, "last_end_s": max(job.ended for job in ran) - let_go,
        "drained_s": drained - let_go, "rss_before_mb": before, "rss_peak_mb": after,
        "oversleep_s": max(job.ended - job.started for job in ran) - sleep_s,
    }
    node, runners = sum(after["node"]), sum(after["runner"])
    return [
        at_least("jobs running at the same time", most_at_once(ran), number, "jobs"),
        at_most("from letting them go to the last start", last_start - let_go, sleep_s, "s"),
        at_most("from the first end to all outcomes committed", drained - first_end, DRAIN_S, "s"),
        at_most("memory of the node's process, peak", node, MEMORY_MB, "MB"),
        at_most("memory of its runners, peak", runners, MEMORY_MB, "MB"),
        at_most("memory of both", node + runners, MEMORY_MB, "MB"),
    ]


def arguments() -> argparse.Namespace:
    made = parser("crowd", __doc__)
    made.add_argument("--jobs", type=int, default=JOBS)
    made.add_argument("--sleep", type=float, default=SLEEP_S, metavar="SECONDS")
    return made.parse_args()


if __name__ == "__main__":
    main("crowd", run, arguments(), LIMIT_S)
