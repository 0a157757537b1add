"""Jobs that may not begin after some time, on a cluster in memory whose time travels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import rota
from rota.testing import MemoryCluster

from . import unique_tasks as app


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    app.events.clear()
    with MemoryCluster() as made:
        yield made


def test_what_begins_in_time_runs(cluster: MemoryCluster) -> None:
    assert app.fleeting.enqueue().result(60) == "in time" == app.fleeting_async.enqueue().result(60)


def test_what_waits_too_long_ends_as_expired(cluster: MemoryCluster) -> None:
    cluster.client.pause("default")
    handle, other = app.fleeting.enqueue(), app.plain.enqueue("stays")
    cluster._call(travelled(cluster, 31))
    with pytest.raises(rota.JobExpired, match=r"has expired: it had not begun"):
        handle.result(60)
    assert (handle.status().place, handle.status().why) == ("finished", "it has expired")
    assert other.status().place == "waiting"
    cluster.client.resume("default")
    assert other.result(60) == "stays" and app.events == ["plain stays"]


async def travelled(cluster: MemoryCluster, seconds: float) -> None:
    """Without waiting for what is paused."""
    cluster.clock.ahead_s += seconds


def test_a_retry_that_would_come_too_late_does_not(cluster: MemoryCluster) -> None:
    handle = app.fleeting.enqueue("no")
    cluster.settle()
    assert handle.status().place == "retrying"
    cluster.travel(seconds=31)                  # not as late as its retry would have been
    with pytest.raises(rota.JobExpired):
        handle.result(60)
    assert app.events == ["fleeting no"]


def test_what_a_person_has_run_again_comes_however_late(cluster: MemoryCluster) -> None:
    handle = app.fleeting_in_line.enqueue()
    while handle.status().place != "blocked":
        time.sleep(0.01)
    cluster._call(travelled(cluster, 31))
    assert handle.status().place == "blocked"
    cluster.client.retry_head("strict")
    assert handle.result(60) == "after all"


@pytest.mark.parametrize("queue", ["default", "strict"])
def test_it_may_be_delayed_for_longer_than_it_may_wait(cluster: MemoryCluster, queue: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=20)
    handle = app.plain.using(queue=queue, run_after=60, expires=until, unique_key="k").enqueue()
    cluster.travel(seconds=21)
    with pytest.raises(rota.JobExpired):
        handle.result(60)
    assert not app.plain.using(unique_key="k").enqueue("again").existing


def test_what_has_passed_is_over(cluster: MemoryCluster) -> None:
    handle = app.plain.using(expires=datetime.now(UTC) - timedelta(seconds=5)).enqueue()
    with pytest.raises(rota.JobExpired):
        handle.result(60)
    with pytest.raises(rota.InvalidJob, match="expires"):
        app.plain.using(expires=-1)
    with pytest.raises(rota.InvalidJob, match="stored durably"):
        app.plain.using(expires=5, level="none").enqueue()
