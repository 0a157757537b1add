"""Limits and order hold while masters are killed: judged from the journal that the jobs write."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import rota

from .apps import fire
from .rig import Line, Rig, read_journal, until

APP = "tests.acceptance.apps.fire"
NUMBERED = int(os.environ.get("ROTA_FIRE_JOBS", "120"))
"""Jobs of the serial queue, over three clients; `ROTA_FIRE_JOBS=1000` for the full measure."""

KILLS = int(os.environ.get("ROTA_FIRE_KILLS", "3"))
"""Masters killed under a limit; five in the full measure."""


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


async def test_a_limit_holds_through_the_deaths_of_masters(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, restart=True, sync=0, capacity=50) as rig:
        handles = await rig.client.enqueue_many(fire.limited, [(str(journal), 0.15)] * (120 * KILLS))
        await until(journal.exists, "the first has begun")
        killed = await kill_masters(rig, KILLS)
        for handle in handles:
            await handle.aresult(timeout=50)
    lines = read_journal(journal)
    assert {line.job for line in lines if line.what == "end"} == set(handles.ids)
    assert most_at_once(spans(lines, killed)) == fire.LIMIT


async def test_a_serial_queue_keeps_its_order_under_fire(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """Three clients; a tenth of the jobs fail once; masters are killed. One at a time, and each client's in order."""
    journal = tmp_path / "journal"
    each = NUMBERED // 3
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, restart=True, sync=1, capacity=0) as rig:
        urls = await rig.urls()

        async def client(name: int) -> list[str]:
            async with rota.AsyncClient(urls) as client:
                return [
                    (await client.enqueue(fire.numbered, str(journal), str(tmp_path), name, number)).id
                    for number in range(each)
                ]

        filling = asyncio.gather(*(client(name) for name in range(3)))
        await until(journal.exists, "the first has begun")
        killed = await kill_masters(rig, 2)
        ids = await filling
        await rig.drained(50)
    lines = read_journal(journal)
    assert most_at_once(spans(lines, killed)) == 1
    ended = [line.job for line in lines if line.what == "end"]
    for mine in ids:
        order = list(dict.fromkeys(job for job in ended if job in set(mine)))
        assert order == mine
