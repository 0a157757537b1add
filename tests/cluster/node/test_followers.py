"""Whoever waits for a result is told: also that there is none to come."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import rota
from rota.client.api import AsyncClient
from rota.client.codec import UNSIGNED, Seal
from rota.client.errors import JobFailed, JobUnknown, Overloaded, ResultTimeout
from rota.client.handle import JobHandle
from rota.cluster.clock import SystemClock
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node import followers
from rota.cluster.node.body_cache import BodyCache
from rota.cluster.node.followers import Followers
from rota.cluster.node.recent import Recent
from rota.cluster.state.keys import Keys
from rota.testing import MemoryCluster

PATIENCE_S = 20.0


@rota.task(keep_result=0)
def quiet(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return 1


@rota.task(keep_result=0)
async def quiet_async() -> int:
    return 1


@rota.task(keep_result=0, max_attempts=1)
def quiet_failure() -> None:
    raise ValueError("quiet")


@rota.task
def loud(number: int) -> int:
    return number


@pytest.fixture(scope="module")
def memory() -> Iterator[MemoryCluster]:
    with MemoryCluster() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "LOOK_S", 0.05)


def get(cluster: MemoryCluster, path: str) -> Any:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    return urllib.request.urlopen(urllib.request.Request(cluster.url + path, headers=headers), timeout=PATIENCE_S)


def in_every_way(cluster: MemoryCluster, handle: JobHandle[int]) -> None:
    """Nobody waits for ever: blocking, in a coroutine, from another client, over HTTP."""
    async def from_another_client() -> None:
        async with AsyncClient(cluster.url, **cluster.credentials) as client:
            await client.handle(handle.id)

    for wait in (
        lambda: handle.result(timeout=PATIENCE_S), handle.result, lambda: asyncio.run(handle.aresult(PATIENCE_S)),
        lambda: asyncio.run(from_another_client()),
    ):
        with pytest.raises(JobUnknown, match="has ended, and what became of it is not kept"):
            wait()
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(cluster, f"/v1/jobs/{handle.id}?wait=20")
    with caught.value as answer:
        page = json.loads(answer.read())
    assert (answer.status, page["error"]) == (404, "JobUnknown") and handle.id in page["message"]


def test_a_job_that_keeps_no_result_ends_for_who_waits(memory: MemoryCluster) -> None:
    waited_for = quiet.enqueue(0.2)
    in_every_way(memory, waited_for)
    memory.settle()
    in_every_way(memory, waited_for)        # asked later
    in_every_way(memory, quiet_async.enqueue())
    in_every_way(memory, quiet.enqueue_many([(0.0,)] * 70)[65])
    in_every_way(memory, loud.using(keep_result=0).enqueue(1))


def test_a_failed_job_that_keeps_no_result_is_a_failed_job(memory: MemoryCluster) -> None:
    handle = quiet_failure.enqueue()
    with pytest.raises(JobFailed, match="rota job"):
        handle.result(timeout=PATIENCE_S)
    assert handle.status().place == "failed"
    memory.client.retry_failed(handle.id)
    with pytest.raises(JobFailed):
        handle.result()
    assert memory.client.delete_failed(handle.id) == 1
    with pytest.raises(JobUnknown):
        handle.result(timeout=PATIENCE_S)


def test_no_time_to_wait_means_one_look(memory: MemoryCluster) -> None:
    scheduled = loud.using(run_after=600).enqueue(1)
    ended = loud.enqueue(2)
    memory.settle()

    async def look(handle: JobHandle[int]) -> int:
        async with AsyncClient(memory.url, **memory.credentials) as client:
            return await client.handle(handle.id).aresult(timeout=0)

    for ask in (lambda handle: handle.result(timeout=0), lambda handle: asyncio.run(handle.aresult(timeout=0)),
                lambda handle: asyncio.run(look(handle))):
        assert ask(ended) == 2
        with pytest.raises(ResultTimeout, match="it is scheduled"):
            ask(scheduled)
    assert json.loads(get(memory, f"/v1/jobs/{ended.id}?wait=0").read())["status"] == "ok"
    assert get(memory, f"/v1/jobs/{scheduled.id}?wait=0").status == 202
    unknown = memory.client.handle(f"{ended.id[:13]}ffffffff/0")
    with pytest.raises(JobUnknown):
        unknown.result(timeout=0)


def test_a_look_beside_somebody_who_waits(memory: MemoryCluster) -> None:
    handle = loud.using(run_after=600).enqueue(3)

    async def both() -> int:
        waiting = asyncio.create_task(handle.aresult(timeout=PATIENCE_S))
        await asyncio.sleep(0.1)
        for _ in range(3):
            with pytest.raises(ResultTimeout):
                await handle.aresult(timeout=0)
        await asyncio.to_thread(memory.travel, hours=1)
        return await waiting

    assert asyncio.run(both()) == 3
    assert handle.result(timeout=0) == 3


async def test_following_before_the_node_is_up_is_asked_again_elsewhere() -> None:
    waiting = Followers(
        MemoryLedger(), Keys("c"), Seal(UNSIGNED, "c"), SystemClock(), BodyCache(), Recent(10)
    )
    with pytest.raises(Overloaded, match="try another"):
        await waiting.follow("k3f9q2m7xa5t", ["k3f9q2m7xa5t-0000001f"], lambda bundle, data: None)
