"""Many jobs waited for at once: as they end, all of them, with a bar; jobs by their ids and tasks by their names."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Iterator

import pytest

import rota
from rota.client.api.clients import AsyncClient
from rota.client.errors import JobFailed, JobUnknown, ResultTimeout
from rota.testing import MemoryCluster, inline

PATIENCE_S = 20.0
gate = threading.Event()


@rota.task
def held(number: int) -> int:
    if number == 0:
        gate.wait(PATIENCE_S)
    return number


@rota.task(max_attempts=1)
def odd_fails(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@pytest.fixture(scope="module")
def memory() -> Iterator[MemoryCluster]:
    with MemoryCluster(sync=4) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def closed_gate() -> Iterator[None]:
    gate.clear()
    yield
    gate.set()


def test_jobs_come_as_they_end(memory: MemoryCluster) -> None:
    handles = held.enqueue_many([(number,) for number in range(5)])
    ended = []
    for handle in handles.as_completed(PATIENCE_S):
        ended.append(handle.result(PATIENCE_S))
        if len(ended) == 4:
            gate.set()
    assert sorted(ended[:4]) == [1, 2, 3, 4] and ended[4] == 0


def test_all_results_in_the_order_of_the_calls(memory: MemoryCluster) -> None:
    gate.set()
    assert held.enqueue_many([(number,) for number in range(300)]).results(PATIENCE_S) == list(range(300))
    assert held.enqueue_many([]).results() == [] and list(held.enqueue_many([]).as_completed()) == []


def test_coroutines_too(memory: MemoryCluster) -> None:
    gate.set()

    async def work() -> None:
        handles = await held.aenqueue_many([(number,) for number in range(70)])
        assert await handles.aresults(PATIENCE_S) == list(range(70))
        assert len([handle async for handle in handles.aas_completed(PATIENCE_S)]) == 70
        async with AsyncClient(memory.url) as client:
            own = await client.enqueue_many(held, [(1,), (2,)])
            assert await own.aresults(PATIENCE_S) == [1, 2]
            assert sorted([await handle async for handle in own.aas_completed()]) == [1, 2]
            with pytest.raises(RuntimeError, match="aresults"):
                own.results()

    asyncio.run(work())


def test_jobs_that_do_not_end_well_have_ended(memory: MemoryCluster) -> None:
    handles = odd_fails.enqueue_many([(number,) for number in range(4)])
    assert len(list(handles.as_completed(PATIENCE_S))) == 4
    with pytest.raises(JobFailed, match="is odd"):
        handles.results(PATIENCE_S)
    kept_nothing = held.using(keep_result=0).enqueue_many([(1,), (2,)])
    with pytest.raises(JobUnknown):
        kept_nothing.results(PATIENCE_S)


def test_those_that_have_not_ended_in_time_are_counted(memory: MemoryCluster) -> None:
    handles = held.enqueue_many([(number,) for number in range(3)])
    handles[1].result(PATIENCE_S)
    handles[2].result(PATIENCE_S)
    for timeout in (0, 0.05):
        ended = []
        with pytest.raises(ResultTimeout, match="1 of 3 jobs have not ended"):
            for handle in handles.as_completed(timeout):
                ended.append(handle.id)
        assert sorted(ended) == handles.ids[1:]
    gate.set()
    assert handles.results(PATIENCE_S) == [0, 1, 2]


def test_a_bar_on_a_terminal(memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    gate.set()
    for stderr, progress, bar in ((Terminal(), None, True), (Terminal(), False, False), (io.StringIO(), None, False)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            assert held.enqueue_many([(1,), (2,)]).results(PATIENCE_S, progress=progress) == [1, 2]
        assert ("2/2" in stderr.getvalue()) is bar, stderr.getvalue()


def test_a_handle_by_its_id(memory: MemoryCluster) -> None:
    gate.set()
    job = held.enqueue(5)
    assert rota.handle(job.id).result(PATIENCE_S) == 5 and rota.handle(job.id) == job
    with pytest.raises(ValueError, match="not a valid job id"):
        rota.handle("nothing")


def test_a_task_by_its_name(memory: MemoryCluster) -> None:
    gate.set()
    named = rota.NamedTask(held.name)
    assert named.enqueue(3).result(PATIENCE_S) == 3
    assert named.enqueue_many([(1,), named.call(number=2)]).results(PATIENCE_S) == [1, 2]

    async def work() -> list[int]:
        many = await (await named.using(queue="other").aenqueue_many([(6,)])).aresults(PATIENCE_S)
        return [await (await named.aenqueue(4)).aresult(PATIENCE_S), *many]

    assert asyncio.run(work()) == [4, 6]


def test_inline_as_well() -> None:
    gate.set()
    with inline():
        handles = held.enqueue_many([(1,), (2,)])
        assert handles.results() == [1, 2] and [handle.result() for handle in handles.as_completed()] == [1, 2]
        assert rota.handle(handles[0].id).result() == 1
        assert asyncio.run(handles.aresults()) == [1, 2]
