"""Jobs as people find them: by where they are, with every attempt; those of level `none`, too."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import typer

import rota
from rota.client.wire.views import PLACES, EventsPage, JobsPage
from rota.cluster.admin import listing, watching
from rota.cluster.cli import show
from rota.cluster.cli.inspect import look
from rota.cluster.ledger.ledger import Delete, Put, Txn, prefix_end
from rota.cluster.node.running import shown
from rota.testing import MemoryCluster

from . import view_tasks as app
from .test_views import until


@pytest.fixture(scope="module")
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster(sync=2) as made:
        yield made


@pytest.fixture(autouse=True)
def clean(cluster: MemoryCluster) -> Iterator[None]:
    app.gate.clear()
    yield
    app.gate.set()
    cluster.client.cancel_many(all=True) if cluster.client.jobs().jobs else None
    cluster.client.delete_failed(all=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "SHOWN_AFTER_S", 0.02)
    monkeypatch.setattr(shown, "LOOK_S", 0.02)


def test_every_attempt_is_told_with_its_node_its_times_and_how_it_ended(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = app.third.enqueue("x")
    until(lambda: handle.status().place == "retrying", "it has failed once")
    view = handle.status()
    (first,) = view.history
    assert (first.attempt, first.outcome) == (1, "ValueError: attempt 1")
    assert first.node.startswith("memory-") and first.ended_at is not None and view.due is not None
    cluster.travel(hours=2)
    cluster.travel(hours=3)
    assert handle.result(60) == "x"
    view = handle.status()
    assert (view.place, view.task, view.queue, view.attempt) == ("finished", app.third.name, "default", 3)
    assert [(one.attempt, one.outcome) for one in view.history] == [
        (1, "ValueError: attempt 1"), (2, "ValueError: attempt 2"), (3, "it ended well")
    ]
    assert view.finished_at is not None and view.node.startswith("memory-")
    show.job(view)
    shown = capsys.readouterr().out
    assert "ValueError: attempt 2" in shown and shown.count("memory-") >= 3
    broken = app.careful.using(queue="plain").enqueue(5, well=False)
    until(lambda: broken.status().place == "failed", "it has failed")
    assert [one.outcome for one in broken.status().history] == ["ValueError: number 5 is not well"]
    cluster.client.retry_failed(broken.id)
    until(lambda: len(broken.status().history) == 2, "it has failed again: nothing of before is forgotten")


def test_running_is_told_from_claimed(cluster: MemoryCluster) -> None:
    handles = [app.hold.using(queue="held").enqueue(str(number)) for number in range(4)]
    for handle in handles[:2]:
        until(lambda handle=handle: handle.status().place == "running", "two run")
        view = handle.status()
        assert view.began_at is not None and view.history[-1].outcome == "runs"
    assert {handle.status().place for handle in handles[2:]} <= {"claimed", "waiting"}
    page = until(
        lambda: page if len(page := cluster.client.jobs("running", queue="held")) == 2 else None, "two are listed"
    )
    assert [view.id for view in page] == [handle.id for handle in handles[:2]]
    queue = until(
        lambda: next((row for row in cluster.client.queues() if row.queue == "held" and row.running == 2), None),
        "two are counted",
    )
    assert queue.waiting + queue.claimed == 4
    app.gate.set()
    assert [handle.result(60) for handle in handles] == ["0", "1", "2", "3"]
    until(lambda: not cluster.client.jobs("running", queue="held"), "none is listed")


def test_jobs_are_listed_by_place_queue_and_task(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.client.pause("lists")
    wait = app.kept.using(queue="lists").enqueue_many([(str(number),) for number in range(130)])
    later = app.kept.using(queue="lists", run_after=3600).enqueue("later")
    again = app.third.using(queue="lists-too").enqueue("x")
    failed = app.careful.using(queue="lists-too").enqueue(1, well=False)
    done = app.kept.using(queue="lists-too").enqueue("done")
    until(lambda: (failed.status().place, done.status().place) == ("failed", "finished"), "these have ended")
    until(lambda: again.status().place == "retrying", "and that is tried again")
    for place, queue, task, ids in (
        ("waiting", "lists", "", [handle.id for handle in wait]),
        ("scheduled", "", "", [later.id]),
        ("retrying", "lists-too", "", [again.id]),
        ("failed", "lists-too", app.careful.name, [failed.id]),
        ("finished", "lists-too", "", [done.id]),
        (None, "lists-too", app.kept.name, [done.id]),
        (None, "lists-too", "", [again.id, failed.id, done.id]),
        ("waiting", "other", "", []),
    ):
        found = list(pages(cluster, place, queue, task, limit=50))
        assert [view.id for view in found] == ids, (place, queue, task)
        assert all(view.place == (place or view.place) for view in found)
    (view,) = cluster.client.jobs("failed", queue="lists-too")
    assert (view.error, view.attempt, view.task) == ("ValueError: number 1 is not well", 1, app.careful.name)
    assert view.finished_at is not None

    look.jobs(place="waiting", queue="lists", limit=50, url=cluster.url)
    printed = capsys.readouterr()
    assert printed.out.count(" waiting ") == 60     # a whole bundle at a time
    assert "there is more: --after" in printed.err
    with pytest.raises(typer.BadParameter):
        look.jobs(place="nowhere", url=cluster.url)
    cluster.client.resume("lists")


def pages(cluster: MemoryCluster, place: Any, queue: str, task: str, limit: int) -> Iterator[Any]:
    after, first = "", True
    while first or after:
        page = cluster.client.jobs(place, queue=queue, task=task, limit=limit, after=after)
        yield from page
        after, first = page.next, False


def test_a_part_costs_no_more_than_it_is_worth(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is rare among much is found by going on; each part looks at so much only."""
    cluster.client.pause("much")
    for number in range(30):
        app.kept.using(queue="much").enqueue(str(number))
    rare = app.third.using(queue="much").enqueue("x")
    monkeypatch.setattr(listing, "LOOKED_MAX", 10)
    parts, after = [], ""
    while True:
        page = cluster.client.jobs("waiting", queue="much", task=app.third.name, after=after)
        parts.append([view.id for view in page])
        if not (after := page.next):
            break
    assert len(parts) == 4 and parts[3] == [rare.id] and parts[:3] == [[], [], []]
    cluster.client.resume("much")


def test_the_port_lists_them_and_refuses_what_is_none(cluster: MemoryCluster) -> None:
    cluster.client.pause("ported")
    handle = app.kept.using(queue="ported").enqueue("x")
    headers = {"Authorization": f"Bearer {cluster.token}"}
    asked = urllib.request.Request(f"{cluster.url}/v1/jobs?place=waiting&queue=ported", headers=headers)
    with urllib.request.urlopen(asked) as answer:
        page = json.load(answer)
    assert [job["id"] for job in page["jobs"]] == [handle.id] and page["next"] == ""
    for wrong in ("place=nowhere", "limit=1001", "after=nonsense", "after=" + quote("failed:x") + "&place=waiting"):
        with pytest.raises(urllib.error.HTTPError, match="400") as caught:
            urllib.request.urlopen(urllib.request.Request(f"{cluster.url}/v1/jobs?{wrong}", headers=headers))
        caught.value.close()
    assert {place for places in listing.SECTIONS.values() for place in places} == set(PLACES)
    cluster.client.resume("ported")


async def test_the_other_client_lists_them(cluster: MemoryCluster) -> None:
    async with rota.AsyncClient(cluster.url) as client:
        await client.pause("slow")
        handle = await client.enqueue(app.kept.using(queue="slow"), "x")
        page = await client.jobs("waiting", queue="slow")
        assert isinstance(page, JobsPage) and [view.id for view in page] == [handle.id]
        await client.resume("slow")


def test_a_job_without_persistence_is_seen_cancelled_and_its_failure_kept(cluster: MemoryCluster) -> None:
    handle = app.light_hold.enqueue()
    view = until(lambda: view if (view := handle.status()).place == "running" else None, "it is seen to run")
    assert view.task == app.light_hold.name and view.node.startswith("memory-") and "no persistence" in view.why
    until(lambda: [one.id for one in cluster.client.jobs("running")] == [handle.id], "it is listed")
    assert handle.cancel() == "requested"
    with pytest.raises(rota.JobCancelled):
        handle.result(60)
    assert handle.status().why == "it was cancelled"

    failed = app.light.enqueue("light and lost")
    with pytest.raises(rota.JobFailed):
        failed.result(60)
    (kept,) = until(lambda: cluster.client.failed(), "its failure is kept")
    assert (kept.id, kept.reason, kept.attempts) == (failed.id, "volatile", 2)
    assert "light and lost" in kept.error
    assert failed.status().place == "failed" and "light and lost" in failed.status().traceback
    assert cluster.client.arguments(failed.id) == (("light and lost",), {})
    assert cluster.client.retry_failed(failed.id) == 1
    until(lambda: [view.reason for view in cluster.client.failed()] == ["error"], "it ran again, as any other")


def test_a_job_whose_token_is_not_found_is_known_to_be_stored(cluster: MemoryCluster) -> None:
    """While it moves, or behind more tokens than are looked through: who clears the object store must not take its
    arguments for nobody's."""
    cluster.client.pause("moving")
    handle = app.kept.using(queue="moving").enqueue("x")
    ledger, jobs = cluster._ledger, cluster._keys.queue_jobs("moving")
    (record,) = cluster._call(ledger.read(jobs, prefix_end(jobs))).records
    receipt = cluster._keys.receipt(record.key.rpartition(b"/")[2].decode())    # its lease is over
    cluster._call(ledger.commit(Txn((), (Delete(record.key), Delete(receipt)))))
    view = handle.status()
    assert view.place == "unknown" and view.enqueued_at is not None and "moving" in view.why
    cluster._call(ledger.commit(Txn((), (Put(record.key, record.value),))))
    until(lambda: handle.status().place != "unknown", "it is back")
    cluster.client.resume("moving")
    handle.result(60)
    never = cluster.client.job("k3f9q2m7xa5t_0000001f_0")
    assert never.place == "unknown" and never.enqueued_at is None


async def test_who_asks_for_news_again_at_once_does_not_look_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    watch = watching.Watching(nothing, nothing, nothing, nothing)

    async def look(job_id: str, seen: watching.Seen) -> EventsPage:
        return EventsPage()

    monkeypatch.setattr(watch, "_look", look)
    monkeypatch.setattr(watching, "LOOK_S", 60.0)       # as after a look that took long
    began = time.monotonic()
    assert await watch.news("a job", "", 0.05) == EventsPage()
    assert time.monotonic() - began >= 0.05
