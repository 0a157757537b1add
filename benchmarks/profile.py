"""`python -m benchmarks.profile`: where a job's microseconds go, by process and step.

py-spy looks at the node, a runner and the client from outside while a load runs; nothing in rota knows of it. What a
process costs a job is its CPU time, from the kernel; the samples only say how that is shared out. Needs py-spy on PATH
or beside this Python (`pip install py-spy`), and the right to trace (root, or kernel.yama.ptrace_scope=0).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.console import Console

from . import jobs
from .load import Done
from .measure import CASES, Case, carry_out, load_process
from .meters import cpu_by_role, cpu_s, difference, etcd_counters, processes
from .report import table_of, wide_console
from .stage import BenchmarkError, Stage
from .steps import TABLES, frames, step_of

LOADS = ("bulk", "in-flight")
SAMPLES_A_SECOND = 250
TOP = 25


class Profile(msgspec.Struct):
    """One process under one load. Microseconds a job, by step, by function itself, by function with all it calls."""

    role: str
    samples: int
    us: float
    steps: dict[str, float]
    itself: dict[str, float]
    with_all: dict[str, float]


def find_py_spy() -> Path:
    beside = Path(sys.executable).parent / "py-spy"
    found = shutil.which("py-spy") or (str(beside) if beside.exists() else None)
    if found is None:
        raise BenchmarkError("py-spy was not found: pip install py-spy (into this environment, or anywhere on PATH)")
    return Path(found)


class Spies:
    """py-spy on several processes: `async with Spies(...)`; what they saw is there afterwards."""

    def __init__(self, pids: Mapping[str, int], folder: Path, native: bool) -> None:
        self._py_spy = find_py_spy()
        self._pids = pids
        self._folder = folder
        self._how = ["--native"] if native else ["--nonblocking"]      # the first stops the process for each look
        self._spies: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> None:
        for role, pid in self._pids.items():
            self._spies[role] = await asyncio.create_subprocess_exec(
                self._py_spy, "record", "--pid", str(pid), "--format", "raw", "--output", self.output(role),
                "--rate", str(SAMPLES_A_SECOND), "--duration", "600", "--full-filenames", *self._how,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
            )
        await asyncio.sleep(1.0)        # it reads symbols first

    async def __aexit__(self, *_: object) -> None:
        for spy in self._spies.values():
            if spy.returncode is None:
                spy.send_signal(2)      # as Ctrl-C: it writes what it has
        for spy in self._spies.values():
            await spy.wait()

    def output(self, role: str) -> Path:
        return self._folder / f"{role}.raw"


def digest(role: str, raw: Path, us: float) -> Profile:
    """Share a process's microseconds out over what its samples show."""
    steps: Counter[str] = Counter()
    itself: Counter[str] = Counter()
    with_all: Counter[str] = Counter()
    total = 0
    for line in raw.read_text().splitlines():
        stack, number = frames(line)
        total += number
        steps[step_of(stack, TABLES[role])] += number
        names = [f"{function} ({_short(file)})" for function, file in stack]
        itself[names[-1]] += number
        for name in set(names):
            with_all[name] += number
    if not total:
        raise BenchmarkError(f"py-spy has seen nothing of the {role}: may this user trace processes?")

    def shared(counter: Counter[str], number: int | None) -> dict[str, float]:
        return {name: us * seen / total for name, seen in counter.most_common(number)}

    return Profile(role, total, us, shared(steps, None), shared(itself, 2 * TOP), shared(with_all, 4 * TOP))


def _short(file: str) -> str:
    """The file's name from its package on: no machine's paths."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    return "/".join(parts[-2:])


async def profile(
    stage: Stage, case: Case, folder: Path, scale: float, native: bool
) -> tuple[list[Profile], dict[str, float]]:
    async with load_process(stage, case.name, case.seconds * scale, int(case.count * scale)) as process:
        members = await stage.members()
        pids = processes(stage, members)
        watched = {"node": pids["node"][0], "runner": await _busy_runner(pids["runner"]), "client": process.pid}
        async with Spies(watched, folder, native):
            cpu = cpu_by_role(pids)
            each = {role: cpu_s(pid) for role, pid in watched.items()}
            etcd = await asyncio.to_thread(etcd_counters, stage.etcd.endpoint)
            done: Done = await carry_out(process)
            await stage.drained(180.0)
            cpu = difference(cpu_by_role(pids), cpu)
            each["client"] = done.cpu_s
            etcd = difference(await asyncio.to_thread(etcd_counters, stage.etcd.endpoint), etcd)
    cpu["client"] = done.cpu_s
    summary = {f"{role} us/job": 1e6 * used / done.jobs for role, used in cpu.items()}
    summary |= {f"etcd {name}/job": value / done.jobs for name, value in etcd.items()}
    summary |= {"jobs": done.jobs, "jobs/bundle": done.jobs / done.bundles,
                "enqueued/s": done.jobs / (done.enqueued - done.started), "load": os.getloadavg()[0]}
    profiles = [
        digest(role, folder / f"{role}.raw", 1e6 * cpu[role] / done.jobs) for role in watched
    ]
    return profiles, summary


async def _busy_runner(pids: list[int]) -> int:
    """The one that ran the load's first job: the runner of `async def` jobs. It has had the most to do of late."""
    ages = {pid: cpu_s(pid) for pid in pids}
    await asyncio.sleep(0)
    return max(pids, key=lambda pid: (b"async" in Path(f"/proc/{pid}/cmdline").read_bytes(), ages[pid]))


def show(console: Console, case: Case, profiles: list[Profile], summary: dict[str, float]) -> None:
    console.rule(case.title)
    shown = (f"{name} {value:,.0f}" if value >= 1000 else f"{name} {value:.3g}" for name, value in summary.items())
    console.print(", ".join(shown), soft_wrap=True)
    for seen in profiles:
        console.print(table_of(
            f"{seen.role}: {seen.us:.1f} us a job, {seen.samples} samples", ("step", "us/job", "%"),
            [(step, f"{us:.2f}", f"{100 * us / seen.us:.1f}") for step, us in seen.steps.items()],
        ))
        console.print(table_of(
            f"{seen.role}, by function", ("function itself", "us/job"),
            [(name, f"{us:.2f}") for name, us in list(seen.itself.items())[:TOP]],
        ))
        console.print(table_of(
            f"{seen.role}, by function with all it calls", ("function", "us/job"),
            [(name, f"{us:.2f}") for name, us in list(seen.with_all.items())[: 2 * TOP]],
        ))


async def main(plan: argparse.Namespace, folder: Path, console: Console) -> None:
    find_py_spy()
    everything = {}
    async with Stage(folder, nodes=1, binary=plan.etcd) as stage:
        console.print(f"etcd {stage.etcd.version}, {os.cpu_count()} CPUs; load before: {os.getloadavg()[0]:.1f}")
        for name in plan.only or LOADS:
            case = next(case for case in CASES if case.name == name)
            if case.hold:
                await stage.pause(jobs.BACKLOG, False)
            profiles, summary = await profile(stage, case, folder, plan.scale, plan.native)
            show(console, case, profiles, summary)
            everything[name] = {"summary": summary, "profiles": profiles}
    if plan.json:
        plan.json.write_bytes(msgspec.json.format(msgspec.json.encode(everything)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", choices=[case.name for case in CASES])
    parser.add_argument("--scale", type=float, default=1.0, help="of the loads' times and counts")
    parser.add_argument("--native", action="store_true", help="also look into C and Cython code (gRPC); slower")
    parser.add_argument("--json", type=Path, metavar="PATH")
    parser.add_argument("--etcd", type=Path, metavar="BINARY", default=os.environ.get("ROTA_ETCD_BINARY"))
    return parser.parse_args()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="rota-profile-") as scratch:
        asyncio.run(main(arguments(), Path(scratch), wide_console()))
