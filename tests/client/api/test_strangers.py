"""Without a key a client takes results from this machine only: what it unpickles could otherwise be anybody's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from rota.client.api.clients import AsyncClient
from rota.client.calls.pickling import dump_value
from rota.client.errors import ConfigError, JobFailed, ResultInvalid, SignatureRefused
from rota.client.ids import parse_job_id
from rota.client.model import ResultEntry, Results
from rota.client.settings.hosts import is_loopback
from rota.client.transports import link
from rota.client.wire.codec import encode_results
from rota.client.wire.keyring import UNSIGNED

from ..fake_service import KEYRING, TOKEN, FakeService, fake_node
from ..sample_tasks import add, fail

BOOM: list[str] = []


class Bomb:
    def __reduce__(self) -> Any:
        return BOOM.append, ("went off",)


@pytest.fixture(autouse=True)
def no_bomb() -> Any:
    BOOM.clear()
    yield
    assert BOOM == [], "something was unpickled"


@pytest.mark.parametrize(("host", "ours"), [
    ("localhost", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True),
    ("::ffff:127.0.0.1", True), ("::1%lo", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
    ("::ffff:10.0.0.1", False), ("localhost.example.org", False), ("127.0.0.1.nip.io", False), ("example.org", False),
    ("", False), ("2130706433", False), ("0x7f000001", False),
])  # fmt: skip
def test_what_is_this_machine(host: str, ours: bool) -> None:
    assert is_loopback(host) is ours


@asynccontextmanager
async def stranger(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[FakeService, AsyncClient, str]]:
    """A node without keys at an address that is not this machine's, as far as its client can see."""
    service = FakeService(UNSIGNED)
    async with fake_node(service) as node, AsyncClient(node.url, token=TOKEN, key=UNSIGNED) as client:
        monkeypatch.setattr(link, "is_loopback", lambda host: False)
        yield service, client, node.url


async def test_a_strangers_result_is_not_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stranger(monkeypatch) as (service, client, _):
        service.run = False
        handle = await client.enqueue(add, 1)
        bundle = parse_job_id(handle.id)[0]
        value, _ = dump_value(Bomb())
        waiting = [asyncio.create_task(client.handle(handle.id).aresult(timeout=60)) for _ in range(2)]
        while not service.store.followers:      # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for push in service.store.followers[bundle]:
            push(bundle, encode_results(Results(bundle, [ResultEntry(0, "ok", value=value)])))
        for refused in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(refused, ResultInvalid) and "not this machine" in str(refused)
            assert "ROTA_KEY_FILE" in str(refused)


async def test_what_needs_no_unpickling_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stranger(monkeypatch) as (service, client, _):
        with pytest.raises(JobFailed, match="the reason"):
            await (await client.enqueue(fail, "the reason")).aresult(timeout=60)
        service.run = False
        handle = await client.enqueue(add, 1)
        bundle = parse_job_id(handle.id)[0]
        service.store.results[bundle] = encode_results(
            Results(bundle, [ResultEntry(0, "ok", value=json.dumps([1]).encode(), codec="json")])
        )
        assert await handle.aresult(timeout=60) == [1]


async def test_with_a_key_it_does_not_matter_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "is_loopback", lambda host: False)
    async with fake_node() as node, AsyncClient(node.url, token=TOKEN, key=KEYRING) as client:
        assert await (await client.enqueue(add, 1, 2)).aresult(timeout=60) == 3


async def test_on_this_machine_no_key_is_needed() -> None:
    async with fake_node(FakeService(UNSIGNED)) as node:
        for url in (node.url, node.url.replace("127.0.0.1", "localhost")):
            async with AsyncClient(url, token=TOKEN, key=UNSIGNED) as client:
                assert await (await client.enqueue(add, 1, 2)).aresult(timeout=60) == 3


async def test_it_is_the_address_that_counts_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client begins with the one, and goes on with the other."""
    service = FakeService(UNSIGNED)
    async with (
        fake_node(service) as ours, fake_node(FakeService(UNSIGNED, service.store)) as theirs,
        AsyncClient([ours.url], token=TOKEN, key=UNSIGNED) as client,
    ):
        engine = client._engine()
        engine.transport._links.urls = [ours.url, theirs.url]         # type: ignore[attr-defined] - not shuffled
        assert await (await client.enqueue(add, 1)).aresult(timeout=60) == 1
        monkeypatch.setattr(link, "is_loopback", lambda host: False)
        engine.transport._links._link.abandon()        # type: ignore[attr-defined]
        with pytest.raises(ResultInvalid, match="not this machine"):
            await (await client.enqueue(add, 2)).aresult(timeout=60)


async def test_arguments_of_a_job_are_not_read_from_strangers() -> None:
    async with fake_node(FakeService(UNSIGNED)) as node:
        elsewhere = node.url.replace("127.0.0.1", "example.org")
        async with AsyncClient([node.url, elsewhere], token=TOKEN, key=UNSIGNED) as client:
            with pytest.raises(SignatureRefused, match=r"example\.org.*not this machine"):
                await client.arguments("k3f9q2m7xa5t_0000001f_0")


async def test_a_redirect_is_not_followed() -> None:
    async with fake_node(FakeService(UNSIGNED)) as node:
        async def elsewhere(request: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(node.url + request.path_qs)

        app = web.Application()
        app.router.add_route("*", "/{any:.*}", elsewhere)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            url = str(site.name)
            async with AsyncClient(url, token=TOKEN, key=UNSIGNED, retry_window_s=20) as client:
                with pytest.raises(ConfigError, match="redirects to"):
                    await client.enqueue(add, 1)
        finally:
            await runner.cleanup()
