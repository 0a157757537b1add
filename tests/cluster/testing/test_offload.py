"""Arguments and results over the limit: in an object store, with a claim check that is signed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rota
from rota.client.api.sweeping import sweep
from rota.client.errors import InvalidJob, JobTooLarge
from rota.client.wire import offload, sealing
from rota.client.wire.codec import payloads
from rota.client.wire.keyring import Keyring
from rota.cluster.cli.app import app as command
from rota.cluster.dashboard.arguments import described
from rota.cluster.ledger.ledger import Delete, Txn, prefix_end
from rota.testing import MemoryCluster

from . import offload_tasks as app

LARGE = os.urandom(300_000)


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        yield made
    offload.use(None)
    sealing.use(None)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"file://{tmp_path}/objects" if request.param == "file" else f"memory://{tmp_path}"
    offload.use(url)
    return url


def test_large_arguments_and_results(cluster: MemoryCluster, store: str) -> None:
    assert app.size.enqueue(LARGE).result(timeout=60) == len(LARGE)
    assert app.both.enqueue(LARGE).result(timeout=60) == LARGE[::-1]
    sizes = app.size.enqueue_many([(b"small",), (LARGE,), (b"small",), (LARGE,), (LARGE,)])
    assert sizes.results(timeout=60) == [5, len(LARGE), 5, len(LARGE), len(LARGE)]
    assert app.size.enqueue(app.make.enqueue(500_000)).result(timeout=60) == 500_000     # a result as an argument
    with rota.pipeline():
        piped = app.size.enqueue(LARGE)
    assert piped.result(timeout=60) == len(LARGE)
    later = app.size.using(run_after=60).enqueue(LARGE)
    assert cluster.client.arguments(later.id) == ((LARGE,), {})
    body = cluster._call(cluster._node.service.body(later.id))
    assert len(body) < 2_000 and offload.is_check(payloads(body)[0]) and "object store" in described(body)


def test_sealed_ones_lie_there_sealed(cluster: MemoryCluster, store: str) -> None:
    sealing.use(Keyring({"k": bytes(range(32))}))
    text = b"a secret " * 40_000
    assert app.both.enqueue(text).result(timeout=60) == text[::-1]
    fs, folder = offload._open()
    held = [fs.cat_file(one["name"]) for one in fs.ls(folder, detail=True)]
    assert len(held) == 2 and not any(b"secret" in data or b"terces" in data for data in held)


def test_a_job_whose_store_is_away_waits_for_it(cluster: MemoryCluster, store: str) -> None:
    handle = app.size.using(max_attempts=1, run_after=1).enqueue(LARGE)
    offload.use(None)
    cluster.travel(seconds=20)
    assert handle.status().place == "scheduled"
    offload.use(store)
    cluster.travel(seconds=20)
    assert handle.result(timeout=60) == len(LARGE)


def test_what_was_changed_or_is_gone_does_not_run(cluster: MemoryCluster, store: str) -> None:
    once = app.size.using(max_attempts=1, run_after=60)
    changed, gone = once.enqueue(LARGE), once.enqueue(LARGE)
    fs, folder = offload._open()
    for one in offload.content().objects:
        if one.job_id == changed.id:
            fs.pipe_file(f"{folder}/{one.name}", LARGE[::-1])
        else:
            offload.delete(one.name)
    cluster.travel(seconds=61)
    with pytest.raises(rota.JobFailed, match="not what was put there"):
        changed.result(timeout=60)
    with pytest.raises(rota.JobFailed, match="not in the object store"):
        gone.result(timeout=60)


def test_a_sweep_takes_what_has_no_job(cluster: MemoryCluster, store: str) -> None:
    """Whatever a job's end was: its object is stray when nothing of it is kept, as is one whose enqueue never came."""
    ended = app.size.enqueue(LARGE)
    waits, cancelled = (app.size.using(run_after=3600).enqueue(LARGE) for _ in range(2))
    cancelled.cancel()
    offload.stored(LARGE, "0123456789ab-00000001", 0, "arguments")      # a client that was killed before its enqueue
    result = app.make.enqueue(400_000)
    cluster.settle()
    status = cluster.client.job

    def left() -> set[str]:
        return {one.job_id for one in offload.content().objects}

    assert sweep(status) == (5, 0)                          # all are young
    assert sweep(status, grace_s=-1) == (4, 1)              # (what has ended is still known)
    assert left() == {ended.id, waits.id, cancelled.id, result.id}
    for area in (cluster._keys.receipts, cluster._keys.results):        # the time that these are kept is over
        cluster._call(cluster._ledger.commit(Txn((), (Delete(area, prefix_end(area)),))))
    assert [handle.status().place for handle in (ended, cancelled, result)] == ["unknown"] * 3
    done = CliRunner().invoke(command, ["offload", "sweep", "--store", store, "--url", cluster.url, "--grace", "0"])
    assert done.exit_code == 0 and "2 objects were deleted, 2 are kept" in done.output
    assert left() == {waits.id, result.id}                  # another job may have been given the result
    assert sweep(status, grace_s=-1, result_s=-1) == (1, 1) and left() == {waits.id}


def test_without_a_store_large_jobs_are_refused(cluster: MemoryCluster) -> None:
    with pytest.raises(JobTooLarge):
        app.size.enqueue(LARGE)
    with pytest.raises(rota.JobFailed, match="limit"):
        app.make.using(max_attempts=1).enqueue(400_000).result(timeout=60)


def test_where_a_claim_check_cannot_stand(cluster: MemoryCluster, store: str) -> None:
    with pytest.raises(JobTooLarge):
        app.size.using(idempotency_key="k").enqueue(LARGE)
    with pytest.raises(InvalidJob, match="template"):
        cluster.client.schedules.put("nightly", app.size, (LARGE,), every=60)
    with pytest.raises(InvalidJob, match="flow"), rota.flow("large"):
        app.size.enqueue(LARGE)
