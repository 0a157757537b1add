"""Queues that take so many waiting jobs only, on a cluster in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import rota
from rota.testing import MemoryCluster

from . import unique_tasks as app
from .test_weight import ask


def enqueued(task: Any, text: str) -> rota.JobHandle[str]:
    """As soon as it is counted that there is room again: a count may be some moments old."""
    end = time.monotonic() + 60
    while True:
        try:
            handle: rota.JobHandle[str] = task.enqueue(text)
        except rota.QueueFull:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return handle


def test_an_enqueue_beyond_it_is_refused_and_there_is_room_again() -> None:
    with MemoryCluster() as cluster:
        cluster.client.pause("few")
        settings = cluster.client.set_queue("few", max_waiting=3)
        assert (settings.max_waiting, settings.on_full) == (3, "refuse")
        few = app.plain.using(queue="few")
        handles = [few.enqueue(str(number)) for number in range(3)]
        with pytest.raises(rota.QueueFull, match="3 jobs wait in queue few, which takes 3"):
            few.enqueue("3")
        status, _ = ask(cluster, "/v1/jobs", {"task": app.plain.name, "queue": "few"})
        assert status == 429
        assert few.using(run_after=3600).enqueue("later").status().place == "scheduled"     # it does not wait yet
        assert app.plain.enqueue("elsewhere").result(60) == "elsewhere"
        cluster.client.resume("few")
        assert [handle.result(60) for handle in handles] == ["0", "1", "2"]
        cluster.client.pause("few")
        assert not enqueued(few, "4").existing
        view = next(view for view in cluster.client.queues() if view.queue == "few")
        assert (view.max_waiting, view.on_full, view.waiting) == (3, "refuse", 1)
        assert cluster.client.set_queue("few", max_waiting=None).max_waiting is None
        few.enqueue_many([(str(number),) for number in range(100)])


def test_who_enqueues_may_wait_for_room() -> None:
    with MemoryCluster() as cluster:
        cluster.client.set_queue("few", max_waiting=2, on_full="wait")
        cluster.client.pause("few")
        few = app.plain.using(queue="few")
        for number in range(2):
            few.enqueue(str(number))
        with pytest.raises(rota.QueueFull):
            few.using(retry_window=0.3).enqueue("impatient")
        threading.Timer(0.5, cluster.client.resume, ["few"]).start()
        assert few.enqueue("patient").result(60) == "patient"


def test_what_needs_no_room_is_not_refused() -> None:
    """A repeat of what is stored, a job that exists, and one that takes another's place."""
    with MemoryCluster() as cluster:
        cluster.client.pause("few")
        cluster.client.set_queue("few", max_waiting=1)
        first = app.sync_customer.using(queue="few", idempotency_key="17").enqueue("ann")
        assert app.sync_customer.using(queue="few", idempotency_key="17").enqueue("ann") == first
        again = app.sync_customer.using(queue="few").enqueue("ann")
        assert again == first and again.existing
        instead = app.sync_customer.using(queue="few", on_conflict="replace").enqueue("ann", full=True)
        assert instead != first
        with pytest.raises(rota.QueueFull):
            app.sync_customer.using(queue="few").enqueue("bob")


def test_a_bundle_that_is_larger_is_taken_where_nothing_waits() -> None:
    with MemoryCluster() as cluster:
        cluster.client.pause("few")
        cluster.client.set_queue("few", max_waiting=10)
        few = app.plain.using(queue="few")
        few.enqueue_many([(str(number),) for number in range(60)])
        with pytest.raises(rota.QueueFull):
            few.enqueue("one more")


def test_of_many_at_once_no_more_are_taken() -> None:
    with MemoryCluster() as cluster:
        cluster.client.pause("few")
        cluster.client.set_queue("few", max_waiting=20, serial=True)

        async def enqueue() -> int:
            async with rota.AsyncClient(cluster.url) as client:
                few = app.plain.using(queue="few")
                refused = 0
                for number in range(30):
                    try:
                        await client.enqueue(few, str(number))
                    except rota.QueueFull:
                        refused += 1
                return refused

        async def all_of_them() -> list[int]:
            return await asyncio.gather(*[enqueue() for _ in range(3)])

        assert sum(asyncio.run(all_of_them())) == 70
        assert next(view for view in cluster.client.queues() if view.queue == "few").waiting == 20


def test_it_is_declared_in_code() -> None:
    queue = rota.Queue("declared-bound", max_waiting=1, on_full="refuse")
    with MemoryCluster() as cluster:
        cluster.client.pause(queue)
        app.plain.using(queue=queue).enqueue("1")
        with pytest.raises(rota.QueueFull):
            app.plain.using(queue=queue).enqueue("2")
    for wrong in ({"max_waiting": 0}, {"on_full": "wait"}, {"max_waiting": 1, "on_full": "drop"}):
        with pytest.raises(rota.InvalidJob):
            rota.Queue("wrong", **wrong)  # type: ignore[arg-type]
