"""Events of a job over a connection: nodes that go, readers that are slow or leave, nodes that know nothing of it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rota.client.api.clients import AsyncClient, Client
from rota.client.calls.watching import Watch
from rota.client.errors import Overloaded, ProtocolMismatch
from rota.client.transports import streams
from rota.cluster.port import happenings

from ..fake_service import KEYRING, TOKEN, TellingService, fake_node, fake_node_in_thread, until
from ..sample_tasks import add

JOB = "k3f9q2m7xa5t_00000001_0"


def client(*urls: str) -> AsyncClient:
    return AsyncClient(urls, token=TOKEN, key=KEYRING)


async def test_a_node_that_goes_is_replaced_and_nothing_is_told_twice() -> None:
    one, two = TellingService(), TellingService()
    for service in (one, two):
        service.tell()
    async with fake_node(two) as second, fake_node(one) as first, client(first.url, second.url) as rota:
        events = aiter(rota.handle(JOB).events())
        assert (await anext(events)).at == 1
        asked, other = (one, two) if one.asked else (two, one)
        for served in [*first.port._sockets, *second.port._sockets]:
            await served.close()
        following = asyncio.ensure_future(anext(events))
        await until(lambda: (JOB, "1") in other.asked)
        other.tell(over=True)
        assert (await following).at == 2
        assert [event async for event in events] == []
        assert (JOB, "") not in other.asked and asked.asked[0] == (JOB, "")


async def test_who_leaves_the_loop_is_pushed_nothing_more() -> None:
    service = TellingService()
    service.tell()
    async with fake_node(service) as node, client(node.url) as rota:
        events = rota.handle(JOB).events().__aiter__()
        await anext(events)
        assert node.port._streams._open == 1
        await events.aclose()       # type: ignore[attr-defined]
        await until(lambda: node.port._streams._open == 0)


def test_the_plain_client_leaves_too() -> None:
    service = TellingService()
    with fake_node_in_thread(service) as node, Client(node.url, token=TOKEN, key=KEYRING) as rota:
        service.tell()
        for event in rota.handle(JOB).events():
            assert event.at == 1
            break
        gone = threading.Event()
        for _ in range(500):
            if node.port._streams._open == 0:
                break
            gone.wait(0.01)
        assert node.port._streams._open == 0


async def test_a_link_that_breaks_as_a_job_is_watched_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    service = TellingService()
    service.tell()
    async with fake_node(service) as node, client(node.url) as rota:
        await rota.enqueue(add, 1)

        async def broken(data: bytes) -> None:
            raise ConnectionResetError("gone")

        monkeypatch.setattr(rota._engine().transport._links._link._ws, "send_bytes", broken)  # type: ignore[attr-defined]
        assert (await anext(aiter(rota.handle(JOB).events()))).at == 1


async def test_who_is_cancelled_as_its_watch_begins_leaves_nothing_behind() -> None:
    watch, left = Watch(JOB), list[object]()

    class Cut:
        async def next(self) -> None:
            raise asyncio.CancelledError

    class Link:
        async def watch(self, job: str, after: str) -> Cut:
            watch.leave()           # by its reader, who has gone: there was nothing to leave yet
            return Cut()

        def leave(self, stream: object) -> None:
            left.append(stream)

    with pytest.raises(asyncio.CancelledError):
        await watch.page(Link())
    assert len(left) == 1


async def test_a_reader_that_is_far_behind_takes_it_up_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BEHIND_MAX", 3)
    service = TellingService()
    async with fake_node(service) as node, client(node.url) as rota:
        events = aiter(rota.handle(JOB).events())
        service.tell()
        assert (await anext(events)).at == 1
        for _ in range(9):
            service.tell()
        service.tell(over=True)
        await until(lambda: (JOB, "10") in service.asked)       # all of it has been sent
        assert [event.at async for event in events] == list(range(2, 12))
        assert len({after for _, after in service.asked}) < len(service.asked), "some were asked for again"


async def test_a_node_that_is_full_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happenings, "STREAMS_MAX", 0)
    monkeypatch.setattr(happenings, "FULL_S", 0.01)
    async with fake_node(TellingService()) as node, client(node.url) as rota:
        events = aiter(rota.handle(JOB).events())
        soon = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        monkeypatch.setattr(happenings, "STREAMS_MAX", 1)
        node.service.tell()         # type: ignore[attr-defined]
        assert (await soon).at == 1


async def test_a_node_from_before_is_not_sent_what_it_cannot_read() -> None:
    async with fake_node(TellingService()) as node, client(node.url) as rota:
        await rota.enqueue(add, 1)
        rota._engine().transport._links._link.hello.pushes_events = False      # type: ignore[attr-defined]
        with pytest.raises(ProtocolMismatch, match="upgrade nodes before clients"):
            await anext(aiter(rota.handle(JOB).events()))


def test_overloaded_names_the_limit() -> None:
    streams = happenings.Streams()
    for _ in range(happenings.STREAMS_MAX):
        streams.enter()
    with pytest.raises(Overloaded, match="500 clients"):
        streams.enter()
