"""Progress, events and log lines through clients and HTTP, on a cluster in memory."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

import rota
import rota.testing
from rota.cluster.ledger.ledger import prefix_end

from . import progress_tasks as app

PATIENCE_S = 30.0


@pytest.fixture
def cluster() -> Iterator[rota.testing.MemoryCluster]:
    app.go.clear()
    with rota.testing.MemoryCluster() as made:
        yield made
        app.go.set()


def get(cluster: rota.testing.MemoryCluster, path: str, accept: str = "application/json") -> str:
    request = urllib.request.Request(
        cluster.url + path, headers={"Authorization": f"Bearer {cluster.token}", "Accept": accept}
    )
    with urllib.request.urlopen(request) as answer:
        text: str = answer.read().decode()
        return text


def keys_of_progress(cluster: rota.testing.MemoryCluster) -> int:
    prefix = cluster._keys.progress

    async def read() -> int:
        return len((await cluster._ledger.read(prefix, prefix_end(prefix))).records)

    return cluster._call(read())


def wait_for(condition: Callable[[], object]) -> None:
    """Looks now and then: who asks all the time takes from the cluster in this process what it waits for."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


def told(handle: rota.JobHandle[int]) -> rota.ProgressView:
    """The last that a job of three rows says; its node may be about to join again."""
    seen: list[rota.ProgressView] = []

    def look() -> bool:
        seen[:] = [said for said in [handle.progress()] if said is not None and said.done == 3]
        return bool(seen)

    wait_for(look)
    return seen[0]


def test_progress_is_seen_while_it_runs_and_gone_afterwards(cluster: rota.testing.MemoryCluster) -> None:
    handle = app.work.enqueue(3)
    progress = told(handle)
    assert (progress.done, progress.total, progress.note, progress.fraction) == (3, 3, "row 3", 1.0)
    assert keys_of_progress(cluster) <= 1               # (none, while its node joins again)
    app.go.set()
    assert handle.result(60) == 3
    cluster.settle()
    assert handle.progress() is None
    wait_for(lambda: not keys_of_progress(cluster))


def test_progress_is_there_again_after_its_node_joined_again(cluster: rota.testing.MemoryCluster) -> None:
    handle = app.work.enqueue(3)
    told(handle)
    membership = cluster._node.standing.membership
    assert membership is not None and membership.identity is not None
    first = handle.status().node
    cluster._call(cluster._ledger.revoke(membership.identity.lease))
    wait_for(lambda: handle.status().node not in ("", first))
    assert told(handle).done == 3
    app.go.set()
    assert handle.result(60) == 3


def test_events_until_the_end_for_both_kinds_of_clients(cluster: rota.testing.MemoryCluster) -> None:
    handle = app.work.enqueue(5)
    threading.Timer(0.3, app.go.set).start()
    events = list(handle.events())
    assert events[-1].kind == "state" and events[-1].place == "finished"
    assert [event.line.text for event in events if event.line] == [f"did {n}" for n in range(1, 6)]
    assert [line.text for line in handle.log().lines] == [f"did {n}" for n in range(1, 6)]

    async def follow() -> list[rota.JobEvent]:
        async with rota.AsyncClient(cluster.url, **cluster.credentials) as client:
            failed = await client.enqueue(app.fail)
            return [event async for event in failed.events()]

    last = asyncio.run(follow())[-1]
    assert (last.place, last.why) == ("failed", "ValueError: no")


def test_server_sent_events_can_be_taken_up_again(cluster: rota.testing.MemoryCluster) -> None:
    app.go.set()
    handle = app.work.enqueue(2)
    handle.result(60)
    wait_for(lambda: len(handle.log().lines) == 2)      # they may come behind the outcome
    path = f"/v1/jobs/{handle.id}/events"
    blocks = [block for block in get(cluster, path, "text/event-stream").split("\n\n") if block]
    kinds = [line for block in blocks for line in block.splitlines() if line.startswith("event:")]
    assert kinds == ["event: log", "event: log", "event: state"]
    at = blocks[-1].splitlines()[0].removeprefix("id: ")
    page = json.loads(get(cluster, f"{path}?after={urllib.request.quote(at)}"))     # type: ignore[attr-defined]
    assert page["over"] and [event["kind"] for event in page["events"]] == ["state"]
    assert json.loads(get(cluster, f"/v1/jobs/{handle.id}/log"))["lines"][0][1:] == ["WARNING", "did 1"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(cluster, f"{path}?after=nonsense")
    assert "is not what `next` said" in json.load(refused.value)["message"]


def test_a_job_that_nobody_knows_has_one_event(cluster: rota.testing.MemoryCluster) -> None:
    (event,) = cluster.client.handle("k3f9q2m7xa5t_0000001f_0").events()
    assert event.place == "unknown"


def test_inline_jobs_may_say_what_they_like() -> None:
    app.go.set()
    with rota.testing.inline():
        handle = app.work.enqueue(2)
        assert [event.place for event in handle.events()] == ["finished"]
        assert handle.progress() is None and handle.log().lines == []


@pytest.mark.parametrize("lines", [-1, 1001, True, "all"])
def test_keep_log_is_checked(lines: int) -> None:
    with pytest.raises(rota.InvalidJob, match="keep_log"):
        app.work.using(keep_log=lines)
