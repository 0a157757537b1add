"""Unique jobs through the clients, on a cluster in memory whose time travels."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

import rota
from rota.cluster.ledger.ledger import prefix_end
from rota.testing import MemoryCluster

from . import unique_tasks as app


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    app.gate.set()
    with MemoryCluster() as made:
        yield made


def held(cluster: MemoryCluster) -> list[str]:
    """The unique keys that are there."""
    prefix = cluster._keys.uniques
    page = cluster._call(cluster._ledger.read(prefix, prefix_end(prefix), keys_only=True))
    return [record.key[len(prefix):].decode() for record in page.records]


def test_of_jobs_that_are_alike_there_is_one(cluster: MemoryCluster) -> None:
    later = app.sync_customer.using(run_after=60)
    first = later.enqueue("ann")
    again = later.enqueue("ann", full=True)
    other = later.enqueue("bob")
    assert again == first != other
    assert (first.existing, again.existing, other.existing) == (False, True, False)
    assert held(cluster) == [f"{later.name}/customer=\"ann\"", f"{later.name}/customer=\"bob\""]
    cluster.travel(seconds=61)
    assert again.result(60) == "ann"
    assert app.events == ["sync ann False", "sync bob False"] and held(cluster) == []
    assert not app.sync_customer.enqueue("ann").existing


def test_a_conflict_can_be_an_error(cluster: MemoryCluster) -> None:
    there = app.sync_customer.using(run_after=60).enqueue("ann")
    with pytest.raises(rota.JobExists, match=there.id) as caught:
        app.sync_customer.using(on_conflict="raise").enqueue("ann")
    assert caught.value.job_id == there.id


def test_all_arguments_count_with_their_defaults(cluster: MemoryCluster) -> None:
    later = app.all_arguments.using(run_after=60)
    assert later.enqueue(1).id == later.enqueue(number=1, words=()).id != later.enqueue(1, ("a",)).id
    with pytest.raises(rota.InvalidJob, match="as JSON"):
        later.enqueue(object())  # type: ignore[arg-type]


def test_it_is_held_through_retries_and_freed_when_it_has_failed(cluster: MemoryCluster) -> None:
    first = app.all_arguments.enqueue(-1)
    cluster.settle()
    assert app.events == ["all -1"] and app.all_arguments.enqueue(-1) == first
    cluster.travel(minutes=5)
    assert first.status().place == "failed" and held(cluster) == []
    second = app.all_arguments.enqueue(-1)
    assert not second.existing
    cluster.client.retry_failed(ids=[first.id])         # its key is the second's: it stays where it is
    assert first.status().place == "failed"
    second.cancel()
    assert held(cluster) == []
    cluster.client.retry_failed(ids=[first.id])
    assert len(held(cluster)) == 1 or first.status().place == "failed"


def test_a_burst_of_enqueues_becomes_one_with_the_last_arguments(cluster: MemoryCluster) -> None:
    soon = app.debounced.using(run_after=30)
    handles = [soon.enqueue("Doc", text) for text in ("a", "b", "c")]
    assert [handle.existing for handle in handles] == [False] * 3 and len(set(handles)) == 3
    with pytest.raises(rota.JobCancelled, match=r"job .* has taken its place"):
        handles[0].result(60)
    cluster.travel(seconds=31)
    assert handles[2].result(60) == "c" and app.events == ["Doc c"] and held(cluster) == []


def test_what_has_begun_is_not_replaced_and_keeps_no_other_away(cluster: MemoryCluster) -> None:
    app.gate.clear()
    first = app.debounced.enqueue("doc", "a")
    while not app.events:
        assert first.status().place != "failed"
    second = app.debounced.using(run_after=3600).enqueue("doc", "b")
    assert second != first and not second.existing
    app.gate.set()
    assert first.result(60) == "a"
    assert app.debounced.using(run_after=3600, on_conflict="existing").enqueue("doc") == second


def test_a_key_can_be_given_and_held_for_a_time(cluster: MemoryCluster) -> None:
    hourly = app.plain.using(unique_key="report", unique_for=3600)
    first = hourly.enqueue("a")
    assert first.result(60) == "a"
    assert hourly.enqueue("b") == first
    cluster.travel(minutes=61)
    assert hourly.enqueue("c").result(60) == "c"


def test_many_at_once(cluster: MemoryCluster) -> None:
    async def crowd() -> set[str]:
        handles = await asyncio.gather(*[
            app.sync_customer.using(run_after=60).aenqueue(f"c{number % 3}") for number in range(60)
        ])
        return {handle.id for handle in handles}

    assert len(asyncio.run(crowd())) == 3
    handles = app.sync_customer.using(run_after=60).enqueue_many([("c1",), ("c4",), ("c4",)])
    assert [handle.existing for handle in handles] == [True, False, True]


def test_a_job_that_nobody_has_any_more_keeps_no_other_away(cluster: MemoryCluster) -> None:
    first = app.sync_customer.using(run_after=60).enqueue("ann")
    keys = cluster._keys
    body = cluster._call(cluster._ledger.read(keys.bodies, prefix_end(keys.bodies), keys_only=True)).records
    from rota.cluster.ledger.ledger import Delete, Txn
    cluster._call(cluster._ledger.commit(Txn((), tuple(Delete(record.key) for record in body))))
    second = app.sync_customer.enqueue("ann")
    assert second != first and second.result(60) == "ann"


def test_an_idempotency_key_names_the_job(cluster: MemoryCluster) -> None:
    order = app.plain.using(idempotency_key="order-17", idempotency_window=86_400)
    first = order.enqueue("a")
    assert first.result(60) == "a"
    cluster.travel(hours=3)
    assert order.enqueue("a") == first and app.events == ["plain a"]
    with pytest.raises(rota.InvalidJob, match="with other contents"):
        order.enqueue("b")
    with pytest.raises(rota.InvalidJob, match="names one job"):
        order.enqueue_many([("a",), ("b",)])


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(rota.ConfigError, match="does not name its arguments"):
        rota.task(name="m:f", unique="customer")(lambda number: None)
    with pytest.raises(rota.ConfigError, match="go with unique"):
        rota.task(name="m:f", unique_for=5)(lambda number: None)
    with pytest.raises(rota.ConfigError, match="stored durably"):
        rota.task(name="m:f", unique=True, level="none")(lambda number: None)
    with pytest.raises(rota.InvalidJob, match="give only one of them"):
        app.plain.using(unique_for=5, unique_until="begun", unique_key="k")
    with pytest.raises(rota.InvalidJob, match="on_conflict"):
        app.plain.using(on_conflict="whatever", unique_key="k")  # type: ignore[arg-type]


def test_from_everywhere(cluster: MemoryCluster) -> None:
    """A worker as a class, a coroutine, a task's name, HTTP and a shell: one key, one job."""
    there = app.Sync.perform_in(10, "ann")
    assert app.Sync.perform_async("ann", full=True) == there
    name, key = app.Sync.task.name, 'customer="ann"'

    async def of_a_coroutine() -> bool:
        async with rota.AsyncClient(cluster.url, **cluster.credentials) as client:
            handle = await client.enqueue(app.Sync.task, "ann")
            return handle.existing and handle.id == there.id

    assert asyncio.run(of_a_coroutine())
    assert cluster.client.enqueue(rota.NamedTask(name).using(unique_key=key), "ann").existing
    status, _, page = posted(cluster, {"task": name, "args": ["ann"], "unique_key": key})
    assert (status, page["id"], page["existing"]) == (200, there.id, True)
    status, location, page = posted(cluster, {"task": name, "args": ["ann"], "unique_key": key, "on_conflict": "raise"})
    assert (status, location, page["error"]) == (409, f"/v1/jobs/{there.id}", "JobExists")
    status, _, page = posted(cluster, {"task": name, "args": ["ann"], "unique_key": "", "on_conflict": "raise"})
    assert (status, page["error"]) == (400, "InvalidJob")
    asked = ["enqueue", name, "ann", "--unique-key", key, "--url", cluster.url, "--json"]
    said = subprocess.run(
        [sys.executable, "-m", "rota.cluster.cli", *asked], capture_output=True, text=True, timeout=60
    ).stdout
    assert json.loads(said) == {"id": there.id, "existing": True}


def posted(cluster: MemoryCluster, job: dict[str, object]) -> tuple[int, str, dict[str, object]]:
    """(status, Location, page) of an enqueue over HTTP."""
    headers = {"Authorization": f"Bearer {cluster.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{cluster.url}/v1/jobs", json.dumps(job).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers["Location"], json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Location"], json.loads(error.read())
