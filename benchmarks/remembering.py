"""`python -m benchmarks.remembering`: what a durable step costs.

One job that does nothing but steps, one after the other; then many such jobs at once, whose steps share transactions.
Each step is on disk before the job goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from rota.client.api.clients import AsyncClient

from . import jobs
from .stage import Stage

STEPS = 200
AT_ONCE = 40
ROUNDS = 3


async def seconds(client: AsyncClient, task: object, count: int, steps: int) -> float:
    """The quickest of some rounds, for so many jobs of so many steps."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.monotonic()
        await (await client.enqueue_many(task, [(steps,)] * count)).aresults(120)  # type: ignore[arg-type]
        best = min(best, time.monotonic() - began)
    return best


async def measure(folder: Path) -> list[str]:
    async with Stage(folder) as stage, stage.client(await stage.urls()) as client:
        lines = []
        for name, task in (("async def", jobs.steps), ("plain", jobs.plain_steps)):
            without, alone = await seconds(client, task, 1, 0), await seconds(client, task, 1, STEPS)
            lines.append(f"{name}: one job, {1000 * (alone - without) / STEPS:.2f} ms a step")
        without = await seconds(client, jobs.steps, AT_ONCE, 0)
        many = await seconds(client, jobs.steps, AT_ONCE, STEPS // 4) - without
        lines.append(f"async def: {AT_ONCE} jobs at once, {AT_ONCE * STEPS / 4 / many:,.0f} steps a second")
        return lines


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.remembering", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="rota-bench-") as folder:
        print("\n".join(asyncio.run(measure(Path(folder)))))


if __name__ == "__main__":
    main()
