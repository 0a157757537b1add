"""A client and its nodes over real sockets: nodes that die, stall, refuse, and lie."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from rota.client.api.clients import AsyncClient
from rota.client.api.requests import connection as connection_to
from rota.client.errors import (
    ConfigError,
    EnqueueUnknown,
    InvalidJob,
    Overloaded,
    ProtocolMismatch,
    RotaError,
    SignatureRefused,
    Unauthorized,
    UnknownTask,
    Unreachable,
)
from rota.client.model import HEADER_SCHEMA, HEADER_SCHEMA_MAX, Results
from rota.client.transports import connection, link
from rota.client.wire import frames as wire
from rota.client.wire.codec import decode_header, decode_results
from rota.client.wire.keyring import Keyring

from ...proxy import Mode, Proxy
from ..fake_service import KEYRING, TOKEN, FakeService, FakeStore, fake_node, until
from ..sample_tasks import add

DEAD = "http://127.0.0.1:1"


def client(
    *urls: str, window_s: float = 20.0, token: str | None = TOKEN, key: Keyring = KEYRING,
    connect_s: float | None = None,
) -> AsyncClient:
    return AsyncClient(urls, token=token, key=key, retry_window_s=window_s, connect_timeout_s=connect_s)


# -- clients and nodes of two releases


@pytest.mark.parametrize("schema", [HEADER_SCHEMA, HEADER_SCHEMA_MAX])
async def test_bundles_are_signed_as_the_whole_cluster_can_read_them(schema: int) -> None:
    service = FakeService()
    service.header_schema = schema
    async with fake_node(service) as node, client(node.url) as rota:
        many = await rota.enqueue_many(add, [(number,) for number in range(100)])
        await asyncio.gather(*(rota.enqueue(add, number) for number in range(100)))
        assert [await handle for handle in many] == list(range(100))
    several = [bundle for bundle in service.store.bundles.values() if bundle.count > 1]
    assert len(several) >= 3 and {decode_header(bundle.body)[0].v for bundle in several} == {schema}
    assert all(decode_header(bundle.body)[0].v == 2 for bundle in service.store.bundles.values() if bundle.count == 1)


async def test_a_client_of_the_release_before_reads_results_that_were_signed_together(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of what it reads; and its way of verifying knows signatures of jobs only."""
    pushed: list[Results] = []
    original = Keyring.results_of

    def results_of(self: Keyring, bundle: str, data: bytes, cluster: str) -> Results:
        pushed.append(original(self, bundle, data, cluster))
        return pushed[-1]

    monkeypatch.setattr(Keyring, "results_of", results_of)
    async with fake_node() as node:
        for old in (False, True):
            async with client(node.url) as rota:
                if old:
                    del connection_to(rota._engine())._links._headers[wire.RESULTS_HEADER]
                handles = await rota.enqueue_many(add, [(number,) for number in range(50)])
                assert [await handle for handle in handles] == list(range(50))
            assert {results.v for results in pushed} == {1 if old else 2}
            assert all(bool(entry.tag) is old for results in pushed for entry in results.entries)
            pushed.clear()
        assert {decode_results(data).v for data in node.store.results.values()} == {2}


# -- failover


async def test_a_node_that_goes_is_replaced_by_the_next_without_duplicates() -> None:
    store = FakeStore()
    async with fake_node(FakeService(store=store, node="n2")) as second:
        async with fake_node(FakeService(store=store, node="n1")) as first, client(first.url, second.url) as rota:
            handles = []

            async def enqueue_all() -> None:
                for number in range(300):
                    handles.append(await rota.enqueue(add, number))

            async with asyncio.TaskGroup() as group:
                group.create_task(enqueue_all())
                await until(lambda: len(handles) > 50)
                # Whichever it is connected to, every second answer is cut off after the node has stored the bundles.
                for node in (first, second) * 3:
                    node.service.hold = asyncio.Event()
                    before = len(handles)
                    for served in list(node.port._sockets):
                        await served.close()
                    node.service.hold.set()
                    node.service.hold = None
                    await until(lambda before=before: len(handles) > before + 5)  # type: ignore[misc]
            results = await asyncio.gather(*handles)
        assert results == list(range(300))
        assert len({handle.id for handle in handles}) == store.jobs == store.runs == 300


async def test_what_a_node_stored_and_never_answered_is_asked_again_of_the_next() -> None:
    store = FakeStore()
    async with (
        fake_node(FakeService(store=store)) as first,
        fake_node(FakeService(store=store)) as second,
        Proxy(int(first.url.rsplit(":", 1)[1])) as proxy,
        client(proxy.endpoint) as rota,
    ):
        await rota.enqueue(add, 1)
        await proxy.set(Mode.MUTE)
        waiting = [asyncio.create_task(rota.enqueue(add, number)) for number in range(64)]
        await until(lambda: store.jobs > 1)
        stored = store.jobs
        proxy.target_port = int(second.url.rsplit(":", 1)[1])
        await proxy.set(Mode.RESET)
        await proxy.set(Mode.PASS)
        handles = await asyncio.gather(*waiting)
        assert store.jobs == 65 >= stored
        assert first.service.requests[-1] == second.service.requests[0], "it is repeated unchanged"
        assert sorted(await asyncio.gather(*handles)) == list(range(64))


async def test_a_node_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections stay open and nothing comes back: a frozen process, a lost route."""
    monkeypatch.setattr(link, "HEARTBEAT_S", 0.2)
    store = FakeStore()
    async with (
        fake_node(FakeService(store=store)) as first,
        fake_node(FakeService(store=store)) as second,
        Proxy(int(first.url.rsplit(":", 1)[1])) as one,
        Proxy(int(second.url.rsplit(":", 1)[1])) as two,
        client(one.endpoint, two.endpoint) as rota,
    ):
        await rota.enqueue(add, 1)
        await (one if first.service.requests else two).set(Mode.BLACKHOLE)
        handle = await rota.enqueue(add, 2)
        assert await handle == 2
        assert len(first.service.requests) == len(second.service.requests) == 1


async def test_a_node_that_never_answers_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is alive, but cut off from the store."""
    monkeypatch.setattr(connection, "ANSWER_S", 0.2)
    store = FakeStore()
    async with (
        fake_node(FakeService(store=store)) as first,
        fake_node(FakeService(store=store)) as second,
        client(first.url, second.url) as rota,
    ):
        await rota.enqueue(add, 1)
        stuck = first.service if first.service.requests else second.service
        stuck.hold = asyncio.Event()
        await rota.enqueue(add, 2)
        assert store.jobs == 2
        stuck.hold.set()


async def test_waiting_for_results_survives_a_node() -> None:
    store = FakeStore()
    service = FakeService(store=store)
    service.run = False
    async with (
        fake_node(FakeService(store=store)) as second,
        fake_node(service) as first,
        client(first.url, second.url) as rota,
    ):
        second.service.run = False
        handles = [await rota.enqueue(add, number) for number in range(5)]
        waiting = [asyncio.create_task(handle.aresult()) for handle in handles]
        await until(lambda: sum(map(len, store.followers.values())) == 5)
        for node in (first, second):
            node.service.follow_calls.clear()
            for served in list(node.port._sockets):
                await served.close()
        await until(lambda: len(first.service.follow_calls + second.service.follow_calls) == 1)
        service.run_all()
        assert await asyncio.gather(*waiting) == [0, 1, 2, 3, 4]


async def test_unreachable_says_where_and_what_to_do() -> None:
    async with client(DEAD, window_s=0.5) as rota:
        with pytest.raises(Unreachable, match=r"no node can be reached: http://127.0.0.1:1: .*ROTA_URL"):
            await rota.enqueue(add, 1)
        with pytest.raises(Unreachable):
            await rota.enqueue_many(add, [(1,)])


async def test_one_address_of_several_is_enough() -> None:
    async with fake_node() as node:
        for _ in range(4):      # they are tried in random order
            async with client(DEAD, "http://localhost:1", node.url) as rota:
                assert await (await rota.enqueue(add, 1)) == 1


async def test_an_enqueue_waits_for_a_node_to_come() -> None:
    async with fake_node() as node, Proxy(int(node.url.rsplit(":", 1)[1])) as proxy:
        await proxy.set(Mode.REFUSE)
        async with client(proxy.endpoint) as rota:
            waiting = asyncio.create_task(rota.enqueue(add, 1))
            await asyncio.sleep(0.2)
            await proxy.set(Mode.PASS)
            assert await (await waiting) == 1


# -- answers that are not the end


async def test_no_definite_answer_within_the_window() -> None:
    service = FakeService()
    service.hold = asyncio.Event()
    async with fake_node(service) as node, client(node.url, window_s=0.5) as rota:
        with pytest.raises(EnqueueUnknown, match="it may be stored") as caught:
            await rota.enqueue(add, 1)
        assert caught.value.bundle in service.store.bundles
        service.hold.set()


async def test_a_node_that_is_gone_after_it_took_the_bundle() -> None:
    async with (
        fake_node() as node,
        Proxy(int(node.url.rsplit(":", 1)[1])) as proxy,
        client(proxy.endpoint, window_s=1.0) as rota,
    ):
        await rota.enqueue(add, 1)
        await proxy.set(Mode.MUTE)
        waiting = asyncio.create_task(rota.enqueue(add, 2))
        await until(lambda: node.store.jobs == 2)
        await proxy.set(Mode.REFUSE)
        with pytest.raises(EnqueueUnknown):
            await waiting
        with pytest.raises(Unreachable):    # this one was never handed to anybody
            await rota.enqueue(add, 3)


async def test_overloaded_is_tried_again_and_then_told() -> None:
    service = FakeService()
    async with fake_node(service) as node, client(node.url, window_s=2.0) as rota:
        service.faults = [Overloaded("no identity now", 0.01)]
        service.refusals = [Overloaded("the store is full", 0.01), Overloaded("the store is full", 0.01)]
        await rota.enqueue(add, 1)
        assert len(service.requests) == 4
        service.faults = [Overloaded("come back later", 60.0)]
        with pytest.raises(Overloaded, match="come back later") as caught:
            await rota.enqueue(add, 1)
        assert caught.value.retry_after_s == 60.0


async def test_a_node_without_identity_is_left_for_another() -> None:
    store = FakeStore()
    async with (
        fake_node(FakeService(store=store)) as first,
        fake_node(FakeService(store=store)) as second,
        client(first.url, second.url, window_s=5.0) as rota,
    ):
        await rota.enqueue(add, 0)
        lost = first.service if first.service.requests else second.service
        lost.faults = [Overloaded("no identity now", 0.01)] * 100_000
        for number in range(10):
            await rota.enqueue(add, number)
        assert store.jobs == 11 and len(lost.requests) == 2


async def test_a_fault_in_the_node_is_not_taken_for_an_answer() -> None:
    class Broken(FakeService):
        async def enqueue(self, bundles, seen_revision):  # type: ignore[no-untyped-def]
            await super().enqueue(bundles, seen_revision)
            if len(self.requests) == 1:
                raise ZeroDivisionError("a bug")
            return await super().enqueue(bundles, seen_revision)

    service = Broken()
    async with fake_node(service) as node, client(node.url) as rota:
        assert await (await rota.enqueue(add, 1)) == 1
        assert service.store.jobs == 1


@pytest.mark.parametrize("error", [
    InvalidJob("no"), UnknownTask("no"), SignatureRefused("no"),
])
async def test_refusals_are_final(error: RotaError) -> None:
    service = FakeService()
    async with fake_node(service) as node, client(node.url) as rota:
        service.refusals = [error]  # type: ignore[list-item]
        with pytest.raises(type(error), match="no"):
            await rota.enqueue(add, 1)
        service.faults = [error]
        with pytest.raises(type(error), match="no"):
            await rota.enqueue(add, 1)
        assert len(service.requests) == 2
        assert await (await rota.enqueue(add, 1)) == 1


# -- who is who


@pytest.mark.parametrize("token", ["wrong", None, TOKEN + "x", TOKEN[:-1]])
async def test_a_wrong_token(token: str | None) -> None:
    async with fake_node() as node, client(node.url, token=token) as rota:
        start = time.monotonic()
        with pytest.raises(Unauthorized, match=r"refused the bearer token.*ROTA_TOKEN_FILE"):
            await rota.enqueue(add, 1)
        assert time.monotonic() - start < 5, "no use in trying again"
        assert node.store.jobs == 0


async def test_a_wrong_key() -> None:
    other = Keyring({"k9": bytes(32)})
    async with fake_node() as node:
        async with client(node.url, key=other) as rota:
            with pytest.raises(SignatureRefused, match="signed with key 'k9'; known here: k1"):
                await rota.enqueue(add, 1)
        async with client(node.url, key=Keyring({})) as rota:
            with pytest.raises(SignatureRefused, match="unsigned"):
                await rota.enqueue(add, 1)
    assert node.store.jobs == 0


async def test_addresses_of_two_clusters() -> None:
    async with fake_node(FakeService(cluster="a")) as first, fake_node(FakeService(cluster="b")) as second:
        async with Proxy(int(first.url.rsplit(":", 1)[1])) as proxy, client(proxy.endpoint) as rota:
            await rota.enqueue(add, 1)
            proxy.target_port = int(second.url.rsplit(":", 1)[1])
            await proxy.set(Mode.RESET)
            await proxy.set(Mode.PASS)
            with pytest.raises(ConfigError, match="belongs to the cluster 'b', other addresses to 'a'"):
                await rota.enqueue(add, 1)
        assert second.store.jobs == 0


@asynccontextmanager
async def speaks(*frames: bytes, status: int = 101, headers: dict[str, str] | None = None) -> AsyncIterator[str]:
    """Something else than a node: sends these frames, then says nothing more."""
    async def serve(request: web.Request) -> web.StreamResponse:
        if status != 101:
            return web.Response(status=status, headers=headers)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        for frame in frames:
            await ws.send_bytes(frame)
        await ws.receive()
        return ws

    app = web.Application()
    app.router.add_get(wire.PATH, serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_other_versions_of_the_protocol() -> None:
    hello = wire.encode(wire.Hello(99, "test", "n1", []))
    async with speaks(hello) as url, client(url) as rota:
        with pytest.raises(ProtocolMismatch, match="speaks protocol 99, this client 1: upgrade this client"):
            await rota.enqueue(add, 1)
    async with speaks(status=426, headers={wire.PROTOCOL_HEADER: "0"}) as url, client(url) as rota:
        with pytest.raises(ProtocolMismatch, match="speaks protocol 0, this client 1"):
            await rota.enqueue(add, 1)


@pytest.mark.parametrize("frame", [b"", b"hello", b"\x91\x06", wire.encode(wire.Done(1))])
async def test_what_is_no_node(frame: bytes) -> None:
    async with speaks(frame) as url, client(url, connect_s=0.2) as rota:
        with pytest.raises(Unreachable, match="does not speak like a rota node"):
            await rota.enqueue(add, 1)
    async with speaks(status=404) as url, client(url, connect_s=0.2) as rota:
        with pytest.raises(Unreachable, match="answered 404"):
            await rota.enqueue(add, 1)


async def test_a_node_that_answers_nonsense_is_left() -> None:
    hello = wire.encode(wire.Hello(wire.PROTOCOL, "test", "n1", []))
    answers = (wire.encode(wire.Done(1)), b"\xff\xff", wire.encode(wire.EnqueueReply(1, [])))
    for answer in answers:
        async with speaks(hello, answer) as url, client(url, window_s=0.7) as rota:
            with pytest.raises((EnqueueUnknown, Unreachable)):
                await rota.enqueue(add, 1)
