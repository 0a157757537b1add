"""How long a client goes on: a little where no node is, the whole retry window where an answer was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

import rota
from rota.client.api.clients import AsyncClient, Client
from rota.client.errors import ConfigError, EnqueueUnknown, InvalidJob, Overloaded, Unreachable
from rota.client.settings.config import client_config
from rota.client.wire.views import StatsView
from rota.cluster.boot.embedded import free_port

from ...proxy import Mode as ProxyMode
from ...proxy import Proxy
from ..fake_service import KEYRING, TOKEN, FakeNode, fake_node, until
from ..sample_tasks import add

DEAD = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
LONG_S = 60.0
PATIENCE_S = 20.0       # of these tests; far less than the retry window that they say


def client(*urls: str, connect_timeout_s: float = 0.2) -> AsyncClient:
    return AsyncClient(
        urls, token=TOKEN, key=KEYRING, retry_window_s=LONG_S, connect_timeout_s=connect_timeout_s
    )


def in_time(waiting: Any) -> Any:
    return asyncio.wait_for(waiting, PATIENCE_S)


# -- no node is there


@pytest.mark.parametrize("ask", [
    lambda rota: rota.enqueue(add, 1), lambda rota: rota.enqueue_many(add, [(1,)]), lambda rota: rota.nodes(),
    lambda rota: rota.handle("k3f9q2m7xa5t_0000001f_0").aresult(), lambda rota: rota.enqueue("shop:look", 1),
    lambda rota: rota.pause("q"), lambda rota: rota.enqueue(lambda: 1),
])  # fmt: skip
async def test_where_no_node_is_it_takes_no_retry_window(ask: Callable[[AsyncClient], Any]) -> None:
    async with client(*DEAD) as rota:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1.*ROTA_URL"):
            await in_time(ask(rota))


def test_so_for_blocking_clients() -> None:
    with Client(DEAD, retry_window_s=LONG_S, connect_timeout_s=0.0) as rota:
        for ask in (lambda: rota.enqueue(add, 1), lambda: rota.enqueue_many(add, [(1,)]), rota.queues):
            with pytest.raises(Unreachable):
                ask()


async def test_every_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_node() as node:
        for place in range(3):
            urls = [*DEAD]
            urls.insert(place, node.url)
            async with client(*urls, connect_timeout_s=0.0) as rota:
                assert await in_time((await rota.enqueue(add, place)).aresult()) == place


async def test_who_comes_later_does_not_wait_all_over_again_and_finds_a_node_that_has_come_back() -> None:
    port = free_port()
    async with client(f"http://127.0.0.1:{port}", connect_timeout_s=0.5) as rota:
        with pytest.raises(Unreachable):
            await in_time(rota.enqueue(add, 1))
        transport: Any = rota._engine().transport
        before = transport._links._misses
        with pytest.raises(Unreachable):
            await in_time(rota.enqueue(add, 1))
        assert transport._links._misses <= before + 2, "one more try, not half a second of them"
        async with fake_node(port=port):
            assert await in_time((await rota.enqueue(add, 7)).aresult()) == 7


async def test_a_node_that_starts_meanwhile_is_found() -> None:
    port = free_port()
    async with client(f"http://127.0.0.1:{port}", connect_timeout_s=LONG_S) as rota:
        waiting = asyncio.create_task(rota.enqueue(add, 1))
        transport: Any = rota._engine().transport
        await until(lambda: transport._links._misses > 2)
        async with fake_node(port=port):
            assert await in_time((await waiting).aresult()) == 1


# -- an answer was lost


@asynccontextmanager
async def lost_answer(task: Any) -> AsyncIterator[tuple[Proxy, FakeNode, Any, asyncio.Task[Any]]]:
    """A node has stored a job and is gone before it answers."""
    async with fake_node() as node, Proxy(int(node.url.rsplit(":", 1)[1])) as proxy, client(proxy.endpoint) as rota:
        await rota.enqueue(add, 0)
        await proxy.set(ProxyMode.MUTE)
        waiting = asyncio.create_task(rota.enqueue(task, 1))
        await until(lambda: node.store.jobs == 2)
        await proxy.set(ProxyMode.REFUSE)
        yield proxy, node, rota._engine().transport, waiting


async def test_a_lost_answer_is_worth_the_whole_window() -> None:
    async with lost_answer(add) as (proxy, node, transport, waiting):
        await until(lambda: transport._links._misses > 5)      # more than ten times the connect timeout has passed
        assert not waiting.done()
        await proxy.set(ProxyMode.PASS)
        assert await in_time((await in_time(waiting)).aresult()) == 1
        assert node.store.jobs == 2, "it was repeated, not stored twice"


async def test_what_is_unsure_is_said_when_the_window_is_over() -> None:
    async with lost_answer(add.using(retry_window=1)) as (_, _, _, waiting):
        with pytest.raises(EnqueueUnknown):
            await in_time(waiting)


# -- as it was said


async def test_who_is_asked_to_come_back_later_is_told_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overloaded over HTTP: the pause is the header's, and a page of a proxy in between has none."""
    async with fake_node() as node, client(node.url) as rota:
        async def stats() -> StatsView:
            raise Overloaded("too much at once", retry_after_s=7.0)

        monkeypatch.setattr(node.service, "stats", stats)
        with pytest.raises(Overloaded, match="too much at once") as told:
            await in_time(rota.stats())
        assert told.value.retry_after_s == 7.0
    assert Overloaded("from elsewhere").retry_after_s == 1.0


async def test_an_enqueue_may_say_it_for_itself() -> None:
    port = free_port()
    async with client(f"http://127.0.0.1:{port}", connect_timeout_s=LONG_S) as asked:
        hasty = add.using(connect_timeout=timedelta(seconds=0.1))
        named = rota.NamedTask("shop:look").using(connect_timeout=0)
        patient = asyncio.create_task(asked.enqueue(add, 1))
        for ask in (asked.enqueue(hasty, 1), asked.enqueue_many(hasty, [(1,)]), asked.enqueue(named, 1)):
            with pytest.raises(Unreachable):
                await in_time(ask)
        assert not patient.done(), "who is in a hurry does not wait for who is not, nor takes him along"
        async with fake_node(port=port):
            assert await in_time((await in_time(patient)).aresult()) == 1


def test_what_may_be_said() -> None:
    route = add.using(retry_window=5, connect_timeout=timedelta(seconds=1)).route
    assert (route.retry_s, route.connect_s) == (5.0, 1.0) and add.route.retry_s is None
    for wrong in (0, -1, 61, float("nan"), "5"):
        with pytest.raises(InvalidJob, match="retry_window"):
            add.using(retry_window=wrong)  # type: ignore[arg-type]
    for wrong in (-1, 61, "1"):
        with pytest.raises(InvalidJob, match="connect_timeout"):
            add.using(connect_timeout=wrong)  # type: ignore[arg-type]


def test_what_the_environment_says() -> None:
    def read(environ: dict[str, str], **given: Any) -> tuple[float, float]:
        config = client_config("127.0.0.1", environ=environ, **given)
        return config.retry_window_s, config.connect_timeout_s

    said = {"ROTA_RETRY_WINDOW": "10", "ROTA_CONNECT_TIMEOUT": "0.5"}
    assert read({}) == (30.0, 3.0)
    assert read(said) == (10.0, 0.5)
    assert read(said, retry_window_s=20, connect_timeout_s=1) == (20, 1)
    for wrong in ({"ROTA_RETRY_WINDOW": "0"}, {"ROTA_RETRY_WINDOW": "soon"}, {"ROTA_CONNECT_TIMEOUT": "99"}):
        with pytest.raises(ConfigError):
            read(wrong)
