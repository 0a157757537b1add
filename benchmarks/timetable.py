"""`python -m benchmarks.timetable`: a thousand schedules that are due at the same second.

They are put with one cron expression, so that all are due at every minute, while
nothing else runs. Measured is, tick by tick, from the second that was named to when a job began on its node, of the
first, the median and the last of them; and that each tick made one job, and one only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from .jobs import tick
from .percentiles import percentile
from .stage import Stage, until

SCHEDULES, QUICK_SCHEDULES = 1_000, 50
TICKS = 3
IN_FLIGHT = 32


async def measure(schedules: int, ticks: int, nodes: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        async with (
            Stage(Path(folder), nodes=nodes, capacity=1_000) as stage,
            stage.client(await stage.urls()) as client,
        ):
            free = asyncio.Semaphore(IN_FLIGHT)

            async def put(number: int) -> None:
                async with free:
                    await client.schedules.put(f"s{number}", tick, (str(journal), number), cron="* * * * *")

            second = time.time() % 60
            await asyncio.sleep(60 - second if second > 20 else 0)      # all are there before the next minute begins
            began = time.monotonic()
            await asyncio.gather(*(put(number) for number in range(schedules)))
            print(f"{schedules:,} schedules put in {time.monotonic() - began:.1f} s; cron, every minute, {nodes} nodes")

            async def all_there() -> bool:
                return journal.exists() and len(journal.read_bytes().splitlines()) >= ticks * schedules

            await until(all_there, f"{ticks} ticks of {schedules} schedules", 60 * ticks + 120, 0.5)
            await stage.drained()
        return judged(journal.read_text(), schedules, ticks)


def judged(journal: str, schedules: int, ticks: int) -> dict[str, object]:
    """What the journal's lines (`schedule began-at`) say of its first ticks."""
    lines = [line.split() for line in journal.splitlines()]
    minutes: dict[int, list[tuple[int, float]]] = {}
    for schedule, at in lines:
        minutes.setdefault(int(float(at) // 60), []).append((int(schedule), float(at) % 60))
    rows = []
    for minute in sorted(minutes)[:ticks]:
        late = [1e3 * after for _, after in minutes[minute]]
        once = sorted(schedule for schedule, _ in minutes[minute]) == list(range(schedules))
        rows.append({
            "jobs": len(late), "each_once": once, "first_ms": min(late), "p50_ms": percentile(late, 50),
            "last_ms": max(late),
        })
        print(
            f"{len(late):,} jobs, {'each once' if once else 'NOT EACH ONCE'}; began after the second: first "
            f"{min(late):.0f} ms, p50 {percentile(late, 50):.0f} ms, last {max(late):.0f} ms"
        )
    return {"schedules": schedules, "ticks": rows}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timetable", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SCHEDULES} schedules, one tick (a minute)")
    parser.add_argument("--schedules", type=int, default=None, help=f"default: {SCHEDULES:,}")
    parser.add_argument("--ticks", type=int, default=None, help=f"default: {TICKS}, a minute each")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the figures, too")
    plan = parser.parse_args()
    schedules = plan.schedules or (QUICK_SCHEDULES if plan.quick else SCHEDULES)
    figures = asyncio.run(measure(schedules, plan.ticks or (1 if plan.quick else TICKS), plan.nodes))
    if plan.json:
        plan.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
