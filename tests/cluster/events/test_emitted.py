"""What a node does is emitted, once, from its joining to its leaving."""

from __future__ import annotations

import asyncio
import random

import pytest

import rota
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.clock import SystemClock
from rota.cluster.context import NodeContext
from rota.cluster.events import records
from rota.cluster.events.hub import Events
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.node import Node
from rota.cluster.node.settings import NodeSettings
from rota.cluster.port.http import HttpPort
from rota.cluster.state.keys import Keys
from rota.cluster.testing.local import LocalRunners


@rota.task(max_attempts=1)
def once() -> None:
    raise ValueError("no luck")


async def test_a_life_in_events() -> None:
    events, heard = Events(), []
    events.listen(heard.append, records.ClusterEvent.__subclasses__())
    ledger, settings = MemoryLedger(), NodeSettings(name="n", python="3.11", version="0", grace_s=1.0)
    context = NodeContext(
        ledger=ledger, keys=Keys("t"), clock=SystemClock(), rng=random.Random(1), seal=Seal(UNSIGNED, "t"),
        events=events,
    )
    node = Node(settings, context, LocalRunners({"async": 5, "sync": 2}))
    async with HttpPort(node.service) as port:
        life = asyncio.create_task(node.run(), name="node")
        async with asyncio.timeout(20), rota.AsyncClient(port.url) as client:
            while node.service.why_not_ready() or not node.directory.master:    # noqa: ASYNC110 - no one says so
                await asyncio.sleep(0.01)
            assert await (await client.enqueue(lambda: 7)) == 7
            with pytest.raises(rota.JobFailed):
                await (await client.enqueue(once))
        node.drain()
        await life
    names = [event.name for event in heard]
    assert names == [
        "node_joined", "became_master", "bundle_taken", "job_ended", "bundle_taken", "job_ended", "node_leaving",
        "node_left",
    ]
    good, bad = [event for event in heard if isinstance(event, records.JobEnded)]
    assert (good.outcome, good.error, good.attempt) == ("ok", "", 1)
    assert bad.outcome == "failed" and "no luck" in bad.error
    assert [event.jobs for event in heard if isinstance(event, records.BundleTaken)] == [1, 1]
