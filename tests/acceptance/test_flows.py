"""A fan-in fires once, with every result, whoever is killed before it: on a real etcd, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.api.flows import Flow
from rota.client.calls.handle import JobHandle, JobHandles
from rota.client.ids import parse_job_id
from rota.cluster.ledger.ledger import Delete, Txn

from .apps import work
from .rig import ROOT, Rig, python_path, read_journal, until

KILLS = int(os.environ.get("ROTA_FLOW_KILLS", "1"))
"""Of masters, and of nodes that run children; 20 and more by hand."""

CHILDREN = 40

pytestmark = pytest.mark.timeout(120 + 30 * KILLS)


async def children_left(rig: Rig, parts: JobHandles[Any]) -> int:
    """Bundles of them that have not ended."""
    bundles = {parse_job_id(id_)[0] for id_ in parts.ids}
    return sum([len(await rig.read(rig.keys.body(bundle))) for bundle in bundles])


async def fan_in(
    rig: Rig, journal: Path, number: int
) -> tuple[Flow, JobHandles[Any], JobHandle[Any], JobHandle[Any]]:
    calls = [work.part.call(str(journal), number * CHILDREN + place, 0.05) for place in range(CHILDREN)]
    async with rig.client.flow("fan-in") as flow:
        parts = await rig.client.enqueue_many(work.part, calls)
        total = await rig.client.enqueue(work.total, str(journal), parts)  # type: ignore[arg-type]
        after = await rig.client.enqueue(work.nap.using(after=total), str(journal))
    return flow, parts, total, after


async def check(
    journal: Path, number: int, flow: Flow, total: JobHandle[Any], after: JobHandle[Any], runs: int
) -> None:
    view = await flow.await_(60)
    assert (view.state, view.counts) == ("done", {"ok": CHILDREN + 2})
    assert await total.aresult(60) == list(range(number * CHILDREN, (number + 1) * CHILDREN))
    await after.aresult(60)
    for job in (total, after):
        starts = [line for line in read_journal(journal) if line.job == job.id and line.what == "start"]
        assert 1 <= len(starts) <= runs, f"the fan-in began {len(starts)} times"


async def nothing_left(rig: Rig) -> None:
    await rig.drained()

    for record in await rig.read(rig.keys.flows_ended):     # their time is over
        await rig.ledger.commit(Txn((), (Delete(record.key),)))
    keys = rig.keys

    async def gone() -> bool:
        areas = (keys.awaiting, keys.inputs, keys.flows, keys.flow_sections, keys.flows_open, keys.graphs)
        return not any([await rig.read(area) for area in areas])

    await until(gone, "nothing waits, and nothing is kept of what jobs were given, nor of flows", 60.0)


async def test_the_master_is_killed_between_the_last_child_and_the_fan_in(
    etcd: Any, cluster_name: str, tmp_path: Path
) -> None:
    """It is stopped when the last children run, so that it cannot see them end, and killed when they have."""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=3) as rig:
        for number in range(KILLS):
            flow, parts, total, after = await fan_in(rig, journal, number)
            master = await rig.master()

            async def few() -> bool:
                return sum(line.what == "end" for line in read_journal(journal)) >= (number + 1) * CHILDREN - 4  # noqa: B023

            await until(few, "most children have ended")
            pid, port = rig.node_pid(master), await rig.port_of(master)
            os.kill(pid, signal.SIGSTOP)

            async def ended() -> bool:
                return not await children_left(rig, parts) or master not in await rig.members()     # noqa: B023

            await until(ended, "all children have ended, or those of the master have to be run again")
            with suppress(ProcessLookupError):      # its guard may have been first
                os.kill(pid, signal.SIGKILL)
            await rig.joined([rig.start(port=port)])
            await check(journal, number, flow, total, after, 1)
        await nothing_left(rig)


async def test_nodes_of_children_are_killed(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """Any of the nodes, the master as well, when most children have ended."""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=3) as rig:
        for number in range(KILLS):
            flow, parts, total, after = await fan_in(rig, journal, number)

            async def few() -> bool:
                return await children_left(rig, parts) <= 2     # noqa: B023

            await until(few, "most children have ended")
            claims = await rig.read(rig.keys.claims)
            holders = [found[0] for record in claims if (found := rig.keys.parse_claim(record.key)) is not None]
            await rig.replace_node(holders[0] if holders and number % 2 == 0 else (await rig.members())[number % 3])
            await check(journal, number, flow, total, after, 2)       # it may have run there
        await nothing_left(rig)


CLIENT = """
import asyncio, os, signal, sys, rota
from rota.client.api import flows
from tests.acceptance.apps import work
url, token, key, journal, at, when, more_s = sys.argv[1:]
send, frames = flows._send, 0

async def deadly(engine, frame):
    global frames
    frames += 1
    here = "last" if frame[-1].terms.flow.part == "last" else str(frames)
    under_way = asyncio.ensure_future(send(engine, frame))
    if here == at and when == "amid":
        await asyncio.sleep(float(more_s))
    else:
        await under_way
    if here == at:
        os.kill(os.getpid(), signal.SIGKILL)

flows._send = deadly
client = rota.Client(url, token=token, key=key)
with client.flow("from-a-client") as flow:
    for place in range(400):        # a bundle for each: nine frames, and so many transactions
        client.enqueue(work.part.using(key=f"{place}"), journal, place, 0.0)
    print(flow.id, flush=True)
"""

DEATHS = [
    ("last", "amid", 0.004), ("4", "amid", 0.0), ("last", "after", 0.0), ("8", "after", 0.0), ("last", "amid", 0.0),
    ("1", "amid", 0.002), ("last", "amid", 0.012), ("6", "after", 0.0), ("last", "amid", 0.03), ("2", "after", 0.0),
]
"""Of the client: in which of its frames, and whether that is answered by then; and how long it has been under way."""


async def test_the_client_is_killed_between_its_transactions(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """All of its flow runs, or none: the client dies over one of its frames, or just after it."""
    found: list[tuple[str, str, bool]] = []
    async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=3) as rig:
        secrets = rig.credentials()
        for number in range(KILLS):
            journal = tmp_path / f"journal{number}"
            at, when, more_s = DEATHS[number % len(DEATHS)]
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CLIENT, (await rig.urls())[0], secrets["token"], secrets["key"], str(journal),
                at, when, str(more_s), stdout=asyncio.subprocess.PIPE, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": python_path()},
            )
            assert client.stdout is not None
            flow_id = (await client.stdout.readline()).decode().strip()
            assert await client.wait() == -signal.SIGKILL
            for record in await rig.read(rig.keys.flows_open):      # (its lease is over)
                await rig.ledger.commit(Txn((), (Delete(record.key),)))
            await rig.drained()
            ran = [line.job for line in read_journal(journal)]
            flow = rig.client.flow_handle(flow_id)
            try:
                view = await flow.await_(60)
            except rota.FlowUnknown:
                found.append((at, when, False))
                assert not ran
            else:
                found.append((at, when, True))
                assert view.counts == {"ok": 400}
                assert len(ran) == len(set(ran)) == 400
        assert all(whole == (at == "last") for at, when, whole in found if when == "after" or at != "last")
        amid = [whole for at, when, whole in found if (at, when) == ("last", "amid")]
        print(
            f"of {KILLS} flows {sum(whole for *_, whole in found)} were stored as a whole, the others not at all; of "
            f"{len(amid)} whose client died over the last frame, {sum(amid)}"
        )
        await nothing_left(rig)
