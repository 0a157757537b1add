"""Durable steps, sleep and results of other jobs inside a job, on a cluster in memory whose time travels."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import rota
from rota.cluster.cli import show
from rota.cluster.ledger.ledger import prefix_end
from rota.testing import MemoryCluster, inline

from . import steps_tasks as app


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    app.gate.clear()
    with MemoryCluster() as made:
        yield made


def remembered(cluster: MemoryCluster) -> int:
    """How many steps lie in the store."""
    prefix = cluster._keys.steps
    return len(cluster._call(cluster._ledger.read(prefix, prefix_end(prefix), keys_only=True)).records)


@pytest.mark.parametrize("task", [app.order, app.aorder])
def test_a_retry_goes_on_where_it_was(cluster: MemoryCluster, task: Any) -> None:
    handle = task.enqueue(4, fail_at=2)
    cluster.settle()
    assert remembered(cluster) == 1
    cluster.travel(seconds=10)
    assert handle.result(60) == 50 and app.events == ["charge", "ship"]
    assert handle.status().attempt == 3
    assert remembered(cluster) == 0


def test_jobs_of_one_bundle_remember_each_their_own(cluster: MemoryCluster) -> None:
    """Of those of which some fail, too: what is left of their bundle goes on, what has ended is forgotten."""
    handles = app.order.enqueue_many([(number, number % 3) for number in range(12)])
    cluster.settle()
    assert remembered(cluster) == 8         # of those that are tried again
    cluster.travel(seconds=20)
    assert handles.results(60) == [10 * (number + 1) for number in range(12)]
    assert app.events.count("charge") == app.events.count("ship") == 12
    assert remembered(cluster) == 0


def test_what_a_failed_job_remembers_is_kept_until_it_is_deleted(cluster: MemoryCluster) -> None:
    first, second = app.fails.enqueue(1), app.fails.enqueue(2)
    cluster.settle()
    assert remembered(cluster) == 2
    app.gate.set()
    assert cluster.client.retry_failed(first.id) == 1
    cluster.settle()
    assert first.status().place == "finished" and app.events.count("charge") == 2
    assert cluster.client.delete_failed(second.id) == 1
    cluster.settle()
    assert remembered(cluster) == 0


@pytest.mark.parametrize("task", [app.sleeper, app.asleeper])
def test_sleep_gives_the_slot_back_and_is_no_attempt(cluster: MemoryCluster, task: Any) -> None:
    handle = task.enqueue(3_600)
    cluster.settle()
    view = handle.status()
    assert view.place == "scheduled" and view.why.startswith("it sleeps until 20"), view
    assert 3_500 < view.due - time.time() < 3_700
    assert [(step.name, step.kind) for step in view.steps] == [("before", "step"), ("sleep 1", "sleep")]
    cluster.travel(minutes=61)
    assert handle.status().place == "scheduled"     # the second time
    cluster.travel(minutes=61)
    assert handle.result(60) == 1            # its first attempt, all the time
    assert app.events == ["run", "before", "run", "run", "after"]
    assert remembered(cluster) == 0


def test_a_timeout_counts_for_each_run(cluster: MemoryCluster) -> None:
    handle = app.slow_but_asleep.enqueue()
    cluster.settle()
    cluster.travel(seconds=6)
    assert handle.result(60) == "rested"


def test_what_sleeps_does_not_expire_any_more(cluster: MemoryCluster) -> None:
    handle = app.sleeper.using(expires=60).enqueue(100)
    cluster.settle()
    cluster.travel(seconds=300)
    assert handle.result(60) == 1


def test_a_job_of_a_serial_queue_sleeps_at_its_place(cluster: MemoryCluster) -> None:
    first, second = app.in_order.enqueue(1, 60.0), app.in_order.enqueue(2)
    cluster.settle()
    assert app.events == []
    cluster.travel(seconds=61)
    assert (first.result(60), second.result(60)) == (1, 2) and app.events == ["1", "2"]
    waits = app.waits_in_order.enqueue(1)
    while (view := waits.status()).place != "blocked":
        time.sleep(0.01)
    assert "a job of a serial queue cannot wait for another one" in view.error


def test_a_step_that_is_under_way_ends_before_the_job_sleeps(cluster: MemoryCluster) -> None:
    """It was cancelled in its midst, and done again: a job was enqueued twice."""
    app.events.clear()
    handle = app.abreast.enqueue(60)
    cluster.settle()
    assert app.events == ["began", "ended"] and handle.status().place == "scheduled"
    cluster.travel(seconds=61)
    assert handle.result(60) == "slow" and app.events == ["began", "ended"]


def test_a_sleeping_job_can_be_cancelled(cluster: MemoryCluster) -> None:
    handle = app.sleeper.enqueue(3_600)
    cluster.settle()
    assert handle.cancel() == "cancelled"
    with pytest.raises(rota.JobCancelled):
        handle.result(60)
    assert remembered(cluster) == 0


def test_a_job_that_is_cancelled_in_a_step_leaves_nothing(cluster: MemoryCluster) -> None:
    handle = app.cancelled_in_step.enqueue()
    assert app.gate.wait(5)
    assert handle.cancel() == "requested"
    with pytest.raises(rota.JobCancelled):
        handle.result(60)
    cluster.settle()
    assert remembered(cluster) == 0


def test_jobs_wait_for_jobs_without_their_slots() -> None:
    app.events.clear()
    with MemoryCluster(sync=1, async_=2) as cluster:      # the parents would hold the only slots
        handle, other = app.parent.enqueue(1, 2, 3), app.aparent.enqueue(4)
        cluster.settle()
        assert handle.result(60) == [70, 10, 20, 30]
        assert other.result(60) == 90
        assert sorted(app.events) == [f"child {number}" for number in (1, 2, 3, 4, 5, 7)]
        assert remembered(cluster) == 0


def test_the_error_of_the_other_job_is_raised_in_the_one_that_waits(cluster: MemoryCluster) -> None:
    handle = app.parent.enqueue(1, -1)
    cluster.settle()
    with pytest.raises(rota.JobFailed, match=r"JobFailed.*negative"):
        handle.result(60)


@pytest.mark.parametrize("task", [app.impatient, app.aimpatient])
def test_a_wait_with_a_time_out_ends_by_what_comes_first_and_stays_so(cluster: MemoryCluster, task: Any) -> None:
    quick, slow, look = task.enqueue(10, 60), task.enqueue(3_600, 60), task.enqueue(3_600, 0)
    cluster.settle()
    cluster.travel(seconds=30)
    assert quick.result(60) == ([1, 1], "in time")
    view = slow.status()
    assert view.place == "awaiting" and "it waits for job" in view.why and view.why.endswith("UTC at the most"), view
    assert [step.kind for step in view.steps] == ["step", "wait"]
    late = [event for event in app.events if event.startswith("no result of job")]
    assert len(late) == 1 and "within 0 s of when this job began to wait" in late[0]
    cluster.travel(seconds=40)
    view = slow.status()
    assert view.place == "awaiting" and not view.why.endswith("at the most"), (view, app.events)
    late = [event for event in app.events if "within 60 s" in event]
    assert len(late) == 1
    cluster.travel(hours=3)
    assert slow.result(60) == look.result(60) == ([1, 1], "late")       # it has ended by now, and was late all the same
    again = [event for event in app.events if "within 60 s" in event]
    assert len(again) == 2 and remembered(cluster) == 0


@pytest.mark.parametrize(("how", "words"), [
    ("twice", "has a step 'a' already"), ("no name", "'' is not a valid step name"), ("line", "not a valid step name"),
    ("lock", "what step 'lock' returned, a _thread.lock, cannot be pickled"), ("large", "JobTooLarge"),
    ("async", "its function is `async def`"), ("sleep inside", "inside of step 'outer'"),
    ("wait inside", "inside of step 'outer'"), ("timeout", "a time-out of -1 is not valid"),
    ("past", "a sleep of -1 is not valid"), ("all", "JobTooLarge"), ("itself", "cannot wait for itself"),
])
def test_what_cannot_be_is_refused_in_the_job(cluster: MemoryCluster, how: str, words: str) -> None:
    handle = app.misuse.enqueue(how)
    cluster.settle()
    assert words in handle.status().error


def test_outside_of_a_job_there_are_no_steps() -> None:
    with pytest.raises(RuntimeError, match=r"rota\.step\(\): no job is running here"):
        rota.step("a", int)
    with pytest.raises(RuntimeError, match=r"rota\.sleep\(\): no job is running here"):
        rota.sleep(1)


def test_a_job_of_level_none_remembers_nothing(cluster: MemoryCluster) -> None:
    handle = app.order.using(level="none", max_attempts=1).enqueue(1)
    with pytest.raises(rota.JobFailed, match="persistence level 'none'"):
        handle.result(60)


def test_inline_steps_run_and_sleep_is_over_at_once() -> None:
    app.events.clear()
    with inline():
        assert app.order.enqueue(4, fail_at=2).result() == 50
        assert app.events == ["charge", "ship"]
        assert app.sleeper.enqueue(3_600).result() == 1
        assert app.parent.enqueue(1, 2).result() == [70, 10, 20]
        assert app.impatient.enqueue(60, 1).result() == ([1, 1], "in time")

        async def here() -> list[Any]:
            one, two = await app.asleeper.aenqueue(60), await app.aparent.aenqueue(4)
            return [await one, await two]

        assert asyncio.run(here()) == [1, 90]


def test_people_see_the_steps(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    handle = app.sleeper.enqueue(3_600)
    cluster.settle()
    asked = urllib.request.Request(
        f"{cluster.url}/v1/jobs/{handle.id}", headers={"Authorization": f"Bearer {cluster.token}"}
    )
    view = json.loads(urllib.request.urlopen(asked, timeout=5).read())
    assert [(step["name"], step.get("kind", "step")) for step in view["steps"]] == [
        ("before", "step"), ("sleep 1", "sleep")
    ]
    show.job(handle.status())
    shown = capsys.readouterr().out
    assert "it sleeps until 20" in shown and "sleep 1" in shown and "before" in shown
