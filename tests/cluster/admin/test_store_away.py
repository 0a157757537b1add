"""The store is away: what a node says of itself, what its pages answer, how commands end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from rota.client.errors import LedgerUnavailable, NoSpace, RotaError, WriteUnknown
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.cli.app import UNREACHABLE, exit_code
from rota.cluster.cli.inspect import look
from rota.cluster.cli.manage import operate
from rota.cluster.clock import SystemClock
from rota.cluster.context import NodeContext
from rota.cluster.events.hub import Events
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.node import Node
from rota.cluster.node.settings import NodeSettings
from rota.cluster.port import routes
from rota.cluster.port.http import HttpPort
from rota.cluster.state.keys import Keys
from rota.cluster.testing.local import LocalRunners

from ...client.fake_service import until

JOB = "k3f9q2m7xa5t_0000001f_0"


class Store(MemoryLedger):
    """`away` is raised instead of an answer."""

    away: RotaError | None = None

    async def read(self, *given: Any, **named: Any) -> Any:
        return await self._or_away(super().read, *given, **named)

    async def commit(self, *given: Any) -> Any:
        return await self._or_away(super().commit, *given)

    async def keep_alive(self, *given: Any) -> Any:
        return await self._or_away(super().keep_alive, *given)

    async def grant(self, *given: Any) -> Any:
        return await self._or_away(super().grant, *given)

    async def _or_away(self, ask: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if self.away is not None:
            await asyncio.sleep(0.01)
            raise self.away
        return await ask(*given, **named)


@asynccontextmanager
async def node_on(store: Store) -> AsyncIterator[tuple[Node, HttpPort]]:
    settings = NodeSettings(name="n", python="3.11", version="0", lease_ttl_s=2, grace_s=0.0)
    context = NodeContext(
        ledger=store, keys=Keys("t"), clock=SystemClock(), rng=random.Random(1), seal=Seal(UNSIGNED, "t"),
        events=Events(),
    )
    node = Node(settings, context, LocalRunners({"async": 1, "sync": 1}))
    running = asyncio.create_task(node.run())
    async with HttpPort(node.service) as port:
        await until(lambda: node.service.why_not_ready() is None)
        yield node, port
    running.cancel()
    await asyncio.wait([running])
    await store.close()


async def test_it_is_said_by_the_node_by_its_pages_and_by_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "ANSWER_S", 0.3)
    store = Store()
    async with node_on(store) as (node, port), aiohttp.ClientSession() as web:
        store.away = LedgerUnavailable("connection refused")
        for command, arguments in (
            (look.nodes, ()), (look.queues, ()), (operate.list_, (None, 50)), (look.job, (JOB, False)),
            (operate.pause, ("x",)), (operate.cancel, ([JOB],)),
        ):
            with pytest.raises(RotaError) as caught:
                await asyncio.to_thread(command, *arguments, url=port.url)  # type: ignore[arg-type]
            assert exit_code(caught.value) == UNREACHABLE, command
            assert "store" in str(caught.value), command
            assert "unexpected error" not in str(caught.value), command
        async with web.get(f"{port.url}/v1/queues") as answer:
            assert answer.status == 503 and "Retry-After" in answer.headers
            assert (await answer.json())["error"] == "Unreachable"

        await until(lambda: (node.service.why_not_ready() or "").startswith("the store does not renew its lease"))
        await until(lambda: "nothing runs here until it answers" in (node.service.why_not_ready() or ""))
        async with web.get(f"{port.url}/readyz") as answer:
            assert answer.status == 503 and "the store" in (await answer.json())["why"]
        async with web.post(f"{port.url}/v1/jobs", json={"task": "m:f"}) as answer:
            assert answer.status == 503
        store.away = None
        await until(lambda: node.service.why_not_ready() is None)


async def test_a_store_that_takes_nothing_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    async with node_on(store) as (node, port), aiohttp.ClientSession() as web:
        assert node.identities.life is not None
        node.identities.life.intake.full = "the store is full (etcd's NOSPACE alarm)"
        async with web.get(f"{port.url}/readyz") as answer:
            assert answer.status == 503 and "NOSPACE" in (await answer.json())["why"]
        store.away = NoSpace("quota used up")
        async with web.post(f"{port.url}/v1/queues/x", json={"paused": True}) as answer:
            assert answer.status == 503 and "is full" in (await answer.json())["message"]
        store.away = WriteUnknown("no answer")
        async with web.get(f"{port.url}/v1/jobs/{JOB}") as answer:
            assert answer.status == 503
