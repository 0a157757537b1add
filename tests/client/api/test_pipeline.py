"""`rota.pipeline()`: a block of enqueues that are not waited for one by one."""

from __future__ import annotations

import asyncio
import gc
import pickle
import time
from collections.abc import Iterator

import pytest

import rota
from rota.client.api import pipeline
from rota.client.api.clients import AsyncClient
from rota.client.calls import default
from rota.client.calls.handle import JobHandle
from rota.client.errors import InvalidJob, PartlyEnqueued, UnknownTask

from ..fake_service import KEYRING, TOKEN, FakeNode, fake_node, fake_node_in_thread
from ..sample_tasks import add, shout

BAD = UnknownTask("nobody knows it")


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_node_in_thread() as running:
        rota.connect(running.url, token=TOKEN, key=KEYRING)
        yield running
        default.replace(None)


def test_jobs_of_a_block_travel_together(node: FakeNode) -> None:
    with rota.pipeline():
        handles = [add.enqueue(number, 1) for number in range(1_000)]
    assert node.store.jobs == 1_000 and len(node.service.requests) < 100
    assert [handle.result(60) for handle in handles] == list(range(1, 1_001))
    assert len({handle.id for handle in handles}) == 1_000
    assert handles[0].level == "durable" and not handles[0].existing
    assert handles[0] == rota.handle(handles[0].id) and len(set(handles)) == 1_000


def test_a_handle_waits_for_what_it_cannot_know_yet(node: FakeNode) -> None:
    with rota.pipeline():
        handle = add.enqueue(2, 3)
        assert handle.result(60) == 5 and handle.status().id == handle.id
        with pytest.raises(AttributeError):
            handle.no_such_thing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError, match=r"handle\.id"):
        pickle.dumps(handle)


def test_other_ways_to_enqueue_take_part(node: FakeNode) -> None:
    with rota.Client(node.url, token=TOKEN, key=KEYRING) as client, rota.pipeline():
        by_client = client.enqueue(add, 1, 1)
        by_name = client.enqueue(add.name, 2, 2)
        by_value = client.enqueue(lambda: 6)
        routed = shout.using(queue="loud").enqueue("a")
        many = add.enqueue_many([(4, 4)])
    assert [handle.result(60) for handle in (by_client, by_name, by_value, routed, many[0])] == [2, 4, 6, "A!", 8]


def test_what_is_wrong_in_itself_raises_where_it_is(node: FakeNode) -> None:
    with rota.pipeline():
        with pytest.raises(InvalidJob):
            add.enqueue()  # type: ignore[call-arg]
        kept = add.enqueue(1)
    assert kept.result(60) == 1


def test_what_is_not_stored_raises_at_the_end(node: FakeNode) -> None:
    node.service.refusals = [BAD]
    with pytest.raises(PartlyEnqueued, match=r"2 jobs are stored.*UnknownTask") as caught, rota.pipeline():
        refused = add.enqueue(1)
        with pytest.raises(UnknownTask):
            refused.id  # noqa: B018
        kept = [add.enqueue(2), shout.enqueue("b")]
    assert caught.value.job_ids == [handle.id for handle in kept]
    node.service.refusals = [BAD]
    with pytest.raises(UnknownTask, match="nobody"), rota.pipeline():
        add.enqueue(1)


def test_an_error_of_the_block_is_not_hidden(node: FakeNode) -> None:
    node.service.refusals = [BAD]
    with pytest.raises(KeyError) as caught, rota.pipeline():
        add.enqueue(1)
        raise KeyError("mine")
    assert caught.value.__notes__ == ["rota: 1 jobs of the pipeline are not stored: nobody knows it"]
    with pytest.raises(KeyError), rota.pipeline():
        kept = add.enqueue(7)
        raise KeyError("mine")
    assert kept.result(60) == 7


def test_how_many_are_ahead_has_a_bound(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "JOBS_AHEAD_MAX", 10)
    with rota.pipeline() as pipe:
        for number in range(200):
            add.enqueue(number)
            assert len(pipe._ahead) <= 10
    monkeypatch.setattr(pipeline, "BYTES_AHEAD_MAX", 100_000)
    with rota.pipeline() as pipe:
        for _ in range(20):
            shout.enqueue("x" * 50_000)
            assert pipe._bytes <= 100_000
    assert node.store.jobs == 220


def test_blocks_nest_and_are_used_once(node: FakeNode) -> None:
    with rota.pipeline() as outer:
        with rota.pipeline():
            inner = add.enqueue(1)
        assert type(inner).__name__ == "PipelinedHandle" and inner._stored.done()   # type: ignore[attr-defined]
        assert pipeline.current() is outer
    assert pipeline.current() is None and type(add.enqueue(1)) is JobHandle
    with pytest.raises(RuntimeError, match="used once"), outer:
        pass


async def test_coroutines(node: FakeNode) -> None:
    async with rota.pipeline():
        handles = [await add.aenqueue(number) for number in range(500)]
        assert await handles[0] == 0
    assert [await handle for handle in handles] == list(range(500))
    assert len(node.service.requests) < 100


async def test_an_async_client() -> None:
    async with fake_node() as node, AsyncClient(node.url, token=TOKEN, key=KEYRING) as client:
        async with rota.pipeline():
            handles = [await client.enqueue(add, number) for number in range(500)]
            handles.append(await client.enqueue(add.name, 500))
            with pytest.raises(RuntimeError, match="on its way"):
                handles[-1].id  # noqa: B018
            assert await handles[-1] == 500 and (await handles[-1].astatus()).id == handles[-1].id
        assert [await handle for handle in handles] == list(range(501))
        node.service.refusals = [BAD]
        with pytest.raises(UnknownTask):
            async with rota.pipeline():
                await client.enqueue(add, 1)


async def test_what_is_refused_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with fake_node() as node, AsyncClient(node.url, token=TOKEN, key=KEYRING) as client:
        node.service.refusals = [BAD]
        with pytest.raises(UnknownTask):
            async with rota.pipeline():
                await client.enqueue(add, 1)
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_task_that_outlives_the_block_waits_for_its_jobs_again(node: FakeNode) -> None:
    ended = asyncio.Event()

    async def later() -> JobHandle[int]:
        await ended.wait()
        return await add.aenqueue(1)

    async with rota.pipeline():
        task = asyncio.create_task(later())
    ended.set()
    assert type(await task) is JobHandle


def test_a_loop_need_not_wait_for_the_store(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request takes its time, and 100 enqueues do not take it 100 times."""
    stored = node.service.enqueue
    requests = 0

    async def slowly(*given: object) -> object:
        nonlocal requests
        requests += 1
        await asyncio.sleep(0.05)
        return await stored(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(node.service, "enqueue", slowly)
    began = time.monotonic()
    with rota.pipeline():
        for number in range(100):
            add.enqueue(number)
    assert requests < 50, (requests, time.monotonic() - began)
