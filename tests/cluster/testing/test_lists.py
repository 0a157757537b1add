"""Lists of jobs by place, queue, task, key, label and time, through clients and HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import rota
import rota.testing

from . import lists_tasks as app


@pytest.fixture
def cluster() -> Iterator[rota.testing.MemoryCluster]:
    with rota.testing.MemoryCluster() as made:
        for queue in ("lists", "other"):
            made.client.pause(queue)
        yield made


def test_filters_and_parts(cluster: rota.testing.MemoryCluster) -> None:
    client, lists = cluster.client, app.keyed.using(queue="lists")
    for number in range(7):
        lists.enqueue(f"k{number % 2}")
    app.keyed.using(queue="other").enqueue("k0")
    app.plain.using(queue="lists").enqueue()
    assert {job.task for job in client.jobs("waiting", queue="lists")} == {app.keyed.name, app.plain.name}
    assert len(client.jobs("waiting", key="k0")) == 5
    assert len(client.jobs("waiting", key="k0", queue="lists", task=app.keyed.name)) == 4
    assert len(client.jobs(key="nobody")) == 0
    first = client.jobs("waiting", limit=2)
    assert len(first) == 2 and first.next
    assert len(list(client.each_job("waiting", limit=2))) == 9

    async def all_of_them() -> list[str]:
        async with rota.AsyncClient(cluster.url, **cluster.credentials) as asked:
            return [job.id async for job in asked.each_job("waiting", limit=3, queue="lists")]

    assert len(set(asyncio.run(all_of_them()))) == 8


def test_labels_of_tasks_and_of_enqueues(cluster: rota.testing.MemoryCluster) -> None:
    client = cluster.client
    by_task = app.drawn.using(queue="lists").enqueue()
    by_both = app.drawn.using(queue="other", requires={"big"}, run_after=600).enqueue()
    by_enqueue = app.plain.using(queue="lists", requires={"big"}).enqueue()
    app.plain.using(queue="lists").enqueue()
    after = app.drawn.using(queue="other", after=[by_task]).enqueue()
    assert {job.id for job in client.jobs(label="gpu")} == {by_task.id, by_both.id, after.id}
    assert {job.id for job in client.jobs("waiting", label="big")} == {by_enqueue.id}
    assert {job.id for job in client.jobs("scheduled", label="big", task=app.drawn.name)} == {by_both.id}
    assert not list(client.each_job(label="nobody"))
    assert client.jobs(label="big", key="k").jobs == []


def test_times(cluster: rota.testing.MemoryCluster) -> None:
    client = cluster.client
    app.plain.using(queue="lists").enqueue()
    kept = app.plain.using(keep_finished=3600, keep_result=1).enqueue()
    kept.result(60)
    assert [job.id for job in client.jobs("finished", since=timedelta(minutes=1))] == [kept.id]
    (view,) = client.finished()
    assert view.enqueued_at is not None and 0 <= view.finished_at - view.enqueued_at < 60
    now = datetime.now(UTC)
    assert len(client.jobs(until=now - timedelta(hours=1))) == 0
    assert len(client.jobs("waiting", since=now - timedelta(minutes=1), until=now + timedelta(minutes=1))) == 1
    with pytest.raises(rota.InvalidJob, match="no time zone"):
        client.jobs(since=datetime(2026, 1, 1))
    with pytest.raises(rota.InvalidJob, match="since"):
        client.jobs(since=float("nan"))
