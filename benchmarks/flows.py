"""`python -m benchmarks.flows`: flows of many jobs, and what is left of them in etcd.

    fan-in      10,000 jobs, and one that gathers their results
    chain       1,000 jobs, each of which takes the result of the one before
    diamond     one job, 100 that take its result, 100 each of which gathers those 100, and one that gathers these
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from rota.client.api.clients import AsyncClient
from rota.cluster.ledger.ledger import Delete, Get, Txn, prefix_end

from . import jobs
from .report import wide_console
from .stage import Stage, until

DEADLINE_S = 280.0


class Measured(msgspec.Struct):
    """Times in seconds. `keys` and `bytes`: of the whole cluster in etcd, without its history."""

    name: str
    jobs: int
    transactions: int
    storing_s: float
    running_s: float
    keys_before: int
    keys_during: int
    keys_after: int
    bytes_before: int
    bytes_during: int
    bytes_after: int


async def fan_in(client: AsyncClient, size: int) -> None:
    parts = await client.enqueue_many(jobs.value, [(number,) for number in range(size)])
    await client.enqueue(jobs.gather, parts)  # type: ignore[arg-type]


async def chain(client: AsyncClient, size: int) -> None:
    job: Any = 1
    for _ in range(size):
        job = await client.enqueue(jobs.value, job)


async def diamond(client: AsyncClient, size: int) -> None:
    top: Any = await client.enqueue(jobs.value, 1)
    wide: Any = [await client.enqueue(jobs.value, top) for _ in range(size)]
    below: Any = [await client.enqueue(jobs.gather, wide) for _ in range(size)]
    await client.enqueue(jobs.gather, below)


CASES: dict[str, tuple[Callable[[AsyncClient, int], Any], int]] = {
    "fan-in": (fan_in, 10_000), "chain": (chain, 1_000), "diamond": (diamond, 100),
}


async def held(stage: Stage) -> tuple[int, int]:
    """Keys and bytes (keys and values) of the cluster that are of jobs and of flows: not nodes, tasks, or what is told
    to people, and not results and receipts, which have their leases."""
    keys = stage.keys
    areas = (
        keys.jobs, keys.scheduled, keys.awaiting, keys.claims, keys.failed, keys.flows, keys.flow_sections,
        keys.flows_open, keys.flows_ended, keys.bodies, keys.inputs, keys.graphs,
    )
    answers = (await stage.ledger.commit(Txn((), tuple(Get(area, prefix_end(area)) for area in areas)))).answers
    records = [record for answer in answers for record in answer]
    return len(records), sum(len(record.key) + len(record.value) for record in records)


async def measure(stage: Stage, client: AsyncClient, name: str, scale: float) -> Measured:
    make, size = CASES[name]
    size = max(2, int(size * scale))
    before = await held(stage)
    began = time.monotonic()
    revision = (await stage.ledger.read(b"x")).revision
    async with client.flow(name) as flow:
        await make(client, size)
    stored = time.monotonic()
    transactions = (await stage.ledger.read(b"x")).revision - revision
    during = await held(stage)
    view = await flow.await_(DEADLINE_S)
    ended = time.monotonic()
    assert view.state == "done", view
    await flow.aresult()
    await stage.ledger.commit(Txn((), (Delete(stage.keys.flow_ended(flow.id)),)))        # its time is over
    after = before

    async def swept() -> bool:
        nonlocal after
        after = await held(stage)
        return after <= before

    await until(swept, "nothing is left of it", DEADLINE_S, 0.5)
    return Measured(
        name, view.jobs, transactions, round(stored - began, 2), round(ended - stored, 2), before[0], during[0],
        after[0], before[1], during[1], after[1],
    )


async def run(names: list[str], scale: float) -> None:
    console = wide_console()
    with tempfile.TemporaryDirectory(prefix="rota-flows-") as folder:
        async with Stage(Path(folder)) as stage, stage.client(await stage.urls()) as client:
            await (await client.enqueue(jobs.value, 1))
            for name in names:
                found = await measure(stage, client, name, scale)
                console.print(
                    f"{found.name}: {found.jobs:,} jobs, stored in {found.storing_s:.2f} s (at most "
                    f"{found.transactions} transactions), over after {found.running_s:.2f} s more; in etcd "
                    f"{found.keys_before:,} keys and {found.bytes_before:,} bytes before, {found.keys_during:,} and "
                    f"{found.bytes_during:,} when it was stored, {found.keys_after:,} and {found.bytes_after:,} after"
                )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flows", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--scale", type=float, default=1.0, help="a part of it: 0.1")
    plan = parser.parse_args()
    asyncio.run(run(plan.names, plan.scale))


if __name__ == "__main__":
    main()
