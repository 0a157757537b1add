"""A whole node on a ledger in memory, in virtual time, with runners that do as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from rota.client.errors import EnqueueError
from rota.client.model import Enqueue, Outcome, Receipt
from rota.client.wire.keyring import UNSIGNED, Keyring
from rota.cluster.events.records import ClusterEvent
from rota.cluster.node.node import Node
from rota.cluster.node.settings import NodeSettings
from rota.worker.channel.frames import Work
from rota.worker.pool.interface import NodeSide

from .bench import BUNDLE, KEYS, NODE, Bench, FakeRunners, a_moment, body, play


class WholeRunners(FakeRunners):
    """They remember what was done to them."""

    def __init__(self) -> None:
        super().__init__()
        self.side: NodeSide | None = None
        self.killed = 0
        self.stopped = 0
        self.reported: list[tuple[str, int, str]] = []
        self.at_once: set[str] = set()
        """Bundles whose jobs begin as soon as they come."""

    async def start(self, node: NodeSide) -> None:
        self.side = node

    def submit(self, work: Work) -> None:
        super().submit(work)
        if work.bundle in self.at_once:
            self.begin(work, *(index for index, _ in work.jobs))

    async def kill_all(self) -> None:
        self.killed += 1
        self.not_begun.clear()

    async def stop(self, grace_s: float) -> None:
        self.stopped += 1

    def report(self, work: Work, index: int, error: str) -> None:
        self.reported.append((work.bundle, index, error))


class Whole:
    def __init__(self, bench: Bench, runners: WholeRunners, settings: NodeSettings) -> None:
        self.bench = bench
        self.runners = runners
        self.events: list[Any] = []
        self.node = Node(settings, bench.node, runners)
        self.running = asyncio.create_task(self.node.run("there:4100"), name="node")

    def listen(self, *kinds: type[ClusterEvent]) -> None:
        self.node.events.listen(self.events.append, kinds)

    async def ready(self) -> None:
        async with asyncio.timeout(60.0):
            while self.node.service.why_not_ready() is not None:
                await a_moment(0.1)

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(60.0):
            while not is_so():
                await a_moment(0.1)

    async def enqueue(self, bundle: str = BUNDLE, count: int = 2) -> Receipt | EnqueueError:
        call = Enqueue(bundle, "m:f", "q", count, "async", body(bundle, count))
        (answer,) = await self.node.service.enqueue([call], 0)
        return answer

    def end(self, work: Work, *indexes: int) -> None:
        assert self.runners.side is not None
        self.runners.side.on_outcomes([(work.key, Outcome(index, "ok")) for index in indexes])


def live(
    deed: Callable[[Whole], Awaitable[None]], runners: WholeRunners | None = None, keyring: Keyring = UNSIGNED,
    **settings: Any,
) -> None:
    """Do something with a node that runs. It is cancelled at the end if it runs still."""
    async def main(bench: Bench) -> None:
        await bench.delete(KEYS.node(NODE))         # the bench's own: here is another member
        whole = Whole(bench, runners or WholeRunners(), NodeSettings(name="n", python="3.11", version="0", **settings))
        try:
            await deed(whole)
        finally:
            whole.running.cancel()
            await asyncio.wait([whole.running])

    play(main, keyring)
