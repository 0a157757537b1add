"""Kills at four fifths of the measured peak lose nothing: `ROTA_PEAK_KILLS=20 pytest -s tests/acceptance/test_peak.py`.

Minutes of full load, so it is run by hand. `ROTA_PEAK_JOBS` is how many jobs the peak is measured with.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from rota.client.api.clients import AsyncClient

from .apps import peak
from .rig import Rig, until

KILLS = int(os.environ.get("ROTA_PEAK_KILLS", "0"))
JOBS = int(os.environ.get("ROTA_PEAK_JOBS", "20000"))
SHARE = 0.8
TICK_S = 0.05
REST_S = 1.0
"""Between two kills, at the least: so long the load goes on undisturbed."""
RESULT_S = 120.0


async def measured(client: AsyncClient) -> float:
    """Jobs a second, enqueued in bulk, to the last result."""
    began = time.monotonic()
    handles = await client.enqueue_many(peak.same, ((number,) for number in range(JOBS)))
    await handles.aresults(timeout=RESULT_S)
    return JOBS / (time.monotonic() - began)


class Load:
    """So many jobs a second. Each must have its own result."""

    def __init__(self, client: AsyncClient, rate: float) -> None:
        self._client = client
        self._jobs = max(1, int(rate * TICK_S))
        self.enqueued = 0
        self.good = 0

    async def run(self, over: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                began, first = time.monotonic(), self.enqueued
                numbers = range(first, first + self._jobs)
                handles = await self._client.enqueue_many(peak.same, ((number,) for number in numbers))
                self.enqueued += len(handles)
                group.create_task(self._results(handles, list(numbers)), name=f"results from {first}")
                await asyncio.sleep(max(0.0, TICK_S - (time.monotonic() - began)))

    async def _results(self, handles: Any, numbers: list[int]) -> None:
        assert await handles.aresults(timeout=RESULT_S) == numbers
        self.good += len(numbers)


async def kill(rig: Rig, kills: int, rng: random.Random) -> None:
    """The master's process, and another node's, in turns; each time all three are there again."""
    for number in range(kills):
        await asyncio.sleep(REST_S + rng.random())
        master, members = await rig.master(), await rig.members()
        victim = master if number % 2 == 0 else rng.choice([node for node in members if node != master])
        rig.kill_node(victim)

        async def replaced(victim: str = victim) -> bool:
            members = await rig.members()
            return len(members) == 3 and victim not in members and await rig.master() not in ("", victim)

        await until(replaced, "three nodes are members, and one is master")


@pytest.mark.skipif(not KILLS, reason="minutes of full load: ROTA_PEAK_KILLS=20")
@pytest.mark.timeout(120 + 30 * KILLS)
async def test_kills_at_four_fifths_of_the_peak_lose_nothing(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=peak.__name__, restart=True, sync=0, capacity=100) as rig:
        rate = max([await measured(rig.client) for _ in range(2)])
        load, over = Load(rig.client, SHARE * rate), asyncio.Event()
        began = time.monotonic()
        running = asyncio.create_task(load.run(over), name="load")
        killing = asyncio.create_task(kill(rig, KILLS, random.Random(KILLS)), name="kills")
        await asyncio.wait([running, killing], return_when=asyncio.FIRST_COMPLETED)
        seconds = time.monotonic() - began
        over.set()
        await asyncio.gather(killing, running)
        print(
            f"peak {rate:,.0f} jobs/s; {KILLS} kills in {seconds:.0f} s; {load.enqueued:,} jobs "
            f"({load.enqueued / seconds:,.0f} a second), {load.good:,} ended well, each once"
        )
        assert load.good == load.enqueued > 0
