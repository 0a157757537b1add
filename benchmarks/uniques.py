"""`python -m benchmarks.uniques`: a hundred thousand unique keys at once.

Jobs of as many customers are enqueued into a paused queue, one by one and 64 at a time, with a `unique_key` each; then
all of them again, which must make no job and give the handle of the one that is there; then a part without a key,
for comparison. Then the queue runs, and no key may be left. Told are jobs a second, the bytes of the store, and the
memory of the node that is master.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from rota.client.api.clients import AsyncClient

from .jobs import QUEUE, noop
from .meters import rss_mb
from .stage import Stage

KEYS, QUICK_KEYS = 100_000, 2_000
IN_FLIGHT = 64
PLAIN_SHARE = 5


async def enqueue(client: AsyncClient, count: int, *, keyed: bool) -> tuple[float, int]:
    """Jobs a second, and how many were there already."""
    numbers, existing = iter(range(count)), 0

    async def some() -> None:
        nonlocal existing
        for number in numbers:
            asked: Any = noop.using(unique_key=f"customer-{number}") if keyed else noop
            handle = await client.enqueue(asked, {"number": number})
            existing += handle.existing

    began = time.monotonic()
    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
    return count / (time.monotonic() - began), existing


async def run(folder: Path, keys: int) -> dict[str, Any]:
    async with Stage(folder, nodes=2, capacity=1_000) as stage, stage.client(await stage.urls()) as client:
        pid = stage.node_pid(await stage.master())
        await stage.pause(QUEUE, True)
        before = rss_mb(pid)
        plain, _ = await enqueue(client, keys // PLAIN_SHARE, keyed=False)
        first, none = await enqueue(client, keys, keyed=True)
        grown = rss_mb(pid) - before
        again, existing = await enqueue(client, keys, keyed=True)
        began = time.monotonic()
        await stage.pause(QUEUE, False)
        await stage.drained(120 + keys / 100, poll_s=0.5)
        drained_s = time.monotonic() - began
        left = len(await stage.read(stage.keys.uniques))
        waiting = keys + keys // PLAIN_SHARE
    figures = {
        "keys": keys, "plain_per_s": round(plain), "keyed_per_s": round(first), "repeats_per_s": round(again),
        "existing_at_first": none, "existing_again": existing, "drained_per_s": round(waiting / drained_s),
        "keys_left": left, "master_grew_mb": round(grown, 1),
    }
    for name, value in figures.items():
        print(f"{name:20} {value:,}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uniques", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_KEYS:,} keys")
    parser.add_argument("--keys", type=int, default=None, help=f"default: {KEYS:,}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the figures, too")
    plan = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(run(Path(folder), plan.keys or (QUICK_KEYS if plan.quick else KEYS)))
    if plan.json:
        plan.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
