"""A queue that a client declares is what it says, from its first job on."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rota
from rota.client.api.clients import AsyncClient
from rota.client.errors import InvalidJob
from rota.client.model import QueueInfo
from rota.client.tasks import queues
from rota.client.wire.views import QueueView
from rota.testing import MemoryCluster
from rota.worker.runner.transport import RunnerTransport

PATIENCE_S = 20.0
numbers = itertools.count()
at_once: list[int] = []
running = 0
lock = threading.Lock()


@rota.task
def work(number: int) -> int:
    global running
    with lock:
        running += 1
        at_once.append(running)
    time.sleep(0.005)
    with lock:
        running -= 1
    return number


@pytest.fixture(scope="module")
def memory() -> Iterator[MemoryCluster]:
    with MemoryCluster(sync=8) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = dict(queues.declared)
    at_once.clear()
    yield
    queues.declared.clear()
    queues.declared.update(before)


def name() -> str:
    return f"declared-here-{next(numbers)}"


def seen(memory: MemoryCluster, queue: str) -> QueueView:
    return next(view for view in memory.client.queues() if view.queue == queue)


def one(memory: MemoryCluster, task: Any) -> None:
    [task.enqueue(number) for number in range(10)][-1].result(PATIENCE_S)


def many(memory: MemoryCluster, task: Any) -> None:
    list(task.enqueue_many([(number,) for number in range(10)]))[-1].result(PATIENCE_S)


def of_a_coroutine(memory: MemoryCluster, task: Any) -> None:
    async def enqueue() -> None:
        handles = await asyncio.gather(*(task.aenqueue(number) for number in range(10)))
        await asyncio.gather(*handles)

    asyncio.run(enqueue())


def of_an_async_client(memory: MemoryCluster, task: Any) -> None:
    async def enqueue() -> None:
        async with AsyncClient(memory.url) as client:
            handles = await asyncio.gather(*(client.enqueue(task, number) for number in range(5)))
            handles += await client.enqueue_many(task, [(number,) for number in range(5)])
            await asyncio.gather(*handles)

    asyncio.run(enqueue())


def by_name(memory: MemoryCluster, task: Any) -> None:
    named = rota.NamedTask(work.name).using(queue=str(task.route.queue))
    [memory.client.enqueue(named, number) for number in range(10)][-1].result(PATIENCE_S)


@pytest.mark.parametrize("way", [one, many, of_a_coroutine, of_an_async_client, by_name])
def test_a_client_declares_a_serial_queue(memory: MemoryCluster, way: Callable[[MemoryCluster, Any], None]) -> None:
    queue = rota.Queue(name(), serial=True)
    way(memory, work.using(queue=queue))
    assert at_once == [1] * 10
    view = seen(memory, queue)
    assert view.serial and view.max_concurrency is None and not view.paused


def test_a_client_declares_a_limit(memory: MemoryCluster) -> None:
    queue = rota.Queue(name(), max_concurrency=2)
    for handle in work.using(queue=queue).enqueue_many([(number,) for number in range(20)]):
        handle.result(PATIENCE_S)
    assert max(at_once) == 2 and seen(memory, queue).max_concurrency == 2


def test_what_operators_have_said_stays(memory: MemoryCluster) -> None:
    queue = name()
    memory.client.set_queue(queue, paused=True, max_concurrency=3)
    rota.Queue(queue, serial=True)
    handle = work.using(queue=queue).enqueue(1)
    view = seen(memory, queue)
    assert (view.paused, view.serial, view.max_concurrency) == (True, True, 3)
    memory.client.set_queue(queue, serial=False)
    work.using(queue=queue).enqueue(2)
    assert not seen(memory, queue).serial, "it is said once, not with every job"
    memory.client.resume(queue)
    handle.result(PATIENCE_S)


def test_a_plain_queue_needs_no_declaration(memory: MemoryCluster) -> None:
    queue = rota.Queue(name())
    work.using(queue=queue).enqueue(1).result(PATIENCE_S)
    assert queue not in [view.queue for view in memory.client.queues() if view.serial or view.max_concurrency]


def test_a_setting_that_cannot_be(memory: MemoryCluster) -> None:
    for wrong in ("yes", 3, 0.5):
        with pytest.raises(InvalidJob, match="True or False"):
            rota.Queue(name(), serial=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidJob, match="at least 1"):
        rota.Queue(name(), max_concurrency=0)


async def test_inside_a_job_it_is_too_late() -> None:
    import socket

    a, b = socket.socketpair()
    with a, b:
        transport = RunnerTransport(a)
        transport.declared = {"known"}
        await transport.declare(QueueInfo("known", True))
        with pytest.raises(InvalidJob, match=r"inside a job.*--app"):
            await transport.declare(QueueInfo("late", True))
