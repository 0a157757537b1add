"""What all nodes know of each other for people who look: the history of the cluster, and the last hour of each node.

It goes through the store, as everything does; nodes do not talk to each other. The history is written when something
happens to the cluster (seldom, and at most `NOTED_MAX` times a minute). The hours are written once a minute, where they
have changed, and often while somebody looks: whoever does writes `seen/asked`, every node sees that, and says for half
a minute what it has counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import msgspec

from rota.client.errors import LedgerError

from ..clock import Clock
from ..events import records as r
from ..events.hub import Events
from ..ledger.follow import Listing, follow
from ..ledger.ledger import Delete, Event, Ledger, Op, Put, Txn
from ..state.directory import Directory
from ..state.keys import Keys
from .feed import Feed
from .figures import Observed
from .records import Happened, NodeSeen, happened_in, history_key, node_seen_in

NOTED: tuple[type[r.ClusterEvent], ...] = (
    r.NodeJoined, r.IdentityEnded, r.LeaseExpired, r.LeaseSurvived, r.StoreBack, r.NodeLeaving, r.NodeLeft, r.NodeGone,
    r.BecameMaster, r.MastershipEnded, r.SnapshotRetaken, r.TookOver, r.FailedDropped, r.StrayFound,
    r.OverwriteMended, r.StrangerDeposed, r.ScheduleRefused, r.BulkStarted, r.BulkEnded, r.KeyMissing,
)
"""What belongs into the history."""

NOTED_MAX = 30
"""A node writes so many in a minute; what else happens then is in its own log only."""

KEPT = 200
KEPT_OF_MASTERS = 20
"""Elections and takeovers that are kept, however old."""

OF_MASTERS = ("became_master", "took_over")
ASKED_S = 30.0
"""Whoever looks is told for so long."""

ASK_AGAIN_S = 10.0
SAY_S = 2.0
"""How often a node says what it has counted, while somebody looks; of a large cluster's nodes, each less often."""

NODES_AT_THAT_PACE = 20
UNASKED_S = 60.0
"""How often it says so while nobody does."""

PRUNE_S = 60.0
PAST_MAX = 100
LOOK_S = 0.5


class Chronicle:
    """`history` and `nodes` are what is known; `run` keeps them, and writes this node's part."""

    def __init__(
        self, observed: Observed, ledger: Ledger, keys: Keys, clock: Clock, directory: Directory, events: Events,
        feed: Feed, say: Callable[[], NodeSeen],
    ) -> None:
        self._observed = observed
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._directory = directory
        self._events = events
        self._feed = feed
        self._say = say
        self.history: dict[bytes, Happened] = {}
        self.nodes: dict[str, NodeSeen] = {}
        self.past: dict[str, NodeSeen] = {}
        """What those said last, by process, that are members no more: it was done, and belongs to the hour."""
        self._to_write: deque[Happened] = deque(maxlen=NOTED_MAX)
        self._written: deque[float] = deque(maxlen=NOTED_MAX)
        self._number = 0
        self._wake = asyncio.Event()
        self._asked = asyncio.Event()
        self._asked_until = 0.0
        self._asking_again = 0.0
        self._own: set[bytes] = set()           # keys that this node has written
        self._met: set[str] = set()
        self._gone_emitted: set[str] = set()
        events.listen(self._note, NOTED)

    # -- what is known -----------------------------------------------------------------------------------------------

    def newest(self, limit: int = KEPT) -> list[Happened]:
        return [self.history[key] for key in sorted(self.history, reverse=True)[:limit]]

    def last(self, event: str, node: str = "") -> Happened | None:
        return next((it for it in self.newest(len(self.history)) if it.event == event and node in ("", it.node)), None)

    async def ask(self) -> None:
        """Have all nodes say what they count, for a while."""
        now, identity = self._clock.monotonic(), self._observed.identity()
        self._asked_until = now + ASKED_S
        self._asked.set()
        if identity is None or now < self._asking_again:
            return
        self._asking_again = now + ASK_AGAIN_S
        await self._write(Put(self._keys.seen_asked, f"{self._clock.wall():.3f}".encode(), identity[1]))

    # -- keeping it --------------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        async with follow(self._ledger, self._keys.seen) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    self.history.clear()
                    for node in list(self.nodes):
                        self._bury(self.nodes.pop(node))
                    for record in seen.records:
                        self._apply(Event(False, record), listed=True)
                else:
                    for event in seen.events:
                        self._apply(event, listed=False)

    def _apply(self, event: Event, *, listed: bool) -> None:
        key, keys = event.record.key, self._keys
        if key.startswith(keys.seen_history):
            self._apply_history(event, listed=listed)
        elif key.startswith(keys.seen_nodes):
            node = key[len(keys.seen_nodes):].decode(errors="replace")
            seen = None if event.deleted else node_seen_in(event.record.value)
            if seen is None:
                self._bury(self.nodes.pop(node, None))
            else:
                self.nodes[node] = seen
        elif key == keys.seen_asked and not event.deleted and not listed:
            self._asked_until = self._clock.monotonic() + ASKED_S
            self._asked.set()

    def _bury(self, seen: NodeSeen | None) -> None:
        if seen is not None:
            self.past[seen.process] = seen
            hour_ago = self._clock.wall() - 3600.0
            self.past = {it.process: it for it in list(self.past.values())[-PAST_MAX:] if it.at > hour_ago}

    def _apply_history(self, event: Event, *, listed: bool) -> None:
        key = event.record.key
        happened = None if event.deleted else happened_in(event.record.value)
        if happened is None:
            self.history.pop(key, None)
            self._own.discard(key)
            return
        self.history[key] = happened
        if not listed and key not in self._own:
            self._feed.put(happened)

    # -- this node's part of the history -----------------------------------------------------------------------------

    def _note(self, event: r.ClusterEvent) -> None:
        self._to_write.append(self._feed.describe(event))
        self._wake.set()

    async def write(self) -> None:
        """What happened here, as soon as this node can write."""
        while True:
            await self._wake.wait()
            while self._to_write:
                if self._observed.identity() is None:
                    await asyncio.sleep(LOOK_S)
                    continue
                happened = self._to_write.popleft()
                now = self._clock.monotonic()
                if len(self._written) == NOTED_MAX and self._written[0] > now - 60.0:
                    continue
                self._written.append(now)
                await self._write_down(happened)
            self._wake.clear()

    async def _write_down(self, happened: Happened) -> None:
        """Under a key of its own, so that a repeat is harmless. What cannot be written for a minute is let go: it is in
        the log."""
        self._number += 1
        node = happened.node or self._observed.figures().node
        happened = msgspec.structs.replace(happened, node=node)
        key = history_key(self._keys, happened.at, node, self._number)
        self._own.add(key)
        for _ in range(60):
            if await self._write(Put(key, msgspec.json.encode(happened))):
                return
            await asyncio.sleep(1.0)

    async def _write(self, *ops: Op) -> bool:
        identity = self._observed.identity()
        if identity is None:
            return False
        try:
            return (await self._ledger.commit(Txn((identity[0],), ops))).succeeded
        except LedgerError:
            return False

    async def prune(self) -> None:
        """The master keeps the history short."""
        while True:
            await asyncio.sleep(PRUNE_S)
            if self._observed.figures().is_master:
                await self.prune_once()

    async def prune_once(self) -> None:
        keys = sorted(self.history, reverse=True)
        of_masters = [key for key in keys if self.history[key].event in OF_MASTERS][:KEPT_OF_MASTERS]
        old = [key for key in keys[KEPT:] if key not in of_masters]
        for at in range(0, len(old), 100):
            await self._write(*(Delete(key) for key in old[at:at + 100]))

    # -- this node's hour --------------------------------------------------------------------------------------------

    async def say(self) -> None:
        """What this node has counted, when it has changed: every two seconds while somebody looks, else once a minute,
        so that a node that is lost takes no more than a minute with it."""
        written: NodeSeen | None = None
        of_identity: int | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UNASKED_S):
                    await self._asked.wait()
            seen, identity = self._say(), self._observed.identity()
            if identity is not None and (written is None or identity[1] != of_identity or _differ(written, seen)):
                key = self._keys.seen_nodes + self._observed.figures().node.encode()
                if await self._write(Put(key, msgspec.json.encode(seen), identity[1])):
                    written, of_identity = seen, identity[1]
            if self._clock.monotonic() >= self._asked_until:
                self._asked.clear()
            else:
                await asyncio.sleep(SAY_S * max(1.0, len(self._directory.members) / NODES_AT_THAT_PACE))

    # -- members that are gone ---------------------------------------------------------------------------------------

    async def observe(self) -> None:
        """The master says which nodes are gone that did not say so themselves: those that it has seen as members, and
        those that said they joined. Two looks must agree, for what it follows can be a little apart."""
        doubtful: set[str] = set()
        while True:
            await asyncio.sleep(LOOK_S)
            members = set(self._directory.members)
            self._met |= members
            gone = (self._met | self._nodes_of("node_joined")) - members
            if gone:
                gone -= self._nodes_of("node_leaving", "node_left", "node_gone")
                self._met &= members | gone
            if gone & doubtful and self._observed.figures().is_master:
                for node in sorted(gone & doubtful):
                    self._events.emit(r.NodeGone(node))
                self._met -= gone & doubtful
                self._gone_emitted |= gone & doubtful
            self._gone_emitted &= gone
            doubtful = gone - self._gone_emitted

    def _nodes_of(self, *events: str) -> set[str]:
        return {str(it.fields.get("node")) for it in self.history.values() if it.event in events}


def _differ(one: NodeSeen, other: NodeSeen) -> bool:
    return msgspec.structs.replace(one, at=0.0) != msgspec.structs.replace(other, at=0.0)

