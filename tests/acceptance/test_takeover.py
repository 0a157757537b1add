"""Nodes die and freeze under load: nothing is lost, and the zombie does no harm."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from .apps import work
from .rig import PATIENCE_S, Rig, alive, read_journal, until

JOBS = 40


async def enqueue_naps(rig: Rig, journal: Path, count: int = JOBS, seconds: float = 0.1) -> list[Any]:
    half = count // 2
    handles = list(await rig.client.enqueue_many(work.nap, [(str(journal), seconds)] * half))
    handles += list(await rig.client.enqueue_many(work.anap, [(str(journal), seconds)] * (count - half)))
    return handles


async def all_end(handles: list[Any]) -> None:
    for handle in handles:
        await handle.aresult(3 * PATIENCE_S)


async def holds_work(rig: Rig, identity: str) -> None:
    async def held() -> bool:
        return bool(await rig.read(rig.keys.claims_of(identity)))

    await until(held, f"{identity} holds claims")


async def moved_s(rig: Rig, identity: str) -> float:
    """How long it takes until nothing lies under a node any more."""
    began = time.monotonic()

    async def moved() -> bool:
        return not await rig.read(rig.keys.claims_of(identity))

    await until(moved, f"the claims of {identity} were taken over")
    return time.monotonic() - began


async def test_kill_9_of_nodes_and_masters(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """Its guard revokes the lease, so nobody waits for that to run out. (Under a second is promised, and asked for on a
    quiet machine; the bound is for a busy one.)"""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=8) as rig:
        for victim_is_master in (False, True):
            handles = await enqueue_naps(rig, journal)
            victim = await rig.master() if victim_is_master else await rig.other_than_master()
            await holds_work(rig, victim)
            runners = rig.runner_pids(victim)
            rig.kill_node(victim)
            assert await moved_s(rig, victim) < 3.0
            await until(lambda runners=runners: not any(alive(pid) for pid in runners), "its runners are dead", 5)
            await all_end(handles)
            assert victim not in await rig.members()
            await rig.joined([rig.start()])
        await rig.drained()


async def test_a_lost_machine(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """Guard and all: only the lease's end tells. (A second after it is promised; the bound is for a busy machine.)"""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path) as rig:
        handles = await enqueue_naps(rig, journal, seconds=0.3)
        victim = await rig.master()
        await holds_work(rig, victim)
        rig.kill_machine(victim)
        assert await moved_s(rig, victim) < 2.0 + 1.0 + 2.0
        await all_end(handles)
        await rig.drained()


async def test_a_frozen_node_does_no_harm(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """SIGSTOP of the node's process past its lease: the guard kills its runners at the deadline, others take over, and
    after SIGCONT nothing that it says is accepted."""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, sync=1, capacity=10) as rig:
        for freeze_master in (False, True):
            handles = await enqueue_naps(rig, journal, count=60, seconds=0.2)
            victim = await rig.master() if freeze_master else await rig.other_than_master()
            await holds_work(rig, victim)
            pid = rig.node_pid(victim)
            runners = rig.runner_pids(victim)
            os.kill(pid, signal.SIGSTOP)
            await until(lambda runners=runners: not any(alive(runner) for runner in runners), "runners are dead", 10)

            async def gone(victim: str = victim) -> bool:
                return victim not in await rig.members() and not await rig.read(rig.keys.claims_of(victim))

            await until(gone, "its claims were taken over")
            os.kill(pid, signal.SIGCONT)
            await all_end(handles)
            name = rig.name_of(victim)
            await rig.joined([name])        # as a new member
            assert victim not in await rig.members()
        await rig.drained()
    check_journal(journal)


async def test_a_frozen_machine_does_no_harm(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """The whole tree, guard included, stands still past its lease."""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path) as rig:
        handles = await enqueue_naps(rig, journal, count=60, seconds=0.2)
        victim = await rig.master()
        await holds_work(rig, victim)
        pids = [rig.guards[rig.name_of(victim)].pid, rig.node_pid(victim), *rig.runner_pids(victim)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

        async def gone() -> bool:
            return victim not in await rig.members() and not await rig.read(rig.keys.claims_of(victim))

        await until(gone, "its claims were taken over")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):       # the guard wakes first, and ends the others
                os.kill(pid, signal.SIGCONT)
        await all_end(handles)
        await rig.joined([rig.name_of(victim)])
        await rig.drained()


async def test_sigterm_hands_over_and_uses_up_no_attempt(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path) as rig:
        handles = await enqueue_naps(rig, journal, count=100, seconds=0.2)
        victim = await rig.master()
        await holds_work(rig, victim)
        guard = rig.guards[rig.name_of(victim)]
        began = time.monotonic()
        guard.terminate()

        async def another() -> bool:
            return await rig.master() not in ("", victim)

        await until(another, "another is master")
        handed_over_s = time.monotonic() - began
        await until(lambda: guard.poll() is not None, "the node has left")
        assert guard.returncode == 0
        assert handed_over_s < 2.0, handed_over_s      # generous: 0.5 s is asked for on an idle machine
        await all_end(handles)
        await rig.drained()
    starts = [line.job for line in read_journal(journal) if line.what == "start"]
    assert len(starts) == len(set(starts)) == 100
    assert {line.attempt for line in read_journal(journal)} == {1}


def check_journal(journal: Path) -> None:
    """Per job: the fencing tokens of its starts grow, and it ended at least once."""
    starts: dict[str, list[int]] = {}
    ends: set[str] = set()
    for line in read_journal(journal):
        if line.what == "start":
            starts.setdefault(line.job, []).append(line.fence)
        else:
            ends.add(line.job)
    for job, fences in starts.items():
        assert fences == sorted(set(fences)), (job, fences)
    assert ends == set(starts)
