"""Every tick is one job, whatever becomes of the masters: on a real etcd, with real processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rota.client.ids import parse_job_id, tick_id
from rota.cluster.state.schedules import ScheduleRecord, schedule_in

from .apps import work
from .rig import Rig, read_journal, until

NAME = "pulse"
KILLS = int(os.environ.get("ROTA_SCHEDULE_KILLS", "2"))
"""Of masters, one after the other; 20 and more by hand."""

pytestmark = pytest.mark.timeout(120 + 20 * KILLS)


async def record(rig: Rig) -> ScheduleRecord:
    found = schedule_in((await rig.read(rig.keys.schedule(NAME)))[0].value)
    assert found is not None
    return found


async def two_ticks(rig: Rig) -> None:
    """From now on."""
    fired = (await record(rig)).fired

    async def further() -> bool:
        return (await record(rig)).fired >= fired + 2

    await until(further, "two ticks more")


async def test_each_tick_is_one_job_though_masters_are_killed(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path) as rig:
        await rig.client.schedules.put(NAME, work.nap, (str(journal), 0.0), every=1.0, catch_up="all")
        for _ in range(KILLS):
            await two_ticks(rig)
            await rig.replace_node(await rig.master())
        await two_ticks(rig)                # the last master fires, too
        await rig.client.schedules.pause(NAME)
        await rig.drained()
        last = await record(rig)
    ticks = range(last.timetable.start_ms + 1_000, last.last_tick + 1, 1_000)
    assert len(ticks) == last.fired and last.skipped == 0
    begun = [parse_job_id(line.job)[0] for line in read_journal(journal) if line.what == "start"]
    expected = {tick_id(NAME, last.created, tick) for tick in ticks}
    assert set(begun) == expected       # each once, or again where its node was killed with it
    assert len(begun) <= len(expected) + KILLS
