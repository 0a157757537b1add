"""`python -m benchmarks.peers`: rota and nine other queues, in turns, in several rounds; then what has no rival. Every
goal of speed is told with its figure."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path

import msgspec
from rich.console import Console

from ..meters import machine
from ..report import RESULTS, step, wide_console
from .environments import Missing, prepare
from .facts import PARTS, Facts, Part, Scale, no_facts, of_cases
from .goals import rows
from .harness import Figures, measure
from .roster import POSTGRES, RIVALS, Rival
from .telling import Report, picture, show, tell_docs

QUICK = 0.05
DURABLE_TOO = ("BullMQ", "Dramatiq", "SAQ", "Celery")
"""Those whose figures are taken on a Redis that syncs each commit, too: the best of any kind without it."""


def arguments() -> argparse.Namespace:
    names = [rival.name for rival in RIVALS]
    parts = ["rivals", "cases", *PARTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything: does it work at all")
    parser.add_argument("--rounds", type=int, default=2, help="of rivals and cases; medians are compared (default: 2)")
    parser.add_argument("--only", metavar="NAME", action="append", choices=names,
                        help="one rival; repeatable: " + ", ".join(names))
    parser.add_argument("--part", metavar="NAME", action="append", choices=parts,
                        help="one part; repeatable: " + ", ".join(parts))
    parser.add_argument("--json", type=Path, default=RESULTS / "peers.json", metavar="PATH")
    parser.add_argument("--docs", action="store_true", help="write table and chart into docs/, too")
    parser.add_argument("--etcd", type=Path, metavar="BINARY", default=os.environ.get("ROTA_ETCD_BINARY"))
    return parser.parse_args()


def prepared(wanted: list[str] | None, console: Console) -> list[Rival]:
    """Those that can be set up here; of the others it is said why not."""
    found = []
    for rival in RIVALS:
        if wanted and rival.name not in wanted:
            continue
        try:
            with step(console, f"an environment for {rival.name}"):
                prepare(rival)
            found.append(rival)
        except Missing as error:
            console.print(f"{rival.name}: {error}", markup=False, style="bold red")
    return found


def round_of_rivals(rivals: list[Rival], scale: float, console: Console) -> list[Figures]:
    found = []
    for rival in rivals:
        for durable in (False, True) if rival.name in DURABLE_TOO else (rival.broker == POSTGRES,):
            try:
                with step(console, f"{rival.name}{', durable' if durable else ''}: {rival.settings}"):
                    found.append(measure(rival, durable=durable, scale=scale))
            except Exception as error:      # whatever breaks in it: the others' figures stay
                console.print(f"{rival.name}: {type(error).__name__}: {error}", markup=False, style="bold red")
    return found


def carry_out(part: Part, what: str, scale: Scale, facts: Facts, console: Console) -> None:
    """One that breaks takes no figures of others with it: its goals are then not measured."""
    try:
        with step(console, what):
            asyncio.run(part(scale, facts))
    except Exception as error:          # whatever it is: an hour's figures of the others stay
        console.print(f"{what}: {type(error).__name__}: {error}", markup=False, style="bold red")


def main() -> None:
    plan = arguments()
    console, began, before = wide_console(), time.monotonic(), machine()
    scale = Scale(QUICK if plan.quick else 1.0, plan.etcd)
    wanted = plan.part or ["rivals", "cases", *PARTS]
    rivals = prepared(plan.only, console) if "rivals" in wanted else []
    facts: Facts = no_facts()
    theirs: list[Figures] = []
    for number in range(1, plan.rounds + 1):
        console.rule(f"round {number} of {plan.rounds}")
        theirs += round_of_rivals(rivals, scale.of, console)
        if "cases" in wanted:
            carry_out(of_cases, "rota: the cases of `make bench`", scale, facts, console)
    console.rule("without rivals")
    for name, (what, part) in PARTS.items():
        if name in wanted:
            carry_out(part, what, scale, facts, console)
    report = Report(
        at=time.strftime("%Y-%m-%dT%H:%M:%S%z"), seconds=round(time.monotonic() - began), quick=plan.quick,
        rounds=plan.rounds, machine={**before, "load_after": machine()["load"]}, rows=rows(facts, theirs),
        rivals=theirs, facts=dict(facts),
    )
    show(console, report)
    plan.json.parent.mkdir(parents=True, exist_ok=True)
    plan.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    chart = plan.json.with_suffix(".svg")
    chart.write_text(picture(report))
    console.print(f"figures: {plan.json}\npicture: {chart}", soft_wrap=True)
    if plan.docs:
        tell_docs(report)


if __name__ == "__main__":
    main()
