"""`python -m benchmarks.listing`: parts of the list of jobs while a million wait.

The tokens of a million lone jobs are written straight into the store, in a queue that is paused (the list reads nothing
else of them). Then a client asks a node for parts: the first, those behind cursors all over the list, with filters that
fit much and little. The first part that a node is asked for is told apart: it finds out where the queue begins, for
which etcd walks over all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from rota.client.api.clients import AsyncClient
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.state.records import QueueRecord, Token, encode

from .percentiles import percentile
from .stage import Stage

JOBS, QUICK_JOBS = 1_000_000, 20_000
PER_ORDER, PER_TXN, IN_FLIGHT = 5, 100, 16
QUEUE, TASK = "backlog", "benchmarks.jobs:nothing"
TIMES = 20


async def fill(stage: Stage, count: int) -> None:
    keys = stage.keys
    await stage.ledger.commit(Txn((), (Put(keys.queue(QUEUE), encode(QueueRecord(paused=True))),)))
    free = asyncio.Semaphore(IN_FLIGHT)

    def put(number: int) -> Put:
        order = 1_000 + number // PER_ORDER
        token = Token(TASK, QUEUE, 0, order, 1, "sync", 1_700_000_000_000 + number, key=f"k{number % 1_000}")
        return Put(keys.job(QUEUE, 0, order, f"k3f9q2m7xa5t-{number:08x}"), encode(token))

    async def some(first: int) -> None:
        async with free:
            numbers = range(first, min(first + PER_TXN, count))
            await stage.ledger.commit(Txn((), tuple(put(number) for number in numbers)))

    await asyncio.gather(*(some(first) for first in range(0, count, PER_TXN)))


async def timed(client: AsyncClient, times: int = TIMES, **which: Any) -> tuple[list[float], int]:
    """Milliseconds of each part, from the last one on, and how many jobs came."""
    took, jobs, after = [], 0, which.pop("after", "")
    for _ in range(times):
        began = time.monotonic()
        page = await client.jobs("waiting", after=after, **which)
        took.append(1e3 * (time.monotonic() - began))
        jobs, after = jobs + len(page), page.next
    return took, jobs


async def measure(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with Stage(Path(folder)) as stage:
            began = time.monotonic()
            await fill(stage, count)
            print(f"{count:,} waiting, written in {time.monotonic() - began:.0f} s; milliseconds a part of 100 jobs")
            url = (await stage.urls())[0]
            async with stage.client([url]) as client:
                (first,), _ = await timed(client, 1)
                print(f"{'the first part that the node is asked for':44}{first:8.1f}")
                middle = f"jobs:{QUEUE}/100/{1_000 + count // PER_ORDER // 2:016d}/"
                for name, which in (
                    ("from the beginning", {}), ("of the queue", {"queue": QUEUE}),
                    ("from the middle", {"after": middle}), ("of a key (one in 1,000)", {"key": "k7"}),
                    ("of a task that has none", {"task": "app:other"}),
                ):
                    took, jobs = await timed(client, **which)
                    print(f"{name:44}{percentile(took, 50):8.1f}  p95 {percentile(took, 95):.1f}, {jobs:,} jobs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_JOBS:,} jobs")
    parser.add_argument("--jobs", type=int, default=None, help=f"how many wait; default: {JOBS:,}")
    plan = parser.parse_args()
    asyncio.run(measure(plan.jobs or (QUICK_JOBS if plan.quick else JOBS)))
