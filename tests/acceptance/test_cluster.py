"""The whole path through real processes: enqueue, claim, run, outcome, result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.ids import parse_job_id

from .apps import work
from .rig import PATIENCE_S, Rig, read_journal, until


async def test_the_whole_path(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """One cluster, many promises: starting it costs more than each of them."""
    async with Rig(etcd.endpoint, cluster_name, tmp_path) as rig:
        await arguments_arrive_as_enqueued(rig)
        await failures_carry_their_traceback(rig)
        await code_is_shipped_by_value(rig)
        await jobs_enqueue_jobs(rig)
        await a_dying_runner_fails_only_its_job(rig)
        await what_cannot_be_pickled_is_said_so(rig)
        await many_jobs_run_once_each(rig, tmp_path / "journal")
        await the_store_is_left_clean(rig)


async def arguments_arrive_as_enqueued(rig: Rig) -> None:
    given = ((1, 2.5, "ü", b"\x00\xff", None, {("a", 1): {3, 4}}, frozenset({5})), {"key": [1, (2,)], "big": 10**40})
    handle = await rig.client.enqueue(work.echo, *given[0], **given[1])
    assert await handle.aresult(PATIENCE_S) == given


async def failures_carry_their_traceback(rig: Rig) -> None:
    handle = await rig.client.enqueue(work.boom, "it broke")
    with pytest.raises(rota.JobFailed) as caught:
        await handle.aresult(PATIENCE_S)
    assert "ValueError: it broke" in caught.value.error
    assert "work.py" in caught.value.traceback
    (failed,) = [view for view in await rig.client.failed() if view.id == handle.id]
    assert failed.error == caught.value.error
    assert (await rig.client.ajob(handle.id)).place == "failed"


async def code_is_shipped_by_value(rig: Rig) -> None:
    factor = 7
    handle = await rig.client.enqueue(lambda number: number * factor, 6)
    assert await handle.aresult(PATIENCE_S) == 42


async def jobs_enqueue_jobs(rig: Rig) -> None:
    for task in (work.parent, work.aparent):
        handle = await rig.client.enqueue(task, 3)
        for job in await handle.aresult(PATIENCE_S):
            await until(lambda job=job: finished(rig, job), f"{job} has ended")


async def finished(rig: Rig, job: str) -> bool:
    return (await rig.client.ajob(job)).place == "finished"


async def a_dying_runner_fails_only_its_job(rig: Rig) -> None:
    fine = [await rig.client.enqueue(work.echo, number) for number in range(10)]
    for how in ("exit", "segfault", "kill"):
        handle = await rig.client.enqueue(work.die, how)
        with pytest.raises(rota.JobFailed, match="runner died"):
            await handle.aresult(PATIENCE_S)
    for number, job in enumerate(fine):
        assert await job.aresult(PATIENCE_S) == ((number,), {})


async def what_cannot_be_pickled_is_said_so(rig: Rig) -> None:
    with pytest.raises(rota.NotSerializable):
        await rig.client.enqueue(work.echo, (number for number in range(3)))
    handle = await rig.client.enqueue(work.unpicklable)
    with pytest.raises(rota.JobFailed, match="generator"):
        await handle.aresult(PATIENCE_S)
    handle = await rig.client.enqueue(work.raise_awkward)
    with pytest.raises(rota.JobFailed, match="Awkward"):
        await handle.aresult(PATIENCE_S)
    with pytest.raises(rota.JobTooLarge):
        await rig.client.enqueue(work.echo, b"x" * 300_000)
    handle = await rig.client.enqueue(work.large, 300_000)
    with pytest.raises(rota.JobFailed, match="bytes"):
        await handle.aresult(PATIENCE_S)
    with pytest.raises(rota.UnknownTask, match="no:such"):
        await rig.client.enqueue("no:such")


async def many_jobs_run_once_each(rig: Rig, journal: Path) -> None:
    handles = list(await rig.client.enqueue_many(work.nap, [(str(journal),) for _ in range(300)]))
    handles += list(await rig.client.enqueue_many(work.anap, [(str(journal),) for _ in range(300)]))
    for handle in handles:
        await handle.aresult(2 * PATIENCE_S)
    starts = [line.job for line in read_journal(journal) if line.what == "start"]
    assert sorted(starts) == sorted(handle.id for handle in handles)


async def the_store_is_left_clean(rig: Rig) -> None:
    """Of a job that has ended well its result is left, and the receipt of its enqueue, both for a time."""
    await (await rig.client.enqueue(work.echo, "the last")).aresult(PATIENCE_S)
    await rig.drained()
    failed = {parse_job_id(view.id)[0].encode() for view in await rig.client.failed()}
    for prefix in (rig.keys.bodies, rig.keys.tails, rig.keys.cancels, rig.keys.failures):
        assert not [record.key for record in await rig.read(prefix) if not any(id_ in record.key for id_ in failed)]
