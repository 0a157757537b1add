"""Rates through the clients, on a cluster in memory whose time travels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import rota
from rota.testing import MemoryCluster

from . import unique_tasks as app


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    with MemoryCluster() as made:
        yield made


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_so_many_in_a_time(cluster: MemoryCluster) -> None:
    handles = app.seldom.enqueue_many([(number,) for number in range(3)])
    assert handles[0].result(60) == 0
    until(lambda: "at its rate of 2/h" in handles[1].status().why)
    cluster.clock.ahead_s += 29 * 60
    time.sleep(0.6)
    assert app.events == ["seldom 0"]
    cluster.clock.ahead_s += 60
    assert handles[1].result(60) == 1
    assert handles[2].status().place == "waiting"
    view = next(view for view in cluster.client.tasks() if view.name == app.seldom.name)
    assert (view.rate, view.rate_per_key) == ("2/h", None)


def test_of_each_key(cluster: MemoryCluster) -> None:
    handles = app.crawl.enqueue_many([(host, page) for page in range(3) for host in ("a", "b")])
    until(lambda: len(app.events) == 4)
    assert sorted(app.events) == ["a 0", "a 1", "b 0", "b 1"]
    until(lambda: "key a of task" in handles[4].status().why)
    cluster.clock.ahead_s += 3600
    assert handles.results(60) == ["a", "b"] * 3


def test_of_a_queue(cluster: MemoryCluster) -> None:
    settings = cluster.client.set_queue("slow", rate="1/minute")
    assert settings.rate == "1/m" and cluster.client.set_queue("slow", paused=False).rate == "1/m"
    first, second = (app.plain.using(queue="slow").enqueue(text) for text in ("1", "2"))
    other = app.plain.enqueue("other")
    assert first.result(60) == "1" and other.result(60) == "other"
    until(lambda: "queue slow is at its rate of 1/m" in second.status().why)
    assert next(view for view in cluster.client.queues() if view.queue == "slow").rate == "1/m"
    cluster.client.set_queue("slow", rate=None)
    assert second.result(60) == "2"
    with pytest.raises(rota.InvalidJob, match="is not valid: write"):
        cluster.client.set_queue("slow", rate="often")


def test_a_rate_has_a_key_of_its_own(cluster: MemoryCluster) -> None:
    calls = [("a", "1"), ("a", "2"), ("b", "1")]
    handles = app.fetch.enqueue_many(calls)
    until(lambda: len(app.events) == 2)
    assert sorted(app.events) == ["a 1", "b 1"]
    until(lambda: "key a of task" in handles[1].status().why)
    other = app.fetch.using(rate_key="elsewhere").enqueue("a", "3")
    assert other.result(60) == "a"
    with pytest.raises(rota.ConfigError, match="goes with rate_per_key"):
        rota.task(name="m:f", rate_key="host")(lambda host: None)
