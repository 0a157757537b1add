"""Schedules through the clients, on a cluster in memory whose time travels."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

import rota
from rota.client.tasks.task import registry
from rota.testing import MemoryCluster

from . import scheduled_tasks as app

registry.pop(app.nightly.name)      # or it would come due in the clusters of other tests, whose time travels, too


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryCluster]:
    app.events.clear()
    monkeypatch.setitem(registry, app.nightly.name, app.nightly)
    with MemoryCluster() as made:
        yield made


def test_what_code_declares_is_there_and_fires(cluster: MemoryCluster) -> None:
    view = cluster.client.schedules.get(app.nightly.name)
    assert (view.when, view.declared, view.stale) == ("At 03:00 every day (Europe/Berlin)", True, False)
    cluster.travel(days=3)
    assert app.events == ["nightly all"] * 3
    after = cluster.client.schedules.get(app.nightly.name)
    assert after.fired == 3 and after.last is not None and after.next is not None
    assert after.next - after.last == 86_400 and after.last_place in ("finished", "unknown")


def test_a_schedule_is_put_changed_and_deleted(cluster: MemoryCluster) -> None:
    schedules = cluster.client.schedules
    schedules.delete(app.nightly.name)
    schedules.put("hourly", app.nightly, ("hour",), every=timedelta(hours=1))
    cluster.travel(hours=2, minutes=30)
    assert app.events == ["nightly hour"] * 2
    changed = schedules.put("hourly", app.nightly, kwargs={"kind": "two"}, every=timedelta(hours=2))
    assert (changed.fired, changed.when) == (2, "Every 2 hours")
    cluster.travel(hours=2, minutes=1)
    assert app.events == ["nightly hour"] * 2 + ["nightly two"]
    assert [view.name for view in schedules.list()] == ["hourly"]
    schedules.delete("hourly")
    cluster.travel(hours=5)
    assert len(app.events) == 3 and schedules.list() == []
    with pytest.raises(rota.JobUnknown, match="no schedule 'hourly'"):
        schedules.get("hourly")


def test_pause_resume_and_run_now(cluster: MemoryCluster) -> None:
    schedules = cluster.client.schedules
    schedules.put("minutely", app.nightly, every=60)
    assert schedules.pause("minutely").next is None
    cluster.travel(minutes=5)
    assert app.events == []
    job = schedules.run_now("minutely")
    cluster.client.handle(job).result(60)
    assert app.events == ["nightly all"]
    schedules.resume("minutely")
    cluster.travel(seconds=90)
    assert app.events == ["nightly all"] * 2


def test_many_lists(cluster: MemoryCluster) -> None:
    for number in range(250):
        cluster.client.schedules.put(f"s{number:03d}", app.nightly, every=3600)
    names = [view.name for view in cluster.client.schedules.list()]
    assert names == sorted([app.nightly.name, *(f"s{number:03d}" for number in range(250))])


def test_what_is_refused(cluster: MemoryCluster) -> None:
    put = cluster.client.schedules.put
    with pytest.raises(rota.InvalidJob, match="either cron"):
        put("x", app.nightly)
    with pytest.raises(rota.InvalidJob, match="five fields"):
        put("x", app.nightly, cron="every day")
    with pytest.raises(rota.InvalidJob, match="not a valid schedule name"):
        put("a/b", app.nightly, every=60)
    with pytest.raises(rota.InvalidJob, match="too many positional"):
        put("x", app.nightly, (1, 2), every=60)
    with pytest.raises(rota.InvalidJob, match="shipped by value"):
        put("x", rota.client.tasks.task.as_task(lambda: 1), every=60)
    with pytest.raises(rota.InvalidJob, match="run_after"):
        put("x", app.nightly.using(run_after=5), every=60)
    with pytest.raises(rota.UnknownTask):
        put("x", "nowhere:task", every=60)
    with pytest.raises(rota.InvalidJob, match="overlap"):
        put("x", app.nightly, every=60, overlap="never")  # type: ignore[arg-type]


def test_what_is_refused_at_a_declaration() -> None:
    with pytest.raises(rota.ConfigError, match="arguments without defaults"):
        @rota.task(every=60)
        def takes(one: int) -> None: ...
    with pytest.raises(rota.InvalidJob, match="belong to a schedule"):
        @rota.task(jitter=5)
        def plain() -> None: ...


async def test_coroutines_have_them_too(cluster: MemoryCluster) -> None:
    async with rota.AsyncClient(cluster.url) as client:
        view = await client.schedules.put("a", app.nightly, cron="*/5 * * * *", tz="Asia/Kolkata", jitter=10)
        assert (await client.schedules.get("a")) == view
        assert [found.name for found in await client.schedules.list()] == ["a", app.nightly.name]
        assert (await client.schedules.pause("a")).paused and not (await client.schedules.resume("a")).paused
        await client.schedules.delete("a")
