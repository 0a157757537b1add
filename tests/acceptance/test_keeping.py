"""What is kept and for how long, what an enqueue may say of its retries, and how a plain function is stopped: through
the public API, on a real cluster of three nodes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.errors import ConfigError, JobUnknown
from rota.cluster.cli.manage.reset import delete_all
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.state.keys import Keys

from .apps import keeping as app
from .rig import PATIENCE_S, Rig, until

APP = "tests.acceptance.apps.keeping"


async def test_kept_and_stopped(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=3, app=APP) as rig:
        await finished_jobs_are_kept_as_asked(rig)
        await finished_jobs_are_kept_per_job_of_a_bundle(rig)
        await arguments_can_be_looked_at(rig)
        await an_enqueue_says_how_it_is_retried(rig, tmp_path)
        await a_plain_function_is_asked_before_it_is_killed(rig, tmp_path)


async def finished_jobs_are_kept_as_asked(rig: Rig) -> None:
    kept = await rig.client.enqueue(app.kept, 1)
    gone = await rig.client.enqueue(app.plain, 1)
    asked = await rig.client.enqueue(app.plain.using(keep_finished=60, keep_result=0), 2)
    assert [await kept.aresult(PATIENCE_S), await gone.aresult(PATIENCE_S)] == [2, 2]
    await rig.drained()
    views = {view.id: view for view in await rig.client.finished()}
    assert views.keys() == {kept.id, asked.id}
    assert (views[kept.id].task, views[kept.id].queue, views[kept.id].attempts) == (f"{APP}:kept", "default", 1)
    view = await asked.astatus()
    assert (view.place, view.why, view.node) == ("finished", "it ended well", views[asked.id].node)
    assert view.finished_at and view.enqueued_at and view.finished_at >= view.enqueued_at
    assert [view.id for view in await rig.client.finished("elsewhere")] == []
    for record in (*await rig.read(rig.keys.finished), *await rig.read(rig.keys.finished_bodies)):
        assert record.lease             # it goes by itself, when its time is over


async def finished_jobs_are_kept_per_job_of_a_bundle(rig: Rig) -> None:
    """Those of a bundle that ended well, however it was cut up; the others are in the failed set."""
    handles = await rig.client.enqueue_many(app.odd.using(queue="odd"), [(number,) for number in range(30)])
    await rig.drained()
    good = {handle.id for number, handle in enumerate(handles) if number % 2}
    assert {view.id for view in await rig.client.finished("odd")} == good
    failed = {view.id for view in await rig.client.failed("odd")}
    assert failed == {handle.id for handle in handles} - good
    assert await rig.client.delete_failed(queue="odd") == 15


async def arguments_can_be_looked_at(rig: Rig) -> None:
    waiting = await rig.client.enqueue(app.plain.using(run_after=3600), {1, 2})
    failed = await rig.client.enqueue(app.odd, 4)
    kept = await rig.client.enqueue(app.kept, value=5)
    gone = await rig.client.enqueue(app.plain, 6)
    for handle in (failed, kept, gone):
        await asyncio.wait([asyncio.ensure_future(handle.aresult(PATIENCE_S))])
    assert await rig.client.arguments(waiting.id) == (({1, 2},), {})
    assert await rig.client.arguments(failed.id) == ((4,), {})
    assert await rig.client.arguments(kept.id) == ((), {"value": 5})
    with pytest.raises(JobUnknown, match="no arguments of job"):
        await rig.client.arguments(gone.id)
    assert await waiting.acancel() == "cancelled"
    await rig.client.delete_failed(all=True)


async def an_enqueue_says_how_it_is_retried(rig: Rig, folder: Path) -> None:
    """The task's own backoff is an hour."""
    for name, target in (
        ("table", app.patient.using(retry_delay=lambda attempt: 0.01 * attempt)),
        ("numbers", app.patient.using(backoff_base=0.01)),
        ("schedule", app.patient.using(retry_delay=rota.backoff.exponential(base=0.01, max_attempts=3))),
    ):
        handle = await rig.client.enqueue(target, str(folder / name), 3)
        assert await handle.aresult(PATIENCE_S) == 3
    few = await rig.client.enqueue(app.patient.using(retry_delay=lambda n: 0, max_attempts=2), str(folder / "few"), 3)
    with pytest.raises(rota.JobFailed, match=r"failed after 2 attempt"):
        await few.aresult(PATIENCE_S)
    await rig.client.delete_failed(all=True)


async def a_plain_function_is_asked_before_it_is_killed(rig: Rig, folder: Path) -> None:
    journal = folder / "stopped"
    tidy = await rig.client.enqueue(app.tidy, str(journal))
    await until(lambda: journal.exists(), "it runs")
    assert await tidy.acancel() == "requested"
    assert await tidy.aresult(PATIENCE_S) == "tidied up"
    polite = await rig.client.enqueue(app.polite, str(folder / "polite"))
    await until(lambda: (folder / "polite").exists(), "it runs")
    assert await polite.acancel() == "requested"
    with pytest.raises(rota.JobCancelled):
        await polite.aresult(PATIENCE_S)
    deaf = await rig.client.enqueue(app.deaf, str(folder / "deaf"))
    await until(lambda: (folder / "deaf").exists(), "it runs")
    assert await deaf.acancel() == "requested"
    with pytest.raises(rota.JobCancelled):
        await deaf.aresult(PATIENCE_S)


async def test_old_failed_jobs_are_dropped_where_asked(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """By whoever is master, also by the next one; and it says so."""
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, app=APP, keep_failed_s=2.0) as rig:
        handles = [await rig.client.enqueue(app.odd.using(queue=name), 2) for name in ("a", "b")]
        await until(lambda: _failed(rig, 2), "both have failed")
        rig.kill_node(await rig.master())
        await until(lambda: _failed(rig, 0), "they are dropped")
        assert not await rig.read(rig.keys.failures)
        said = [re.findall(r"dropped (\d+) failed jobs", rig.log(name)) for name in rig.guards]
        assert sum(int(number) for numbers in said for number in numbers) == len(handles)


async def _failed(rig: Rig, count: int) -> bool:
    return len(await rig.read(rig.keys.failed)) == count


async def test_reset_forgets_one_cluster_and_only_while_nobody_is_there(
    etcd: Any, cluster_name: str, tmp_path: Path
) -> None:
    other = Keys(f"{cluster_name}-other")
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=1, app=APP) as rig:
        await rig.ledger.commit(Txn((), (Put(other.tail("q"), b"1"),)))
        await rig.client.enqueue(app.plain.using(run_after=3600), 1)
        with pytest.raises(ConfigError, match="has nodes: stop them first"):
            await delete_all(rig.ledger, rig.keys)
        assert await rig.read(rig.keys.scheduled)
        rig.guards["node0"].terminate()
        await until(lambda: rig.guards["node0"].poll() is not None, "the node has left")
        assert await delete_all(rig.ledger, rig.keys) >= 3
        assert not await rig.read(rig.keys.root) and not await rig.read(rig.keys.data)
        assert await rig.read(other.tails)
