"""A fan-in fires once, with every result, whoever is killed before it: on a real etcd, with real processes."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from rota.client.handle import JobHandle, JobHandles
from rota.client.ids import parse_job_id

from .apps import work
from .rig import Rig, read_journal, until

KILLS = int(os.environ.get("ROTA_FLOW_KILLS", "1"))
"""Of masters, and of nodes that run children; 20 and more by hand."""

CHILDREN = 40


async def children_left(rig: Rig, parts: JobHandles[Any]) -> int:
    """Bundles of them that have not ended."""
    bundles = {parse_job_id(id_)[0] for id_ in parts.ids}
    return sum([len(await rig.read(rig.keys.body(bundle))) for bundle in bundles])


async def fan_in(rig: Rig, journal: Path, number: int) -> tuple[JobHandles[Any], JobHandle[Any], JobHandle[Any]]:
    calls = [work.part.call(str(journal), number * CHILDREN + place, 0.05) for place in range(CHILDREN)]
    parts = await rig.client.enqueue_many(work.part, calls)
    total = await rig.client.enqueue(work.total, str(journal), parts)  # type: ignore[arg-type]
    after = await rig.client.enqueue(work.nap.using(after=total), str(journal))
    return parts, total, after


async def check(journal: Path, number: int, total: JobHandle[Any], after: JobHandle[Any], runs: int) -> None:
    assert await total.aresult(60) == list(range(number * CHILDREN, (number + 1) * CHILDREN))
    await after.aresult(60)
    for job in (total, after):
        starts = [line for line in read_journal(journal) if line.job == job.id and line.what == "start"]
        assert 1 <= len(starts) <= runs, f"the fan-in began {len(starts)} times"


async def nothing_left(rig: Rig) -> None:
    await rig.drained()

    async def gone() -> bool:
        return not [*await rig.read(rig.keys.awaiting), *await rig.read(rig.keys.inputs)]

    await until(gone, "nothing waits, and nothing is kept of what jobs were given", 60.0)


async def test_the_master_is_killed_between_the_last_child_and_the_fan_in(
    etcd: Any, cluster_name: str, tmp_path: Path
) -> None:
    """It is stopped when the last children run, so that it cannot see them end, and killed when they have."""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=3) as rig:
        for number in range(KILLS):
            parts, total, after = await fan_in(rig, journal, number)
            master = await rig.master()

            async def few() -> bool:
                return sum(line.what == "end" for line in read_journal(journal)) >= (number + 1) * CHILDREN - 4  # noqa: B023

            await until(few, "most children have ended")
            pid = rig.node_pid(master)
            os.kill(pid, signal.SIGSTOP)

            async def ended() -> bool:
                return not await children_left(rig, parts) or master not in await rig.members()     # noqa: B023

            await until(ended, "all children have ended, or those of the master have to be run again")
            with suppress(ProcessLookupError):      # its guard may have been first
                os.kill(pid, signal.SIGKILL)
            await rig.joined([rig.start()])
            await check(journal, number, total, after, 1)
        await nothing_left(rig)


async def test_nodes_of_children_are_killed(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """Any of the nodes, the master as well, when most children have ended."""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=3) as rig:
        for number in range(KILLS):
            parts, total, after = await fan_in(rig, journal, number)

            async def few() -> bool:
                return await children_left(rig, parts) <= 2     # noqa: B023

            await until(few, "most children have ended")
            claims = await rig.read(rig.keys.claims)
            holders = [found[0] for record in claims if (found := rig.keys.parse_claim(record.key)) is not None]
            rig.kill_node(holders[0] if holders and number % 2 == 0 else (await rig.members())[number % 3])
            await rig.joined([rig.start()])
            await check(journal, number, total, after, 2)       # it may have run there
        await nothing_left(rig)
