"""What the caller's own code does (generators of calls, finalizers, what runs while the process ends) never stops the
process's clients, nor the process."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rota
from rota.client.api.clients import AsyncClient, Client
from rota.client.calls import default
from rota.client.errors import ClientClosed, InvalidJob
from rota.client.process import background

from ..fake_service import KEYRING, TOKEN, FakeNode, fake_node_in_thread
from ..sample_tasks import add

ROOT = Path(__file__).parents[3]
PATIENCE_S = 20.0


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_node_in_thread() as running:
        yield running


@pytest.fixture
def connected(node: FakeNode) -> Iterator[Client]:
    yield rota.connect(node.url, token=TOKEN, key=KEYRING)
    default.replace(None)


def in_every_way(node: FakeNode, calls: Callable[[], Iterator[tuple[int]]]) -> list[int]:
    """How many jobs each way of a bulk enqueue has stored of these calls."""
    async def by_async_client() -> int:
        async with AsyncClient(node.url, token=TOKEN, key=KEYRING) as client:
            return len(await client.enqueue_many(add, calls()))

    async def by_default_client() -> int:
        return len(await asyncio.wait_for(add.aenqueue_many(calls()), PATIENCE_S))

    return [len(add.enqueue_many(calls())), asyncio.run(by_default_client()), asyncio.run(by_async_client())]


def test_a_generator_of_calls_may_enqueue(connected: Client, node: FakeNode) -> None:
    def calls() -> Iterator[tuple[int]]:
        for number in range(3):
            yield (add.enqueue(number).result(timeout=PATIENCE_S),)

    assert in_every_way(node, calls) == [3, 3, 3]
    assert node.store.jobs == 18


def test_a_generator_of_calls_runs_on_its_callers_thread(connected: Client, node: FakeNode) -> None:
    seen: set[threading.Thread] = set()

    def calls() -> Iterator[tuple[int]]:
        for number in range(100):
            seen.add(threading.current_thread())
            yield (number,)

    assert in_every_way(node, calls) == [100, 100, 100]
    assert seen == {threading.current_thread()}


def test_a_generator_that_blocks_stalls_no_other_thread(connected: Client, node: FakeNode) -> None:
    others: list[int] = []

    def calls() -> Iterator[tuple[int]]:
        yield (1,)
        thread = threading.Thread(target=lambda: others.append(add.enqueue(2).result(timeout=PATIENCE_S)), daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        yield (3,)

    assert in_every_way(node, calls) == [2, 2, 2]
    assert others == [2, 2, 2]


@pytest.mark.parametrize("own_client", [True, False])
def test_a_slow_generator_leaves_turns_to_its_loop(connected: Client, node: FakeNode, own_client: bool) -> None:
    """It goes on until another coroutine of the same loop has enqueued a job of its own."""
    answered = threading.Event()

    def calls() -> Iterator[tuple[int]]:
        for _ in range(900):        # fewer than a frame takes, so that nothing else makes it wait
            yield (1,)
            if answered.is_set():
                return
            time.sleep(0.01)
        raise AssertionError("nobody else had a turn")

    async def other(client: AsyncClient) -> None:
        await (client.enqueue(add, 2) if own_client else add.aenqueue(2))
        answered.set()

    async def both() -> None:
        async with AsyncClient(node.url, token=TOKEN, key=KEYRING) as client, asyncio.TaskGroup() as group:
            group.create_task(other(client))
            await (client.enqueue_many(add, calls()) if own_client else add.aenqueue_many(calls()))

    asyncio.run(both())


def test_calls_that_cannot_be_gone_through(connected: Client) -> None:
    async def calls() -> object:
        yield (1,)

    for wrong in (calls(), 7, None):
        with pytest.raises(InvalidJob, match="is not iterable"):
            add.enqueue_many(wrong)  # type: ignore[arg-type]


def test_code_on_a_thread_of_rotas_own_is_told_that_it_cannot_wait(connected: Client) -> None:
    """The garbage collector calls finalizers on whichever thread it runs."""
    handle = add.enqueue(1)
    with background.lock:
        on = background.background()
    errors: list[BaseException] = []

    class Finalized:
        def __del__(self) -> None:
            for wait in (lambda: add.enqueue(1), handle.result, lambda: add.enqueue_many([(1,)]), connected.nodes):
                try:
                    wait()
                except BaseException as error:
                    errors.append(error)

    async def collect() -> None:
        dropped = [Finalized()]
        dropped.append(dropped)  # type: ignore[arg-type]
        del dropped
        gc.collect()

    on.start(collect()).result(PATIENCE_S)
    assert [type(error) for error in errors] == [RuntimeError] * 4 and "thread of rota's own" in str(errors[0])
    assert add.enqueue(2).result(timeout=PATIENCE_S) == 2


def test_a_client_may_be_used_again_while_it_begins(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a signal handler, or a finalizer, on the thread that is making it."""
    inner: list[int] = []
    made = background.background

    def interrupted() -> background.Background:
        if not inner:
            inner.append(0)
            inner[0] = client.enqueue(add, 1).result(timeout=PATIENCE_S)
        return made()

    with Client(node.url, token=TOKEN, key=KEYRING) as client:
        monkeypatch.setattr(background, "background", interrupted)
        assert client.enqueue(add, 2).result(timeout=PATIENCE_S) == 2
    assert inner == [1]
    ends = time.monotonic() + PATIENCE_S
    while node.port._sockets and time.monotonic() < ends:       # it hears of the goodbye a moment later
        time.sleep(0.01)
    assert not node.port._sockets, "one connection was left open"


HEAD = """
import atexit
atexit.register(lambda: after_rota())       # before rota's own, so called after it
import asyncio, sys, threading
import rota
from rota.client.wire.keyring import Keyring
from tests.client.sample_tasks import add
def connect():
    key = Keyring({{'k1': b'0123456789abcdef0123456789abcdef'}})
    return rota.connect({url!r}, token={token!r}, key=key)
def attempt(what, ask):
    try:
        said = ask()
    except BaseException as error:
        said = type(error).__name__
    if what:
        print(what, said, flush=True)
async def wait():
    return await (await add.aenqueue(5))
def ask():
    attempt("enqueue", lambda: add.enqueue(1).result(timeout=60))
    attempt("many", lambda: len(add.enqueue_many([(1,)])))
    attempt("async", lambda: asyncio.run(wait()))
    if handle is not None:
        attempt("result", lambda: handle.result(timeout=60))
        attempt("status", handle.status)
class Finalized:
    def __del__(self):
        ask()
handle = None
after_rota = bool
"""

ENDS = {
    "used before": ("keep = Finalized(); connect(); handle = add.enqueue(2)", ["ClientClosed"] * 5),
    "first use": ("keep = Finalized()", ["ClientClosed", "ClientClosed", "ImportError"]),    # asyncio cannot begin then
    "while threads wait": (
        "after_rota = ask; connect(); handle = add.using(run_after=60).enqueue(1)\n"
        "threads = [threading.Thread(target=lambda: attempt(None, handle.result), daemon=True) for _ in range(3)]\n"
        "for thread in threads: thread.start()",
        ["ClientClosed"] * 5,
    ),
    "atexit": (
        "atexit.register(lambda: attempt('atexit', lambda: add.enqueue(3).result(timeout=60)))\n"
        "after_rota = ask; connect(); handle = add.enqueue(2)\n"
        "atexit.register(lambda: attempt('atexit', lambda: asyncio.run(wait())))",
        ["5", "3"] + ["ClientClosed"] * 5,
    ),
    "an async client": (
        "keep = Finalized(); loop = asyncio.new_event_loop()\n"
        "client = rota.AsyncClient({url!r}, token={token!r}, key=Keyring({{'k1': b'0123456789abcdef' * 2}}))\n"
        "handle = loop.run_until_complete(client.enqueue(add, 1))",
        ["ClientClosed"] * 3 + ["RuntimeError"] * 2,
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_who_asks_while_the_process_ends_is_told_at_once(node: FakeNode, how: str) -> None:
    body, expected = ENDS[how]
    done = subprocess.run(
        [sys.executable, "-c", (HEAD + body).format(url=node.url, token=TOKEN)], cwd=ROOT, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    said = [line.split()[-1] for line in done.stdout.splitlines()]
    assert (done.returncode, said) == (0, expected), done.stdout + done.stderr


def test_a_client_on_a_loop_that_has_stopped_does_not_wait_for_it(node: FakeNode) -> None:
    loop = asyncio.new_event_loop()
    client = AsyncClient(node.url, token=TOKEN, key=KEYRING)
    handle = loop.run_until_complete(client.enqueue(add, 1))
    with pytest.raises(RuntimeError, match="running now"):
        handle.result()
    loop.run_until_complete(client.aclose())
    loop.close()


def test_a_closed_loop_is_an_error_of_rotas_own(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_background", None)        # one of its own: others go on with theirs
    with Client(node.url, token=TOKEN, key=KEYRING) as client:
        client.enqueue(add, 1)
        with background.lock:
            on = background.background()
        on.end()
        for ask in (lambda: client.enqueue(add, 1), client.nodes):
            with pytest.raises(ClientClosed):
                ask()
        monkeypatch.setattr(background, "_background", None)
