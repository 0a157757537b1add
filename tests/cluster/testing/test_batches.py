"""Batch tasks: one call for many jobs, each with its own outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import rota
from rota.testing import MemoryCluster, inline

from . import steps_tasks as app


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.sizes.clear()
    with MemoryCluster() as made:
        yield made


def test_jobs_are_gathered_and_each_has_its_outcome(cluster: MemoryCluster) -> None:
    handles = app.aindex.enqueue_many([(page,) for page in (*range(24), -1)])
    assert [handle.result(60) for handle in handles[:24]] == [2 * page for page in range(24)]
    with pytest.raises(rota.JobFailed, match="ValueError: negative"):
        handles[24].result(60)
    assert app.sizes == [10, 10, 5]


def test_a_plain_function_may_retry_and_snooze_some(cluster: MemoryCluster) -> None:
    handles = app.index.enqueue_many([(page,) for page in (2, 3, 4, 100)])
    cluster.settle()
    assert [handles[0].result(60), handles[2].result(60)] == [4, 8]
    cluster.travel(seconds=20)
    assert handles.results(60) == [4, 6, 8, 200]
    assert app.sizes[0] == 4 and sum(app.sizes[1:]) >= 2
    assert (handles[1].status().attempt, handles[3].status().attempt) == (2, 1)


@pytest.mark.parametrize(("what", "words"), [
    ("raise", "OSError: down"), ("few", "returned 1 outcomes for 3 jobs"), ("text", "returned a str"),
    ("none", "returned a NoneType"),
])
def test_what_befalls_the_function_befalls_all_of_them(cluster: MemoryCluster, what: str, words: str) -> None:
    handles = app.wrong.enqueue_many([(what,)] * 3)
    for handle in handles:
        with pytest.raises(rota.JobFailed, match=words):
            handle.result(60)


def test_unique_keys_and_limits_hold(cluster: MemoryCluster) -> None:
    later = app.once.using(run_after=1)
    first, again = later.enqueue(1), later.enqueue(1)
    assert first == again and again.existing
    cluster.travel(seconds=2)
    assert first.result(60) == 1
    app.sizes.clear()
    assert app.keyed.enqueue_many([(page,) for page in range(6)]).results(60) == list(range(6))
    assert max(app.sizes) <= 2              # one a key


def test_time_limits_and_cancellation(cluster: MemoryCluster) -> None:
    handles = app.stuck.enqueue_many([(60.0,), (0.0,)])
    for handle in handles:                  # they share the call, and its end
        with pytest.raises(rota.JobFailed, match=r"timed out after 0\.5 s"):
            handle.result(60)
    app.gate.clear()
    handles = app.held.enqueue_many([(1,), (2,)])
    while not app.sizes:                    # now they are in the call
        time.sleep(0.01)
    handles[0].cancel()
    with pytest.raises(rota.JobCancelled):
        handles[0].result(60)
    assert handles[1].status().place == "running"       # the function goes on for it
    app.gate.set()
    assert handles[1].result(60) == 2 and app.sizes == [2]


def test_alone_it_is_a_batch_of_one() -> None:
    app.sizes.clear()
    assert app.index(4) == 8
    with pytest.raises(ValueError, match="negative"):
        app.index(-1)
    with inline():
        assert app.index.enqueue(6).result() == 12
        assert app.aindex.enqueue(6).result() == 12
    assert app.sizes == [1, 1, 1, 1]


def test_wrong_declarations_and_calls_are_refused() -> None:
    with pytest.raises(rota.ConfigError, match="a batch function takes one argument"):
        rota.task(batch=2, name="x:two")(lambda a, b: None)     # type: ignore[arg-type, misc]
    for options in ({"batch": 0}, {"batch": 20_000}, {"batch": True}, {"batch": 5, "batch_wait": 4_000}):
        with pytest.raises(rota.InvalidJob, match="batch"):
            rota.task(**options)(lambda items: items)       # type: ignore[call-overload]
    with pytest.raises(rota.InvalidJob, match="batch_wait needs batch"):
        rota.task(batch_wait=1)(lambda items: items)        # type: ignore[call-overload]
    with pytest.raises(rota.InvalidJob, match="too many positional arguments"):
        _enqueued(app.index, 1, 2)


def _enqueued(task: Any, *args: Any) -> None:
    task.enqueue(*args)
