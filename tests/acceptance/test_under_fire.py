"""Limits and order hold while nodes and masters are killed and paused: judged from the journal that the jobs write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import rota

from .apps import fire
from .rig import Line, Rig, alive, read_journal, until

APP = "tests.acceptance.apps.fire"
NUMBERED = int(os.environ.get("ROTA_FIRE_JOBS", "1000"))
"""Jobs of the serial queue, over three clients."""

DEEDS = 8
"""Things that go wrong meanwhile, at least."""

KILLS = int(os.environ.get("ROTA_FIRE_KILLS", "5"))
"""Masters killed under a limit."""

LEASE_S = 2


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def kill_masters(rig: Rig, kills: int) -> dict[int, float]:
    """Kill the master's process so many times, each time the next one; returns when each runner's node was killed."""
    killed: dict[int, float] = {}
    for _ in range(kills):
        master = await until(rig.master, "there is a master")
        runners = rig.runner_pids(master)
        killed |= dict.fromkeys(runners, boottime())
        rig.kill_node(master)

        async def replaced(master: str = master) -> bool:
            return await rig.master() not in ("", master) and len(await rig.members()) == 3

        await until(replaced, "another is master, and three nodes are members")
    return killed


def spans(lines: list[Line], killed: dict[int, float]) -> list[tuple[float, float]]:
    """(start, end) of each run; one that was killed ended when its node was."""
    ends = {(line.job, line.fence): line.at for line in lines if line.what != "start"}
    return [
        (line.at, ends.get((line.job, line.fence), killed.get(line.pid, float("inf"))))
        for line in lines if line.what == "start"
    ]


def most_at_once(runs: list[tuple[float, float]]) -> int:
    events = sorted([(start, 1) for start, _ in runs] + [(end, -1) for _, end in runs])
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


@pytest.mark.timeout(240)
async def test_a_limit_holds_through_the_deaths_of_masters(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, restart=True, sync=0, capacity=50) as rig:
        handles = await rig.client.enqueue_many(fire.limited, [(str(journal), 0.15)] * (120 * KILLS))
        await until(journal.exists, "the first has begun")
        killed = await kill_masters(rig, KILLS)
        for handle in handles:
            await handle.aresult(timeout=150)
    lines = read_journal(journal)
    assert {line.job for line in lines if line.what == "end"} == set(handles.ids)
    assert most_at_once(spans(lines, killed)) == fire.LIMIT


class Nemesis:
    """Kills and pauses nodes, every other time the master, at random moments, until it is told to stop."""

    def __init__(self, rig: Rig, rng: random.Random) -> None:
        self._rig = rig
        self._rng = rng
        self.deeds: list[str] = []
        self.killed: dict[int, float] = {}      # runner -> when it was dead, at the latest

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await asyncio.sleep(self._rng.uniform(0.0, 0.7))
            await until(lambda: _all_are_members(self._rig), "three nodes are members, and one is master")
            master, members = await self._rig.master(), await self._rig.members()
            victim = master if self._rng.random() < 0.5 else self._rng.choice(members)
            deed = self._rng.choice((self._kill, self._pause, self._pause_past_the_lease))
            self.deeds.append(f"{deed.__name__.strip('_')} {'the master' if victim == master else 'a node'}")
            await deed(victim)

    async def _kill(self, node: str) -> None:
        runners = self._rig.runner_pids(node)
        self._rig.kill_node(node)
        await self._note_deaths(runners)

    async def _pause(self, node: str) -> None:
        await self._stop(self._rig.node_pid(node), self._rng.uniform(0.1, 1.0))

    async def _pause_past_the_lease(self, node: str) -> None:
        """Its guard goes on, and ends the runners in time."""
        pid, runners = self._rig.node_pid(node), self._rig.runner_pids(node)
        resting = asyncio.create_task(self._stop(pid, LEASE_S + 1.0))
        await self._note_deaths(runners)
        await resting

    async def _stop(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _note_deaths(self, runners: list[int]) -> None:
        await until(lambda: not any(map(alive, runners)), "its runners are dead")
        self.killed |= dict.fromkeys(runners, boottime())


async def _all_are_members(rig: Rig) -> bool:
    return len(await rig.members()) == 3 and await rig.master() != ""


@pytest.mark.timeout(240)
async def test_a_serial_queue_keeps_its_order_under_fire(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """Three clients; a tenth of the jobs fail once; nodes and masters are killed and paused at random. One at a time,
    and each client's in order."""
    journal, seed = tmp_path / "journal", int(os.environ.get("ROTA_FIRE_SEED", time.time_ns() % 100_000))
    each = -(-NUMBERED // 3)
    async with Rig(
        etcd.endpoint, cluster_name, tmp_path, app=APP, restart=True, sync=1, capacity=0, ttl_s=LEASE_S
    ) as rig:
        urls, over = await rig.urls(), asyncio.Event()
        nemesis = Nemesis(rig, random.Random(seed))

        async def client(name: int) -> list[str]:
            async with rota.AsyncClient(urls, retry_window_s=60.0, **rig.credentials()) as client:
                return [
                    (await client.enqueue(fire.numbered, str(journal), str(tmp_path), name, number)).id
                    for number in range(each)
                ]

        filling = asyncio.gather(*(client(name) for name in range(3)))
        await until(journal.exists, "the first has begun")
        harm = asyncio.create_task(nemesis.run(over))
        ids = await filling
        await until(lambda: len(nemesis.deeds) >= DEEDS or harm.done(), "enough has gone wrong", 200)
        over.set()
        await harm
        await rig.drained(200)
    lines = read_journal(journal)
    print(f"ROTA_FIRE_SEED={seed}: {', '.join(nemesis.deeds)}; {len(lines)} lines")
    assert most_at_once(spans(lines, nemesis.killed)) == 1
    ended = [line.job for line in lines if line.what == "end"]
    assert set(ended) == {job for mine in ids for job in mine}
    for mine in ids:
        order = list(dict.fromkeys(job for job in ended if job in set(mine)))
        assert order == mine
