"""Jobs that wait for jobs, through the clients, on a cluster in memory whose time travels."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from types import CoroutineType
from typing import Any

import pytest

import rota
from rota.client.ids import job_id, parse_job_id
from rota.client.model import ResultEntry, Results
from rota.client.wire.codec import encode_results
from rota.cluster.ledger.ledger import Delete, Put, Txn, prefix_end
from rota.testing import MemoryCluster, inline

from . import flow_tasks as app


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    app.broken.clear()
    app.gate.set()
    with MemoryCluster() as made:
        yield made
    app.gate.set()


def below(cluster: MemoryCluster, prefix: bytes) -> list[str]:
    page = cluster._call(cluster._ledger.read(prefix, prefix_end(prefix), keys_only=True))
    return [record.key[len(prefix):].decode() for record in page.records]


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def why(job: rota.JobHandle[Any], text: str) -> bool:
    view = job.status()
    return view.place == "awaiting" and text in view.why


def test_results_stand_in_the_place_of_handles(cluster: MemoryCluster) -> None:
    app.gate.clear()
    a, b = app.part.enqueue("a"), app.part.enqueue("b")
    later = app.combine.enqueue(a, [b, {"of": a}], "plain", named=(b, 1))
    last = app.acombine.enqueue([later, a], {"x": b})
    assert later.status().place == "awaiting" and b.id in later.status().why
    app.gate.set()
    assert later.result(60) == ["A", ["B", {"of": "A"}], "plain", ("B", 1)]
    assert last.result(60) == [later.result(), "A", "B"]


def test_what_has_ended_before_the_enqueue_counts(cluster: MemoryCluster) -> None:
    a, silent = app.part.enqueue("a"), app.silent.enqueue("s")
    a.result(60)
    cluster.settle()
    assert app.combine.enqueue(a).result(60) == ["A"]
    assert app.finish.using(after=[a, silent]).enqueue().result(60) == "finished"
    assert app.finish.using(after=a.id).enqueue("by id").result(60) == "by id"


def test_an_empty_group_fires_at_once(cluster: MemoryCluster) -> None:
    none = app.part.enqueue_many([])
    assert app.acombine.enqueue(none).result(60) == []
    assert app.finish.using(after=[]).enqueue().result(60) == "finished"
    assert app.finish.using(after=none).enqueue().result(60) == "finished"


def test_a_fan_in_fires_once_and_leaves_nothing(cluster: MemoryCluster) -> None:
    """Several bundles, a part of them single jobs, some there twice."""
    parts = app.part.enqueue_many([(f"{number}",) for number in range(150)])
    single = app.part.enqueue("single")
    total = app.acombine.enqueue([parts, single, parts[7]])  # type: ignore[arg-type]
    after = app.finish.using(after=[total, *parts]).enqueue()
    assert total.result(60) == [[f"{number}" for number in range(150)], "SINGLE", "7"]
    assert after.result(60) == "finished"
    cluster.settle()
    assert app.events.count("finished") == 1
    assert below(cluster, cluster._keys.awaiting) == []
    of_the_master(cluster, "sweep")
    assert below(cluster, cluster._keys.inputs) == []


def of_the_master(cluster: MemoryCluster, what: str) -> None:
    """The master does it every so often: now."""
    async def now() -> None:
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "master-dependants"]
        coroutine = task.get_coro()
        assert isinstance(coroutine, CoroutineType)
        await getattr(coroutine.cr_frame.f_locals["self"], what)()

    cluster._call(now())


def test_a_chain(cluster: MemoryCluster) -> None:
    number = app.add.enqueue(0)
    for _ in range(40):
        number = app.add.enqueue(number)  # type: ignore[arg-type]
    assert number.result(60) == 41


def test_many_wait_for_one_and_each_of_enqueue_many_for_its_own(cluster: MemoryCluster) -> None:
    app.gate.clear()
    a, b = app.part.enqueue("a"), app.part.enqueue("b")
    waiting = app.combine.enqueue_many([(a,), (1,), (2,), (b, a), (3,)])
    all_after = app.finish.using(after=a).enqueue_many([("x",), ("y",)])
    app.gate.set()
    assert waiting.results(60) == [["A"], [1], [2], ["B", "A"], [3]]
    assert all_after.results(60) == ["x", "y"]


def test_a_child_that_fails_blocks_and_its_retry_revives(cluster: MemoryCluster) -> None:
    app.broken.add("b")
    a, b = app.part.enqueue("a"), app.part.enqueue("b")
    total = app.combine.enqueue(a, b)
    until(lambda: why(total, "b is broken"))
    assert f"rota failed retry --id {b.id}" in total.status().why
    cluster.settle()
    app.broken.clear()
    cluster.client.retry_failed(ids=[b.id])
    assert total.result(60) == ["A", "B"]


def test_a_failed_child_that_is_deleted_never_counts_as_well(cluster: MemoryCluster) -> None:
    app.broken.add("s")
    child = app.silent.enqueue("s")
    after = app.finish.using(after=child).enqueue()
    until(lambda: why(after, "failed"))
    cluster.client.delete_failed(ids=[child.id])
    keys = cluster._keys
    until(lambda: not below(cluster, keys.failed))
    results = keys.bundle_results(parse_job_id(child.id)[0])
    cluster._call(cluster._ledger.commit(Txn((), (Delete(results, prefix_end(results)),))))  # its time is over
    app.part.enqueue("other").result(60)
    cluster.settle()
    assert after.status().place == "awaiting" and "finished" not in app.events
    assert after.cancel() == "cancelled"
    with pytest.raises(rota.JobCancelled):
        after.result(60)


def test_a_child_that_fails_cancels(cluster: MemoryCluster) -> None:
    app.broken.add("a")
    a = app.part.enqueue("a")
    total = app.combine.using(on_upstream="cancel").enqueue(a)
    further = app.finish.using(after=total, on_upstream="cancel").enqueue()
    with pytest.raises(rota.JobCancelled, match=f"job {a.id}, which it waited for, failed"):
        total.result(60)
    with pytest.raises(rota.JobCancelled, match=f"job {total.id}, which it waited for, was cancelled"):
        further.result(60)


def test_or_runs_with_the_error_in_place(cluster: MemoryCluster) -> None:
    app.broken.add("a")
    a, b = app.part.enqueue("a"), app.part.enqueue("b")
    app.kinds.using(on_upstream="run").enqueue(a, b)
    gone = app.part.using(run_after=60).enqueue("later")
    cancelled = app.kinds.using(on_upstream="run").enqueue(gone)
    gone.cancel()
    assert cancelled.result(60) == ["JobCancelled"]
    cluster.settle()
    assert app.events == ["b", ["JobFailed", "str"], ["JobCancelled"]] or sorted(map(str, app.events)) == sorted(
        ["b", "['JobFailed', 'str']", "['JobCancelled']"]
    )


@pytest.mark.parametrize("silent", [False, True])
def test_a_child_that_is_cancelled_blocks(cluster: MemoryCluster, silent: bool) -> None:
    child = (app.silent if silent else app.part).using(run_after=60).enqueue("later")
    after = app.finish.using(after=child).enqueue()
    assert child.cancel() == "cancelled"
    until(lambda: why(after, "was cancelled"))
    cluster.settle()
    assert "finished" not in app.events


def test_a_child_that_expires_blocks_and_what_waits_expires_too(cluster: MemoryCluster) -> None:
    child = app.part.using(run_after=60, expires=1).enqueue("expires")
    after = app.finish.using(after=child).enqueue()
    cluster.travel(seconds=61)
    until(lambda: why(after, "expired"))
    other = app.part.using(run_after=60).enqueue("later")
    late = app.finish.using(after=other, expires=1).enqueue()
    cluster.travel(seconds=2)
    of_the_master(cluster, "expire")
    with pytest.raises(rota.JobExpired):
        late.result(60)


def test_a_child_that_is_cancelled_while_it_runs_has_not_ended_well(cluster: MemoryCluster) -> None:
    child = app.slow.using(keep_result=0).enqueue()
    until(lambda: child.status().place == "running")
    after = app.finish.using(after=child).enqueue()
    child.cancel()
    until(lambda: why(after, "was cancelled"))


def test_a_result_that_is_wanted_and_not_kept_is_said(cluster: MemoryCluster) -> None:
    child = app.silent.enqueue("s")
    cluster.settle()
    total = app.combine.enqueue(child)
    until(lambda: why(total, "its result is not kept"))
    assert app.combine.using(on_upstream="run").enqueue(child).status().id


def test_results_outlive_their_time_for_who_waits(cluster: MemoryCluster) -> None:
    app.gate.clear()
    early, late = app.add.using(keep_result=1).enqueue(1), app.part.enqueue("late")
    total = app.combine.enqueue(early, late)
    until(lambda: "1 of 2 have ended" in total.status().why)
    results = cluster._keys.results
    cluster._call(cluster._ledger.commit(Txn((), (Delete(results, prefix_end(results)),))))
    app.gate.set()
    assert total.result(60) == [2, "LATE"]


def test_a_delay_counts_from_the_enqueue_and_after_its_children(cluster: MemoryCluster) -> None:
    app.gate.clear()
    a = app.part.enqueue("a")
    after = app.finish.using(after=a, run_after=60).enqueue()
    app.gate.set()
    until(lambda: after.status().place == "scheduled")
    cluster.travel(seconds=61)
    assert after.result(60) == "finished"


def test_a_unique_job_waits_too_and_frees_its_key(cluster: MemoryCluster) -> None:
    app.gate.clear()
    a = app.part.enqueue("a")
    unique = app.finish.using(after=a, unique_key="one")
    first, second = unique.enqueue(), unique.enqueue()
    third = unique.using(on_conflict="replace").enqueue("newer")
    assert first == second and third != first and not third.existing
    with pytest.raises(rota.JobCancelled, match="taken its place"):
        first.result(60)
    app.gate.set()
    assert third.result(60) == "newer"
    assert below(cluster, cluster._keys.uniques) == []


def test_a_dependant_that_fails_is_retried_with_what_it_got(cluster: MemoryCluster) -> None:
    a = app.part.enqueue("a")
    fragile = app.fragile.enqueue(a)
    with pytest.raises(rota.JobFailed):
        fragile.result(60)
    app.events.append("mended")
    cluster.client.retry_failed(ids=[fragile.id])
    until(lambda: fragile.status().place == "finished")
    assert app.events[-1] == "fragile A"


def test_what_cannot_be_waited_for_is_refused(cluster: MemoryCluster) -> None:
    a = app.part.enqueue("a")
    with pytest.raises(rota.InvalidJob, match="unknown in cluster"):
        app.finish.using(after="k3f9q2m7xa5t-0000001f/0").enqueue()
    two = app.part.enqueue_many([("a",), ("b",)])
    assert app.finish.using(after=two).enqueue().result(60) == "finished"
    bundle, _ = parse_job_id(two[0].id)
    with pytest.raises(rota.InvalidJob, match="never was"):
        app.finish.using(after=job_id(bundle, 2)).enqueue()
    with pytest.raises(rota.InvalidJob, match="not a valid job id"):
        app.finish.using(after="no such thing")
    with pytest.raises(rota.InvalidJob, match="is no job"):
        app.finish.using(after=[3])  # type: ignore[list-item]
    with pytest.raises(rota.InvalidJob, match="on_upstream"):
        app.finish.using(on_upstream="explode")  # type: ignore[arg-type]
    with pytest.raises(rota.InvalidJob, match="stored durably"):
        app.finish.using(after=a, level="delayed").enqueue()
    with pytest.raises(rota.InvalidJob, match="level 'none'"):
        app.combine.enqueue(app.finish.using(level="none").enqueue())
    many = [rota.JobHandle(cluster.client, f"k3f9q2m7xa5t-{number:08x}", 0) for number in range(10_001)]
    with pytest.raises(rota.InvalidJob, match="10,001"):
        app.finish.using(after=many)


def test_nothing_unsigned_gets_in(cluster: MemoryCluster) -> None:
    """Who can write to the store, and has no key, puts a result of his own among those that a job waits for."""
    app.gate.clear()
    a, b = app.part.enqueue("a"), app.part.enqueue("b")
    total = app.combine.enqueue(a, b)
    for upstream in (parse_job_id(job.id)[0] for job in (a, b)):      # (the last of them comes with the release, anew)
        forged = Results(upstream, [ResultEntry(0, "ok", b"\x80\x05K\x07.")])
        put = Put(cluster._keys.input(parse_job_id(total.id)[0], upstream, 1), encode_results(forged))
        cluster._call(cluster._ledger.commit(Txn((), (put,))))
    app.gate.set()
    until(lambda: total.status().place == "failed")
    assert "not what a node signed" in total.status().error


def test_over_http_and_the_list(cluster: MemoryCluster) -> None:
    app.gate.clear()
    a = app.part.enqueue("a")
    asked = {"task": app.finish.name, "after": [a.id], "on_upstream": "cancel"}
    request = urllib.request.Request(
        f"{cluster.url}/v1/jobs", json.dumps(asked).encode(), {"Authorization": f"Bearer {cluster.token}"}
    )
    with urllib.request.urlopen(request) as answer:
        after = cluster.client.handle(json.load(answer)["id"])
    assert [view.id for view in cluster.client.jobs("awaiting")] == [after.id]
    assert f"it waits for job {a.id}" in cluster.client.jobs("awaiting").jobs[0].why
    app.gate.set()
    assert after.result(60) == "finished"
    assert cluster.client.jobs("awaiting").jobs == []


def test_many_are_cancelled_with_a_queue(cluster: MemoryCluster) -> None:
    app.gate.clear()
    a = app.part.enqueue("a")
    after = app.finish.using(after=a).enqueue()
    cluster.client.cancel_many(task=app.finish.name)
    with pytest.raises(rota.JobCancelled):
        after.result(60)


async def test_from_coroutines_and_from_jobs(cluster: MemoryCluster) -> None:
    a = await app.part.aenqueue("a")
    assert await (await app.combine.aenqueue(a, [a])) == ["A", ["A"]]
    async with rota.AsyncClient(cluster.url, **cluster.credentials) as client:
        b = await client.enqueue(app.part, "b")
        assert await (await client.enqueue(app.combine, b)) == ["B"]


def test_inline_runs_them_in_their_order() -> None:
    app.broken.clear()
    app.gate.set()
    with inline():
        a = app.part.enqueue("a")
        assert app.combine.enqueue(a, [a]).result() == ["A", ["A"]]
        assert app.finish.using(after=[a]).enqueue().result() == "finished"
        app.broken.add("b")
        b = app.part.enqueue("b")
        blocked = app.combine.enqueue(b)
        assert blocked.status().place == "awaiting"
        with pytest.raises(rota.ResultTimeout, match="b is broken"):
            blocked.result()
        with pytest.raises(rota.JobCancelled):
            app.combine.using(on_upstream="cancel").enqueue(b).result()
        assert app.kinds.using(on_upstream="run").enqueue(b, a).result() == ["JobFailed", "str"]
