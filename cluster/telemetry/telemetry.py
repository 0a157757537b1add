"""A node's telemetry: its counters, its hour, the cluster's history, and the feed of what happens."""

from __future__ import annotations

import asyncio
import secrets
from importlib.metadata import version

from ..admin.strides import Known
from ..context import NodeContext
from ..ledger.patience import steadily
from ..state.directory import Directory
from .chronicle import Chronicle
from .depths import Depths
from .feed import Feed
from .figures import Observed
from .hour import Hour
from .metered import StoreFigures
from .overview import Overview, overview
from .records import Happened, NodeSeen
from .tally import Tally

SAMPLE_S = 1.0
DEPTHS_S = 2.0
"""How long a scrape waits for a count of the queues; else it shows the one before."""

OVERVIEW_S = 0.15


class Telemetry:
    """`run` beside the node; the rest answers whoever asks, from memory."""

    def __init__(
        self, observed: Observed, context: NodeContext, directory: Directory,
        store: StoreFigures | None = None, known: Known | None = None,
    ) -> None:
        ledger, keys, clock, events = context.ledger, context.keys, context.clock, context.events
        self._observed = observed
        self._keys = keys
        self._clock = clock
        self._directory = directory
        self._store = store or StoreFigures()
        self._process = secrets.token_hex(6)
        self.tally = Tally()
        self.tally.listen(events)
        self._hour = Hour()
        self._taken = self._taken_before = 0
        self._per_s = (0.0, 0.0)
        self._samples: list[tuple[float, int, int]] = []
        self.feed = Feed(events, clock, lambda: observed.figures().node)
        self.depths = Depths(ledger, keys, clock, known)
        self._chronicle = Chronicle(observed, ledger, keys, clock, directory, events, self.feed, self._say)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for what, work in (
                    ("sampling", self._sample), ("following the history", self._chronicle.follow),
                    ("writing the history", self._chronicle.write), ("saying what is counted", self._chronicle.say),
                    ("looking at the members", self._chronicle.observe),
                    ("pruning the history", self._chronicle.prune), ("counting the queues", self.depths.first),
                ):
                    group.create_task(steadily(what, work), name=f"telemetry: {what}")
        finally:
            await self.depths.close()

    # -- for whoever asks --------------------------------------------------------------------------------------------

    async def metrics(self) -> bytes:
        """In Prometheus' text format."""
        from .exposition import Snapshot, exposition  # late: a node that nobody scrapes need not load the library

        figures = self._observed.figures()
        self._count(figures.taken)
        return exposition(Snapshot(
            cluster=self._keys.cluster, version=version("rota"), figures=figures, tally=self.tally, store=self._store,
            members=len(self._directory.members), enqueued=self._taken,
            depth=await self.depths.ask(DEPTHS_S) if figures.is_master else None,
        ))

    def history(self, limit: int) -> list[Happened]:
        """What happened to the cluster, the newest first."""
        return self._chronicle.newest(limit)

    async def overview(self) -> Overview:
        """The cluster as this node knows it now. Other nodes are asked for their part, which comes a moment later:
        `Overview.missing` names those whose part is not here."""
        await self._chronicle.ask()
        depth = await self.depths.ask(OVERVIEW_S)
        figures = self._observed.figures()
        parts = self._chronicle.nodes | ({figures.node: self._say()} if figures.node else {})
        return overview(
            self._keys.cluster, self._directory, parts, self._chronicle.past, self._chronicle, depth,
            self._store.status, self._clock.wall(),
        )

    def pulse(self) -> tuple[object, ...]:
        """Changes when a page that shows the cluster would."""
        figures = self._observed.figures()
        members = tuple(sorted((node, it.state) for node, it in self._directory.members.items()))
        parts = tuple(
            (node, part.running, sum(minute.enqueued + minute.ended for minute in part.hour))
            for node, part in sorted(self._chronicle.nodes.items())
        )
        ended = sum(sum(outcomes.values()) for outcomes in self.tally.ended.values())
        return (
            self._directory.master, members, parts, figures.running, ended, self._taken, len(self._directory.queues),
            self.depths.last is not None,
        )

    async def ask(self) -> None:
        """Keep the other nodes telling."""
        await self._chronicle.ask()

    # -- counting ----------------------------------------------------------------------------------------------------

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S)
            self._sample_once()
            self._pace()

    def _sample_once(self) -> None:
        self._count(self._observed.figures().taken)
        self._hour.sample(self._clock.wall(), self.tally, self._taken)

    def _pace(self) -> None:
        """Rates over the last ten seconds."""
        ended = sum(sum(outcomes.values()) for outcomes in self.tally.ended.values())
        self._samples = [*self._samples[-10:], (self._clock.monotonic(), self._taken, ended)]
        (t0, taken0, ended0), (t1, taken1, ended1) = self._samples[0], self._samples[-1]
        span = max(t1 - t0, SAMPLE_S)
        self._per_s = round((taken1 - taken0) / span, 1), round((ended1 - ended0) / span, 1)

    def _count(self, taken: int) -> None:
        """Over all identities: each begins at 0."""
        self._taken += taken - self._taken_before if taken >= self._taken_before else taken
        self._taken_before = taken

    def _say(self) -> NodeSeen:
        self._sample_once()
        figures = self._observed.figures()
        wall_s = round(self._clock.wall(), 3)
        return NodeSeen(wall_s, self._process, figures.running, self._hour.minutes(), *self._per_s)
