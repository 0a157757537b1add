"""What Celery's (and Sidekiq's) users report of fan-in that never fires, fires twice or loses results: each as a flow.

The numbers are those of their issues. What celery/celery#4207 and #4333 and sidekiq/sidekiq#4710 say could not be read
when this was written; they are listed among callbacks that never fire, and the last two tests are of that kind.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rota
from rota.testing import MemoryCluster

from . import flow_tasks as app


@pytest.fixture(scope="module")
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    app.broken.clear()
    app.gate.set()
    with MemoryCluster() as made:
        yield made


def ran(word: str) -> int:
    return app.events.count(word)


def test_celery_2297_a_header_of_one(cluster: MemoryCluster) -> None:
    """The callback is not run; a lone result comes without its list (#4055)."""
    with rota.flow("one") as flow:
        app.combine.enqueue([app.add.enqueue(0)])
    assert flow.result(60) == [[1]]


def test_celery_4161_a_chain_inside_a_group_inside_the_body(cluster: MemoryCluster) -> None:
    """The results of the header are lost, and nothing ends."""
    with rota.flow("chains-in-the-body") as flow:
        header = [app.add.enqueue(0), app.add.enqueue(1)]
        first = app.combine.enqueue(header)
        app.combine.enqueue(first)
        app.combine.enqueue(header)
    assert flow.results(60) == [[[[1, 2]]], [[1, 2]]]


def test_celery_5630_the_body_after_all_headers(cluster: MemoryCluster) -> None:
    """The body is not called after the headers have ended: many, which end at the same moment."""
    app.gate.clear()
    with rota.flow("many-headers") as flow:
        header = app.part.enqueue_many([(f"h{number}",) for number in range(100)])
        app.finish.using(after=header).enqueue("body of 5630")
    app.gate.set()
    assert flow.result(60) == "body of 5630" and ran("body of 5630") == 1


def test_celery_5947_and_3538_chains_of_groups_run_the_body_once(cluster: MemoryCluster) -> None:
    """The body runs twice, and before its time: two chains in the header, each of which ends with a group."""
    with rota.flow("groups-in-chains") as flow:
        ends = []
        for number in range(2):
            first = app.add.enqueue(number)
            ends += [app.add.enqueue(first) for _ in range(2)]  # type: ignore[arg-type]
        total = app.combine.enqueue(ends)
        app.finish.using(after=total).enqueue("body of 5947")
    assert flow.result(60) == "body of 5947" and ran("body of 5947") == 1
    assert total.result(60) == [[2, 2, 3, 3]]


def test_celery_2922_and_3538_fan_ins_within_a_fan_in(cluster: MemoryCluster) -> None:
    """The outermost one never runs."""
    with rota.flow("nested") as flow:
        inner = [
            app.combine.enqueue([app.combine.enqueue([app.add.enqueue(a), app.add.enqueue(b)]) for b in (1, 2)])
            for a in (3, 4)
        ]
        app.combine.enqueue(inner)
    assert flow.result(60) == [[[[[[4, 2]], [[4, 3]]]], [[[[5, 2]], [[5, 3]]]]]]


def test_celery_9674_the_first_of_a_chain_in_the_header_fails(cluster: MemoryCluster) -> None:
    """The callback waits for ever, and polls: here what waits says for whom, and goes on when that is retried."""
    app.broken.add("first")
    with rota.flow("fails-early") as flow:
        first = app.part.enqueue("first")
        second = app.combine.enqueue(first)
        app.combine.enqueue([second, app.add.enqueue(1)])
        app.kinds.using(on_upstream="run").enqueue(first)
    view = flow.wait(60)
    assert view.state == "stuck" and view.failed == [first.id] and view.counts == {"ok": 2, "failed": 1, "awaiting": 2}
    app.broken.clear()
    assert flow.retry() == 1
    assert flow.results(60)[0] == [[["FIRST"], 2]]


def test_celery_1881_and_3317_a_callback_that_runs_whatever_fails(cluster: MemoryCluster) -> None:
    app.broken.add("wrong")
    with rota.flow("whatever") as flow:
        wrong = app.part.enqueue("wrong")
        gathers = app.kinds.using(on_upstream="run").enqueue(wrong, app.add.enqueue(1))
    assert flow.wait(60).state == "stuck" and gathers.result(60) == ["JobFailed", "int"]
    app.broken.clear()


def test_sidekiq_3050_and_5903_nothing_in_the_batch(cluster: MemoryCluster) -> None:
    """The callback of an empty batch never fires."""
    with rota.flow("nothing") as flow:
        app.combine.enqueue(app.add.enqueue_many([]))
        app.finish.using(after=[]).enqueue("after nothing")
    assert flow.results(60) == [[[]], "after nothing"]


def test_sidekiq_4361_a_job_that_runs_twice_counts_once(cluster: MemoryCluster) -> None:
    """Its batch counts below zero, and the callback never fires: here nothing counts."""
    app.events.append("not mended")
    with rota.flow("twice") as flow:
        fragile = app.fragile.enqueue("twice")
        app.finish.using(after=[fragile, app.add.enqueue(1)]).enqueue("after both")
    assert flow.wait(60).state == "stuck"
    app.events.append("mended")
    assert flow.retry() == 1 and flow.result(60) == "after both" and ran("after both") == 1
