"""`python -m benchmarks.scheduled`: a million scheduled jobs, and what they do to those that come due meanwhile.

A million jobs are enqueued in bulk (`enqueue_many`, one call for each of 720 due times from two to fourteen hours
ahead, so in bundles of 60). They stay; the store is checked to hold every one of them. Beside them lone jobs come due,
each at a time of its own: ten a second (an idle cluster), 1,000 a second, 100,000 within one second; then 100,000 at
one moment that were enqueued in bulk. How late a job is, it says itself: the wall clock at its start, less the time its
caller named.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console

from rota.cluster.ledger.ledger import prefix_end
from rota.cluster.state.records import Token

from .meters import lease_left_s, rss_mb
from .percentiles import percentile
from .report import step
from .scale import (
    Incumbents,
    Ran,
    Target,
    at_least,
    at_most,
    check_starts,
    enqueued,
    main,
    only_member,
    outcomes,
    parser,
)
from .stage import BenchmarkError, Stage

SPREAD = 1_000_000
TTL_S = 10
LEASE_LOOK_S = 0.2
KEYS_A_SECOND = 100_000
"""Keys that a look at what is left walks over in etcd, a second: with more jobs, fewer looks."""
POLL_S = 0.1
LIMIT_S = 1_200.0
PAGE = 5_000


class Wave(NamedTuple):
    """Jobs that come due, over so many seconds."""

    name: str
    load: str
    seconds: float
    count: int


IDLE = Wave("idle: 10 a second", "due", 10.0, 100)
STEADY = Wave("1,000 a second", "due", 30.0, 30_000)
BURST = Wave("100,000 lone jobs in one second", "due", 1.0, 100_000)
BULK = Wave("100,000 in bundles at one moment", "due-bulk", 0.0, 100_000)
QUICK = (Wave("idle", "due", 1.0, 10), Wave("steady", "due", 1.0, 200), Wave("burst", "due", 0.1, 500),
         Wave("bulk", "due-bulk", 0.0, 500))


class Came(NamedTuple):
    """What became of a wave. Seconds since its first job was due."""

    ran: list[Ran]
    enqueued_s: float
    drained_s: float


async def come_due(stage: Stage, wave: Wave, timeout_s: float) -> Came:
    done = await enqueued(stage, wave.load, wave.seconds, wave.count)
    if done.enqueued > done.first_due:
        raise BenchmarkError(f"{wave.name}: the first was due before the last was enqueued; this machine is slow")
    await asyncio.sleep(done.first_due - time.monotonic())
    due_ms = int((time.time() + wave.seconds) * 1000) + 1_000
    drained = await stage.drained(timeout_s, due_ms=due_ms, poll_s=max(POLL_S, wave.count / KEYS_A_SECOND))
    return Came(await outcomes(stage, done), done.enqueued_s, drained - done.first_due)


@asynccontextmanager
async def lowest_lease(stage: Stage, leases: list[int]) -> AsyncIterator[list[int]]:
    """How little was left of any of these leases, whenever it was looked."""
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(min([await asyncio.to_thread(lease_left_s, stage.etcd.endpoint, lease) for lease in leases]))
            await asyncio.sleep(LEASE_LOOK_S)

    looking = asyncio.create_task(look(), name="leases")
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        if not looking.cancelled():
            looking.result()        # raises what went wrong


async def stored(stage: Stage) -> int:
    """Jobs that wait for their time."""
    key, more, jobs = stage.keys.scheduled, True, 0
    while more:
        page = await stage.ledger.read(key, prefix_end(stage.keys.scheduled), limit=PAGE)
        jobs += sum(msgspec.json.decode(record.value, type=Token).pending for record in page.records)
        more = page.more
        key = page.records[-1].key + b"\0" if page.records else key
    return jobs


async def run(plan: argparse.Namespace, folder: Path, console: Console, figures: dict[str, Any]) -> list[Target]:
    number = 2_000 if plan.quick else plan.jobs
    idle, steady, burst, bulk = QUICK if plan.quick else (IDLE, STEADY, BURST, BULK)
    async with Stage(folder, ttl_s=TTL_S, binary=plan.etcd) as stage:
        node, _ = await only_member(stage)
        pid, incumbents = stage.node_pid(node), await Incumbents.of(stage)
        memory_before = rss_mb(pid)
        with step(console, f"{number:,} jobs are scheduled, hours ahead"):
            enqueued_s = (await enqueued(stage, "spread", 0, number)).enqueued_s
        memory_grown = rss_mb(pid, peak=True) - memory_before
        came: dict[str, Came] = {}
        async with lowest_lease(stage, incumbents.leases) as left_s:
            for wave in (idle, steady, burst, bulk):
                with step(console, f"due: {wave.name}"):
                    came[wave.name] = await come_due(stage, wave, LIMIT_S)
        changes = await incumbents.changes(stage)
        check_starts([job for each in came.values() for job in each.ran])
        if (waiting := await stored(stage)) != number:
            raise BenchmarkError(f"{number:,} jobs were scheduled for later, and {waiting:,} wait")
    figures |= {
        "scheduled": number, "enqueued_s": enqueued_s, "node_rss_before_mb": memory_before,
        "node_rss_peak_growth_mb": memory_grown,
        "waves": {name: _figures(each) for name, each in came.items()},
    }
    return _targets(enqueued_s, memory_grown, came[idle.name], came[steady.name], min(left_s), changes)


def _figures(came: Came) -> dict[str, float]:
    late_ms = _late_ms(came)
    return {
        "jobs": len(came.ran), "enqueued_s": came.enqueued_s, "drained_s": came.drained_s,
        "late_min_ms": min(late_ms), "late_max_ms": max(late_ms),
        **{f"late_p{percent}_ms": percentile(late_ms, percent) for percent in (50, 90, 99)},
    }


def _late_ms(came: Came) -> list[float]:
    return [1000 * job.late_s for job in came.ran]


def _targets(
    enqueued_s: float, memory_grown: float, idle: Came, steady: Came, lease_left: int, changes: int
) -> list[Target]:
    return [
        at_least("enqueued a second, in bulk", enqueued_s, 20_000, "jobs/s"),
        at_most("growth of the master's memory by them, peak", memory_grown, 50, "MB"),
        at_most("due error, idle cluster, p50", percentile(_late_ms(idle), 50), 100, "ms"),
        at_most("due error, idle cluster, p99", percentile(_late_ms(idle), 99), 100, "ms"),
        at_most("due error at 1,000 lone jobs a second, p50", percentile(_late_ms(steady), 50), 250, "ms"),
        at_most("due error at 1,000 lone jobs a second, p99", percentile(_late_ms(steady), 99), 250, "ms"),
        at_least("least ever left of a lease of 10 s", lease_left, TTL_S / 3, "s"),
        at_most("members or masters that changed", changes, 0, ""),
    ]


def arguments() -> argparse.Namespace:
    made = parser("scheduled", __doc__)
    made.add_argument("--jobs", type=int, default=SPREAD, help="that are scheduled for later")
    return made.parse_args()


if __name__ == "__main__":
    main("scheduled", run, arguments(), LIMIT_S)
