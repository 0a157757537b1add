"""What `rota.testing` offers to an application's tests."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import rota
from rota.client.calls import default
from rota.testing import MemoryCluster, inline

from . import testing_tasks as app


@pytest.fixture(scope="module")
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        yield made


@pytest.fixture(autouse=True)
def no_events() -> None:
    app.events.clear()


def test_jobs_of_both_kinds_run(cluster: MemoryCluster) -> None:
    assert app.add.enqueue(1, b=2).result(60) == 3
    assert app.shout.enqueue("hi").result(60) == "HI"
    assert sorted(handle.result(60) for handle in app.add.enqueue_many([(n,) for n in range(200)])) == list(range(200))
    assert cluster.client.enqueue(lambda n: n + 1, 1).result(60) == 2


def test_one_per_key_is_no_order_where_jobs_are_retried_and_a_serial_queue_is(cluster: MemoryCluster) -> None:
    """As docs/tasks.md says."""
    for queue, runs in ((None, [0, 1, 2, 0]), (rota.Queue("ann", serial=True), [0, 0, 1, 2])):
        app.events.clear()
        task = app.in_turn if queue is None else app.in_turn.using(queue=queue)
        for handle in task.enqueue_many([app.in_turn.call("ann", number) for number in range(3)]):
            handle.result(60)
        assert app.events == [f"ann {number}" for number in runs]


def test_failures_and_the_failed_set(cluster: MemoryCluster) -> None:
    handle = app.broken.enqueue()
    with pytest.raises(rota.JobFailed, match="KeyError"):
        handle.result(60)
    assert [view.id for view in cluster.client.failed()] == [handle.id]
    assert cluster.client.delete_failed(handle.id) == 1


def test_time_travel_runs_what_is_due(cluster: MemoryCluster) -> None:
    soon = app.add.using(run_after=timedelta(minutes=50)).enqueue(1)
    later = app.add.using(run_after=timedelta(hours=3)).enqueue(2)
    cluster.travel(hours=1)
    assert soon.result(60) == 1
    assert later.status().place == "scheduled"
    cluster.travel(timedelta(hours=2))
    assert later.result(60) == 2
    with pytest.raises(rota.InvalidJob, match="forward only"):
        cluster.travel(hours=-1)


def test_time_travel_runs_retries(cluster: MemoryCluster) -> None:
    handle = app.third_time.enqueue("ann")
    cluster.settle()
    assert app.events == ["ann 1"]
    cluster.travel(hours=1)
    cluster.travel(hours=2)
    assert handle.result(60) == "ann" and app.events == ["ann 1", "ann 2", "ann 3"]


def test_time_travel_runs_every_retry_that_is_due_by_then(cluster: MemoryCluster) -> None:
    """After 60, 120 and 240 s at most: within the hour all four attempts."""
    handle = app.soon_again.enqueue("eve")
    behind = app.stubborn.enqueue("head"), app.stubborn.enqueue("next", well_at=1)
    cluster.settle()        # what is tried again later does not count, nor what stands behind it
    assert sorted(app.events) == ["eve 1", "head 1"]
    cluster.travel(hours=1)
    assert handle.result(60) == "eve" and [one.result(60) for one in behind] == ["head", "next"]
    assert [event for event in app.events if event.startswith("eve")] == [f"eve {number}" for number in range(1, 5)]
    assert [event for event in app.events if not event.startswith("eve")] == ["head 1", "head 2", "head 3", "next 1"]


def test_what_does_not_settle_is_told(cluster: MemoryCluster) -> None:
    handle = app.stubborn.enqueue("never", well_at=9)
    cluster.settle()
    with pytest.raises(TimeoutError, match=f"job {handle.id} .* is blocked: it failed for good"):
        cluster.travel(hours=1, timeout=0.5)
    assert cluster.client.skip_head("line") == handle.id
    cluster.settle()
    cluster.client.delete_failed(handle.id)


def test_jobs_enqueue_jobs(cluster: MemoryCluster) -> None:
    app.sign_up.enqueue("bob").result(60)
    assert app.events == []
    cluster.travel(hours=1)
    assert app.events == ["welcome bob"]


def test_declared_queues_and_limits_are_real(cluster: MemoryCluster) -> None:
    handles = app.step.enqueue_many([(number,) for number in range(10)])
    cluster.settle()
    assert app.events == [f"step {number}" for number in range(10)] and len(handles) == 10
    assert cluster.client.pause("line").serial
    cluster.client.resume("line")


def test_timeouts(cluster: MemoryCluster) -> None:
    for task in (app.slow, app.aslow):
        with pytest.raises(rota.JobFailed, match=r"timed out after 0\.05 s"):
            task.enqueue().result(60)


def test_cancelling(cluster: MemoryCluster) -> None:
    handle = app.aslow.using(timeout=600).enqueue()
    assert handle.cancel() in ("requested", "cancelled")
    with pytest.raises(rota.JobCancelled):
        handle.result(60)


def test_cancelling_leaves_time_to_tidy_up(cluster: MemoryCluster) -> None:
    handle = app.tidies_up.enqueue()
    deadline = time.monotonic() + 10
    while not app.events and time.monotonic() < deadline:
        time.sleep(0.01)
    handle.cancel()
    assert handle.result(60) == "tidy"


def test_inline_runs_at_once() -> None:
    before = default.swap(None)
    default.swap(before)
    with inline() as jobs:
        handle = app.add.enqueue(1, 2)
        assert jobs.ran == [app.add.name] and handle.result() == 3 and handle.status().place == "finished"
        assert app.shout.enqueue("hi").result() == "HI"
        assert app.third_time.using(run_after=60).enqueue("eve").result() == "eve"
        with pytest.raises(rota.JobFailed, match="KeyError"):
            app.broken.enqueue().result()
        app.sign_up.enqueue("bob")
        assert app.events[-1] == "welcome bob"
        assert [handle.result() for handle in app.add.enqueue_many([(1,), (2,)])] == [1, 2]
        with pytest.raises(rota.InvalidJob):
            app.add.enqueue("too", "many", "arguments")  # type: ignore[call-arg]
    assert default.swap(before) is before


async def test_inline_in_a_coroutine() -> None:
    with inline():
        assert await (await app.shout.aenqueue("hi")) == "HI"
        assert app.shout.enqueue("there").result() == "THERE"
        assert [await handle for handle in await app.add.aenqueue_many([(1,), (2,)])] == [1, 2]


def test_pytest_finds_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(
        "import rota\n"
        "@rota.task\n"
        "def double(n): return 2 * n\n"
        "def test_cluster(rota_cluster):\n"
        "    later = double.using(run_after=3600).enqueue(21)\n"
        "    rota_cluster.travel(hours=1)\n"
        "    assert later.result(60) == 42\n"
        "def test_inline(rota_inline):\n"
        "    double.enqueue(1)\n"
        "    assert rota_inline.ran == ['test_shop:double']\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
