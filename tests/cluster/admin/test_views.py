"""What people are shown of a cluster: where jobs are, why they wait, and what can be done about it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rota
from rota.cluster.cli import show
from rota.testing import MemoryCluster

from . import view_tasks as app


@pytest.fixture(scope="module")
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        yield made


def get(cluster: MemoryCluster, path: str) -> Any:
    request = urllib.request.Request(cluster.url + path, headers={"Authorization": f"Bearer {cluster.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def until(condition: Callable[[], Any], what: str) -> Any:
    limit = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < limit, what
        time.sleep(0.01)
    return value


def test_a_blocked_serial_queue_says_so_everywhere(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    head, second, third = (app.careful.enqueue(number, well=number > 1) for number in (1, 2, 3))
    until(lambda: head.status().place == "blocked", "the head blocks")
    advice = "`rota queue retry-head blocked` runs it again, `rota queue skip-head blocked` leaves it out"
    view = head.status()
    assert view.error == "ValueError: number 1 is not well"
    assert view.why == f"it failed for good and blocks serial queue blocked: {advice}"
    for behind in (second, third):
        assert behind.status().place == "waiting"
        assert behind.status().why == (
            f"serial queue blocked is blocked by job {head.id}, which failed for good "
            f"(ValueError: number 1 is not well): {advice}"
        )
    (queue,) = [queue for queue in cluster.client.queues() if queue.queue == "blocked"]
    assert (queue.waiting, queue.serial, queue.blocked) == (3, True, head.id)
    assert "number 1 is not well" in queue.why and advice in queue.why
    (failed,) = cluster.client.failed("blocked")
    assert (failed.id, failed.reason, failed.error) == (head.id, "blocked", "ValueError: number 1 is not well")
    for handle, said in ((head, "it is blocked"), (second, f"blocked by job {head.id}")):
        with pytest.raises(rota.ResultTimeout, match=said):
            handle.result(timeout=0.01)
    waited = get(cluster, f"/v1/jobs/{third.id}?wait=0.01")
    assert waited["place"] == "waiting" and head.id in waited["why"]
    assert get(cluster, "/v1/failed")[0]["id"] == head.id

    show.queues(cluster.client.queues())
    show.failed(cluster.client.failed())
    show.job(second.status())
    shown = capsys.readouterr().out
    assert "blocked, serial" in shown and shown.count(advice) == 3 and shown.count(head.id) >= 3

    assert cluster.client.skip_head("blocked") == head.id
    assert [second.result(60), third.result(60)] == [2, 3]
    cluster.client.delete_failed(head.id)
    assert not cluster.client.failed("blocked")


def test_the_reason_of_a_job_that_nobody_can_run_is_the_true_one() -> None:
    with MemoryCluster(sync=0) as cluster:
        handle = app.careful.using(queue="quiet").enqueue(1)
        other = cluster.client.enqueue(rota.NamedTask(app.careful.name).using(queue="quiet"), 2)
        for waiting in (handle, other):
            assert waiting.status().why == (
                f"no node that could run task {app.careful.name} takes plain functions: they were started with --sync 0"
            )
        with pytest.raises(rota.ResultTimeout, match="--sync 0"):
            handle.result(timeout=0.01)


def test_the_reason_of_a_job_for_which_all_are_busy() -> None:
    app.gate.clear()
    with MemoryCluster(sync=1):
        first = app.hold.using(queue="busy").enqueue("a")
        second = app.hold.using(queue="busy").enqueue("b")
        until(lambda: second.status().why == "every node that could run it is busy", "it waits for a slot")
        app.gate.set()
        assert [first.result(60), second.result(60)] == ["a", "b"]
