"""`python -m benchmarks.rate`: a thousand jobs a second, and no more, over three nodes.

A task with `rate="1000/second"`, and more jobs waiting than may begin. Every job notes when it began. Measured are the
rate over the whole run, the second with most starts (the rate and a burst are allowed, and what begins late), and what
it costs: an unlimited task beside it, over the same nodes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from .jobs import RATE, rated, unrated
from .percentiles import percentile
from .stage import Stage

SECONDS, QUICK_SECONDS = 20, 2


async def run(folder: Path, seconds: int, nodes: int) -> dict[str, object]:
    async with (
        Stage(folder, nodes=nodes, capacity=500, app="benchmarks.jobs") as stage,
        stage.client(await stage.urls()) as client,
    ):
        figures: dict[str, object] = {"nodes": nodes}
        for task in (unrated, rated):
            journal = folder / f"{task.name.rpartition(':')[2]}.journal"
            jobs = RATE * seconds
            began = time.monotonic()
            await client.enqueue_many(task, [(str(journal),)] * jobs)
            await stage.drained(60 + 3 * seconds, poll_s=0.1)
            took_s = time.monotonic() - began
            starts = sorted(float(line) for line in journal.read_text().split())
            figures[journal.stem] = said = judged(starts, jobs, took_s)
            print(f"{journal.stem:8} {said}")
    return figures


def judged(starts: list[float], jobs: int, took_s: float) -> dict[str, object]:
    """`starts` sorted, in seconds."""
    span_s = starts[-1] - starts[0]
    fullest, last = 0, 0
    for first, since in enumerate(starts):
        while last < len(starts) and starts[last] < since + 1:
            last += 1
        fullest = max(fullest, last - first)
    pauses_ms = [1e3 * (after - before) for before, after in pairwise(starts)]
    return {
        "jobs": jobs, "ran": len(starts), "seconds": round(took_s, 2), "per_second": round((len(starts) - 1) / span_s),
        "most_in_a_second": fullest, "longest_pause_ms": round(percentile(pauses_ms, 100)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS} seconds' worth of jobs")
    parser.add_argument("--seconds", type=int, default=None, help=f"how many seconds' worth; default: {SECONDS}")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the figures, too")
    plan = parser.parse_args()
    seconds = plan.seconds or (QUICK_SECONDS if plan.quick else SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(run(Path(folder), seconds, plan.nodes))
    if plan.json:
        plan.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
