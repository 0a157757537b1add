"""Whoever waits for a result is told: also that there is none to come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

import rota
from rota.client.api.clients import AsyncClient
from rota.client.calls.handle import JobHandle
from rota.client.errors import InvalidJob, JobFailed, JobUnknown, Overloaded, ResultTimeout
from rota.client.wire import frames as wire
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.clock import SystemClock
from rota.cluster.ledger import memory as memory_ledger
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.bodies.cache import BodyCache
from rota.cluster.node.outcomes import followers
from rota.cluster.node.outcomes.followers import Followers
from rota.cluster.recent import Recent
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
    with pytest.raises(JobFailed, match="ValueError: quiet"):       # what did not end well is remembered all the same
        handle.result(timeout=PATIENCE_S)
    assert handle.status().place == "failed"
    memory.client.retry_failed(handle.id)
    with pytest.raises(JobFailed):
        handle.result()
    assert memory.client.delete_failed(handle.id) == 1
    with pytest.raises(JobFailed, match="ValueError: quiet"):
        memory.client.handle(handle.id).result(timeout=PATIENCE_S)


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
    unknown = memory.client.handle(f"{ended.id[:13]}ffffffff_0")
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


# -- names that a client sends have bounds (F9)


@contextlib.asynccontextmanager
async def a_table() -> AsyncIterator[Followers]:
    table = Followers(MemoryLedger(), Keys("c"), Seal(UNSIGNED, "c"), SystemClock(), BodyCache(), Recent(10))
    running = asyncio.create_task(table.run())
    await asyncio.sleep(0)
    yield table
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_whose_results_somebody_waits_for_here_or_did_a_moment_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    session, bundle = "k3f9q2m7xa5t", "k3f9q2m7xa5t-0000001f"
    async with a_table() as table:
        await table._ledger.commit(Txn((), (Put(Keys("c").body(bundle), b"x"),)))
        assert not table.waits_for(session)
        leave = await table.follow(session, [bundle], lambda bundle, data: None)
        assert table.waits_for(session) and not table.waits_for("aaaaaaaaaaaa")
        leave()
        assert table.waits_for(session)
        monkeypatch.setattr(followers, "WAITED_S", 0.0)
        assert not table.waits_for(session)


@pytest.mark.parametrize(("session", "bundle"), [
    ("x" * 1_600_000, "x" * 1_600_000 + "-00000000"), ("k3f9q2m7xa5t", "y" * 1_600_000), ("", "-0"),
    ("k3f9q2m7xa5t", "aaaaaaaaaaaa-00000000"), ("K3F9Q2M7XA5T", "K3F9Q2M7XA5T-00000000"),
    ("k3f9q2m7xa5t\n", "k3f9q2m7xa5t\n-00000000"),
])
async def test_what_is_no_session_is_refused_in_few_words(session: str, bundle: str) -> None:
    async with a_table() as table:
        with pytest.raises(InvalidJob) as refused:
            await table.follow(session, [bundle], lambda bundle, data: None)
        assert len(str(refused.value)) < 200 and not table._feeds


async def test_sessions_that_are_watched_have_a_bound_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "FEEDS_MAX", 2)
    monkeypatch.setattr(followers, "LINGER_S", 0.0)
    monkeypatch.setattr(memory_ledger, "PROGRESS_PERIOD_S", 0.02)
    async with a_table() as table:
        async def ask(letter: str) -> None:
            with pytest.raises(JobUnknown):
                await table.follow(letter * 12, [f"{letter * 12}-00000000"], lambda bundle, data: None)

        await ask("a")
        await ask("b")
        with pytest.raises(Overloaded, match="try another node"):
            await table.follow("c" * 12, [f"{'c' * 12}-00000000"], lambda bundle, data: None)
        while table._feeds:         # (a watch tells how far it is when something happens in the store)
            await table._ledger.commit(Txn((), (Put(b"another", b""),)))
            await asyncio.sleep(0.05)
        await ask("c")


async def test_a_node_refuses_it_on_the_wire_and_writes_no_log(
    memory: MemoryCluster, caplog: pytest.LogCaptureFixture
) -> None:
    url, headers = memory.url.replace("http", "ws", 1), {"Authorization": f"Bearer {memory.token}"}
    with caplog.at_level("DEBUG"):
        async with aiohttp.ClientSession(headers=headers) as web, web.ws_connect(f"{url}/v1/ws") as socket:
            await socket.receive_bytes()
            await socket.send_bytes(wire.encode(wire.FollowRequest(1, "s" * 1_600_000, ["s" * 100])))
            answer = await socket.receive()
            assert len(answer.data or b"") < 1_000
        async with aiohttp.ClientSession(headers=headers) as web:
            for path in ("jobs/" + "j" * 5_000, "jobs?queue=" + "q" * 5_000, "failed?queue=" + "q" * 5_000):
                async with web.get(f"{memory.url}/v1/{path}") as page:
                    assert page.status in (400, 404), path
                    assert len(await page.read()) < 1_000
    assert sum(len(record.getMessage()) for record in caplog.records) < 5_000
