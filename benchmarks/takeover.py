"""`python -m benchmarks.takeover`: how long until the jobs of a killed node start elsewhere.

Three nodes work on short jobs; again and again one is killed, and another one started in its place. Three ways to die:
the node's process (not the master's; the master's), of which its guard tells the cluster at once; and the whole process
tree, as when a machine is lost, which only the end of the lease tells. Times are from just before the signal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console

from rota.client.api.clients import AsyncClient
from rota.client.calls.handle import JobHandle
from rota.client.ids import parse_job_id
from rota.cluster.ledger.ledger import prefix_end
from rota.cluster.state.keys import whole

from . import jobs
from .meters import machine
from .percentiles import percentile
from .report import table_of, wide_console
from .stage import BenchmarkError, Stage, until

Way = Literal["node", "master", "machine"]
WAYS: dict[Way, str] = {
    "node": "kill -9 of the process of a node that is not the master",
    "master": "kill -9 of the process of the master's node",
    "machine": "kill -9 of a whole process tree, guard first (TTL 2 s)",
}
LIMITS_MS: dict[Way, float] = {"node": 500, "master": 500, "machine": 3000}
NODES, TTL_S = 3, 2
CALLERS = 40
NAP_S = 0.2
"""Callers and naps are such that every node always holds a few claims."""
CLAIMS_MIN = 4
TAKEOVER_S = 30.0


class Kill(msgspec.Struct):
    """Milliseconds from the kill. `elected`: the first claim by a new master; only where the master was killed."""

    runners_dead_ms: float
    member_gone_ms: float
    first_start_ms: float
    elected_ms: float | None
    orphans: int


class Load:
    """Callers that always have a job under way. Enqueues go one by one, so that every bundle is one job, and whatever
    starts twice is an orphan."""

    def __init__(self, client: AsyncClient, journal: Path) -> None:
        self._client = client
        self._journal = str(journal)
        self._one = asyncio.Lock()
        self.ended = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(self._call(plain=number % 2 == 0), name=f"caller {number}")

    async def _call(self, *, plain: bool) -> None:
        while True:
            async with self._one:
                handle: JobHandle[None]
                if plain:
                    handle = await self._client.enqueue(jobs.nap, self._journal, NAP_S)
                else:
                    handle = await self._client.enqueue(jobs.anap, self._journal, NAP_S)
            await handle.aresult(timeout=120)
            self.ended += 1


class Journal:
    """Starts of jobs, as the jobs write them down: (bundle, pid, time)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def news(self) -> list[tuple[str, int, float]]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().rpartition(b"\n")[0]
        self._read += len(lines) + bool(lines)
        rows = [line.split() for line in lines.decode().splitlines()]
        return [(parse_job_id(job)[0], int(pid), float(at)) for job, pid, at in rows]


def now() -> float:
    """The journal's clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def kill_once(stage: Stage, journal: Journal, way: Way) -> tuple[str, Kill]:
    """Kill one node that holds claims; who it was, and what was seen."""
    master = await stage.master()
    victim = master if way == "master" else random.choice([node for node in await stage.members() if node != master])
    claims = stage.keys.claims_of(victim)
    await until(lambda: _holds(stage, claims), f"{victim} holds claims")
    runners, node, guard = stage.runner_pids(victim), stage.node_pid(victim), stage.guard_pid(victim)
    journal.news()
    page = await stage.ledger.read(claims, prefix_end(claims))
    orphans = {whole(record.key.rpartition(b"/")[2].decode()) for record in page.records}
    async with asyncio.TaskGroup() as group:
        killed_at = now()
        for pid in (guard, node, *runners) if way == "machine" else (node,):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        dead = group.create_task(_when_dead(runners))
        seen = group.create_task(succession(stage, victim, page.revision + 1))
        started = group.create_task(_first_start(journal, orphans, set(runners)))
    gone_at, claimed_at = seen.result()
    return victim, Kill(
        _ms(dead.result(), killed_at), _ms(gone_at, killed_at), _ms(started.result(), killed_at),
        _ms(claimed_at, killed_at) if way == "master" else None, len(orphans),
    )


async def _holds(stage: Stage, claims: bytes) -> bool:
    """Several claims: one alone may end just before the kill, and then nothing starts again."""
    return len(await stage.read(claims)) >= CLAIMS_MIN


def _ms(at: float, since: float) -> float:
    return 1000 * (at - since)


async def _when_dead(pids: list[int]) -> float:
    async with asyncio.timeout(TAKEOVER_S):
        while any(_alive(pid) for pid in pids):     # noqa: ASYNC110 - a process's end is no event
            await asyncio.sleep(0.001)
    return now()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


async def succession(stage: Stage, victim: str, revision: int) -> tuple[float, float]:
    """When the victim's membership ended, and when a claim was made after that (by a new master, if it was one)."""
    keys = stage.keys
    gone_at = 0.0
    async with asyncio.timeout(TAKEOVER_S), stage.ledger.watch(
        keys.root, prefix_end(keys.root), from_revision=revision
    ) as watch:
        async for changes in watch:
            for event in changes.events:
                key = event.record.key
                if event.deleted and key == keys.node(victim):
                    gone_at = now()
                elif gone_at and not event.deleted and key.startswith(keys.claims) and event.record.version == 1:
                    return gone_at, now()
    raise BenchmarkError("the watch has ended")


async def _first_start(journal: Journal, orphans: set[str], dead: set[int]) -> float:
    async with asyncio.timeout(TAKEOVER_S):
        while True:
            for bundle, pid, at in journal.news():
                if bundle in orphans and pid not in dead:
                    return at
            await asyncio.sleep(0.005)


async def kills(stage: Stage, way: Way, number: int, console: Console, journal: Journal) -> list[Kill]:
    seen = []
    with console.status(WAYS[way]) as status:
        for turn in range(number):
            victim, kill = await kill_once(stage, journal, way)
            seen.append(kill)
            status.update(f"{WAYS[way]}: {turn + 1} of {number}, the last after {kill.first_start_ms:.0f} ms")
            await stage.replace(victim)
    return seen


def rows(way: Way, seen: list[Kill]) -> list[tuple[str, ...]]:
    def row(what: str, values: list[float], limit: float = 0.0) -> tuple[str, ...]:
        numbers = (percentile(values, 50), max(values))
        return (what, str(len(values)), *(f"{value:.0f}" for value in numbers), f"{limit:.0f}" if limit else "")

    found = [
        row("runners dead", [kill.runners_dead_ms for kill in seen]),
        row("membership ended", [kill.member_gone_ms for kill in seen]),
    ]
    elected = [kill.elected_ms for kill in seen if kill.elected_ms is not None]
    if elected:
        found.append(row("first claim by the new master", elected))
    return [*found, row("first orphan starts elsewhere", [kill.first_start_ms for kill in seen], LIMITS_MS[way])]


async def main(plan: argparse.Namespace, folder: Path, console: Console) -> None:
    about = machine()
    everything: dict[str, object] = {"about": about}
    journal = Journal(folder / "journal")
    async with Stage(folder, nodes=NODES, ttl_s=TTL_S, binary=plan.etcd) as stage:
        console.print(f"etcd {stage.etcd.version}, {NODES} nodes, TTL {TTL_S} s; load average before: {about['load']}")
        async with stage.client(await stage.urls()) as client:
            load = Load(client, journal.path)
            callers = asyncio.create_task(load.run(), name="load")
            try:
                for way in plan.only or WAYS:
                    seen = await kills(stage, way, plan.kills, console, journal)
                    everything[way] = seen
                    title = f"{WAYS[way]}; load {os.getloadavg()[0]:.1f}"
                    columns = ("ms after the kill", "kills", "p50", "worst", "limit")
                    console.print(table_of(title, columns, rows(way, seen)))
                    if callers.done():
                        callers.result()    # raises what went wrong
            finally:
                callers.cancel()
                await asyncio.wait([callers])
            console.print(f"{load.ended:,} jobs ended meanwhile")
    if plan.json:
        plan.json.write_bytes(msgspec.json.format(msgspec.json.encode(everything)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.takeover", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--only", action="append", choices=list(WAYS))
    parser.add_argument("--json", type=Path, metavar="PATH")
    parser.add_argument("--etcd", type=Path, metavar="BINARY", default=os.environ.get("ROTA_ETCD_BINARY"))
    return parser.parse_args()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="rota-takeover-") as scratch:
        asyncio.run(main(arguments(), Path(scratch), wide_console()))
