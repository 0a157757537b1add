"""A step that was remembered does not run again, whoever is killed after it: on a real etcd, with real processes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .apps import steps
from .rig import Rig, read_journal, until

KILLS = int(os.environ.get("ROTA_STEP_KILLS", "2"))
"""In turn of a node between two steps of a job that it runs, and of the master while jobs sleep; 20 and more by
hand."""

JOBS = 3
"""Of each kind, for each kill."""
PAUSE_S = 0.4
NODES = 3


def kept_and_ran_again(journal: Path) -> list[str]:
    """Steps that ran after they had been remembered."""
    kept: set[tuple[str, str]] = set()
    again = []
    for line in read_journal(journal):
        what, _, name = line.what.partition(":")
        if what == "kept":
            kept.add((line.job, name))
        elif what == "ran" and (line.job, name) in kept:
            again.append(f"{line.job} {name}")
    return again


async def back(rig: Rig, victim: str) -> bool:
    """Its guard has started it again, at its old address, which the client knows."""
    members = await rig.members()
    return victim not in members and len(members) == NODES and bool(await rig.master())


@pytest.mark.timeout(100 + 40 * KILLS)
async def test_no_step_runs_twice_that_was_remembered(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    app = "tests.acceptance.apps.steps"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=3, app=app, sync=4, restart=True) as rig:
        handles = []
        for number in range(KILLS):
            new = [
                await rig.client.enqueue(task, str(journal), 100 * number + place, PAUSE_S)
                for place in range(JOBS) for task in (steps.order, steps.aorder)
            ]
            ids = {handle.id for handle in new}
            wanted = "kept:charge" if number % 2 == 0 else "kept:pack"

            def far_enough() -> bool:
                return any(line.job in ids and line.what == wanted for line in read_journal(journal))  # noqa: B023

            await until(far_enough, f"a job has come to {wanted}")
            if number % 2 == 0:
                claims = await rig.read(rig.keys.claims)
                holders = [found[0] for record in claims if (found := rig.keys.parse_claim(record.key)) is not None]
                victim = holders[0] if holders else (await rig.members())[0]
            else:
                victim = await rig.master()
            rig.kill_node(victim)
            await until(lambda: back(rig, victim), f"{victim} has joined again", 60)    # noqa: B023
            handles += [(handle, 100 * number + place // 2) for place, handle in enumerate(new)]
        for handle, value in handles:
            assert await handle.aresult(60) == 2 * (value + 1) + 1
        assert not kept_and_ran_again(journal)
        runs = Counter((line.job, line.what) for line in read_journal(journal) if line.what.startswith("ran:"))
        print(f"{KILLS} kills, {len(handles)} jobs, {sum(runs.values()) - len(runs)} steps ran twice, none remembered")
        others = Counter(line.job for line in read_journal(journal) if line.what.startswith("other:"))
        assert set(others) == {handle.id for handle, _ in handles}
        await rig.drained()
        assert not await rig.read(rig.keys.steps)
