"""Unique jobs, rates and expiry hold while masters and nodes are killed: on a real etcd, with real processes.

By hand with more kills: `ROTA_ONCE_KILLS=20 pytest tests/acceptance/test_once.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.errors import RotaError
from rota.cluster.ledger.ledger import prefix_end

from .apps import once
from .rig import Rig, read_journal, until

APP = "tests.acceptance.apps.once"
KILLS = int(os.environ.get("ROTA_ONCE_KILLS", "2"))
CUSTOMERS = ("ann", "bob", "eve")

pytestmark = pytest.mark.timeout(120 + 20 * KILLS)


async def kill(rig: Rig, number: int) -> None:
    """Every other time the master, else a node that is not; another takes its address."""
    master = await until(rig.master, "there is a master")
    others = sorted(set(await rig.members()) - {master})
    await rig.replace_node(master if number % 2 == 0 or not others else random.choice(others))


async def unique_keys(rig: Rig) -> list[bytes]:
    prefix = rig.keys.uniques
    return [record.key for record in (await rig.ledger.read(prefix, prefix_end(prefix), keys_only=True)).records]


async def test_two_of_a_key_are_never_there(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """While jobs are enqueued all the time, each key's by three clients. They tell their jobs' spans in a journal."""
    journals = {customer: tmp_path / customer for customer in CUSTOMERS}
    over, stored = asyncio.Event(), set()

    async def enqueue(rig: Rig, customer: str) -> None:
        rng = random.Random(customer)
        while not over.is_set():
            try:
                handle = await rig.client.enqueue(once.alone, str(journals[customer]), customer, 0.05)
                stored.add(handle.id)
            except RotaError:
                pass
            await asyncio.sleep(rng.uniform(0.0, 0.05))

    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, restart=False) as rig:
        asking = [asyncio.create_task(enqueue(rig, customer)) for customer in CUSTOMERS * 3]
        for number in range(KILLS):
            await asyncio.sleep(1.0)
            await kill(rig, number)
        await asyncio.sleep(1.0)
        over.set()
        await asyncio.gather(*asking)
        await rig.drained()
        assert await unique_keys(rig) == []
        for customer in CUSTOMERS:          # and none that is gone keeps others away
            handle = await rig.client.enqueue(once.alone, str(journals[customer]), customer, 0.0)
            assert not handle.existing
            stored.add(handle.id)
            await handle.aresult(timeout=60)
    ran = set()
    for journal in journals.values():
        lines = read_journal(journal)
        open_: dict[str, int] = {}
        for line in lines:
            if line.what == "start":
                others = set(open_) - {line.job}        # its own earlier run may have died with its node
                assert not others, f"{line.job} began while {others} had not ended"
                open_[line.job] = line.fence
            else:
                open_.pop(line.job, None)
        ran |= {line.job for line in lines if line.what == "end"}
    assert ran >= stored and len(stored) > 10 * KILLS


async def test_a_rate_has_no_second_burst(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    journal, jobs = tmp_path / "journal", 60 + 40 * KILLS
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP) as rig:
        handles = await rig.client.enqueue_many(once.paced, [(str(journal),)] * jobs)
        for _ in range(KILLS):
            await asyncio.sleep(0.5)
            await kill(rig, 0)
        for handle in handles:
            await handle.aresult(timeout=60)
    starts = sorted(line.at for line in read_journal(journal) if line.what == "start")
    assert jobs <= len(starts) <= jobs + 5 * KILLS
    for first, since in enumerate(starts):
        for last in range(first + once.BURST, len(starts)):
            may = once.BURST + (starts[last] - since + SLACK_S) * once.RATE
            assert last - first + 1 <= may, f"{last - first + 1} jobs began within {starts[last] - since:.3f} s"


SLACK_S = 0.3
"""From when a job is given out to when it begins takes a moment, in which others catch up."""


async def test_nothing_begins_after_it_has_expired(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """More jobs than the nodes can begin in time, a wave for each kill: each has run or has expired."""
    journal = tmp_path / "journal"
    until_s: dict[str, float] = {}
    ended: dict[str, str] = {}
    async with Rig(etcd.endpoint, cluster_name, tmp_path, app=APP, capacity=4, sync=0, restart=False) as rig:
        for number in range(KILLS):
            handles = await rig.client.enqueue_many(once.fleeting, [(str(journal), 0.5)] * WAVE)
            until_s |= dict.fromkeys([handle.id for handle in handles], time.time() + once.PATIENCE_S)
            await kill(rig, number)
            async for handle in handles.aas_completed(timeout=60):
                try:
                    await handle.aresult(timeout=30)
                    ended[handle.id] = "ok"
                except rota.JobExpired:
                    ended[handle.id] = "expired"
    lines = [line for line in read_journal(journal) if line.what == "start"]
    late = [line for line in lines if wall_of(line.at) > until_s[line.job] + 0.05]
    assert not late and {job for job, how in ended.items() if how == "ok"} <= {line.job for line in lines}
    counts = {how: list(ended.values()).count(how) for how in ("ok", "expired")}
    assert sum(counts.values()) == WAVE * KILLS and min(counts.values()) > 0


WAVE = 100


def wall_of(boottime_s: float) -> float:
    return boottime_s - time.clock_gettime(time.CLOCK_BOOTTIME) + time.time()
