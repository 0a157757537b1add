"""`python -m benchmarks.peers`: rota and nine other queues, one after the other, in several rounds."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from ..measure import CASES, measure
from ..measure import Figures as Ours
from ..meters import machine
from ..report import RESULTS, step, wide_console
from ..stage import Stage
from .environments import Missing, prepare
from .goals import Row, rows
from .harness import Figures, Stalled
from .harness import measure as measure_rival
from .roster import POSTGRES, RIVALS, Rival

OURS = ("bulk", "bulk-plain", "backlog", "in-flight", "producer", "pipeline", "idle-paced")
QUICK = 0.08
DURABLE_TOO = ("BullMQ", "Dramatiq", "SAQ", "Celery")
"""Those whose figures are taken on a Redis that syncs each commit, too: the best of any kind without it."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twelfth of the jobs: does it work at all")
    parser.add_argument("--rounds", type=int, default=3, help="each has its turn in each of them; medians are compared")
    parser.add_argument("--only", metavar="NAME", action="append", choices=[rival.name for rival in RIVALS],
                        help="one rival; repeatable: " + ", ".join(rival.name for rival in RIVALS))
    parser.add_argument("--json", type=Path, default=RESULTS / "peers.json", metavar="PATH")
    parser.add_argument("--etcd", type=Path, metavar="BINARY", default=os.environ.get("ROTA_ETCD_BINARY"))
    return parser.parse_args()


async def measure_rota(scale: float, binary: Path | None, console: Console) -> list[Ours]:
    with tempfile.TemporaryDirectory(prefix="rota-bench-") as folder:
        async with Stage(Path(folder), binary=binary) as stage:
            found = []
            for case in CASES:
                if case.name in OURS:
                    with step(console, f"rota: {case.title}"):
                        found.append(await measure(stage, case, scale))
            return found


def measure_theirs(rivals: list[Rival], scale: float, console: Console) -> list[Figures]:
    found = []
    for rival in rivals:
        for durable in (False, True) if rival.name in DURABLE_TOO else (rival.broker == POSTGRES,):
            try:
                with step(console, f"{rival.name}{', durable' if durable else ''}: {rival.settings}"):
                    found.append(measure_rival(rival, durable=durable, scale=scale))
            except (Missing, Stalled) as error:
                console.print(f"{rival.name}: {error}", markup=False)
    return found


def main() -> None:
    plan = arguments()
    console = wide_console()
    scale = QUICK if plan.quick else 1.0
    rivals = []
    for rival in RIVALS:
        if plan.only and rival.name not in plan.only:
            continue
        try:
            with step(console, f"an environment for {rival.name}"):
                prepare(rival)
            rivals.append(rival)
        except Missing as error:
            console.print(str(error), markup=False)
    before, ours, theirs = machine(), list[Ours](), list[Figures]()
    for number in range(1, plan.rounds + 1):
        console.rule(f"round {number} of {plan.rounds}")
        theirs += measure_theirs(rivals, scale, console)
        ours += asyncio.run(measure_rota(scale, plan.etcd, console))
    found = rows(ours, theirs)
    show(console, found, theirs)
    about = {"machine": before, "quick": plan.quick, "rounds": plan.rounds}
    plan.json.parent.mkdir(parents=True, exist_ok=True)
    plan.json.write_text(json.dumps(about | {
        "rows": msgspec.to_builtins(found), "rivals": msgspec.to_builtins(theirs), "rota": msgspec.to_builtins(ours),
    }, indent=1) + "\n")
    sys.exit(0 if found else "nothing could be compared")


def show(console: Console, found: list[Row], theirs: list[Figures]) -> None:
    table = Table("", "rota", "best rival", "", "ratio", "goal", "", title="rota beside the best")
    for row in found:
        table.add_row(row.goal, f"{row.rota:,.4g}", f"{row.best:,.4g}", row.best_name, f"{row.ratio:.2f}",
                      f"{row.target:g}", "met" if row.met else "not met")
    console.print(table)
    table = Table("rival", "bulk/s", "drain/s", "one after another/s", "p50 ms", "CPU s per 1,000", title="all rounds")
    for figures in theirs:
        table.add_row(f"{figures.name}{', durable' if figures.durable else ''}", f"{figures.bulk:,.0f}",
                      f"{figures.drain:,.0f}", f"{figures.one:,.0f}", f"{figures.p50_ms:.1f}", f"{figures.cpu_s:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
