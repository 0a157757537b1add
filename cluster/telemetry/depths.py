"""How deep the queues are, for metrics and the overview: counted within bounds, in the background, and never twice at
once. Whoever asks gets the last count and its age; only who asks makes the next one come.
"""

from __future__ import annotations

import asyncio

import msgspec

from rota.client.errors import LedgerError
from rota.client.wire.views import QueueView

from ..admin.counts import Counts, records_of
from ..admin.strides import Known
from ..clock import Clock
from ..ledger.ledger import Ledger
from ..state.keys import Keys

QUEUES_MAX = 1_000
"""Queues that are looked at, by name."""

COUNT_MAX = 2_000
READ_MAX = 10_000
"""Records of one queue, and of all, that are counted; of further queues it is seen that there is something."""

FRESH_S = 5.0
LOOK_S = 0.5
COST_SHARE = 50
"""Counting may take a fiftieth of the time: a count that took a second is used for fifty."""


class Depth(msgspec.Struct, frozen=True):
    """`rows` are the queues that hold something. `at_least`: some figure may be higher. `cut`: there are more.
    `records`: how many lie there in all, by the names of fields; each stands for one job or more."""

    at: float
    rows: list[QueueView]
    at_least: bool
    cut: bool
    records: dict[str, int] = {}

    def total(self, field: str) -> int:
        counted: int = sum(getattr(row, field) for row in self.rows)
        return max(counted, self.records.get(field, 0))

    @property
    def oldest_s(self) -> float | None:
        return max((row.oldest_s for row in self.rows if row.oldest_s is not None), default=None)


class Depths:
    """`known` is what the lists of the same node have found out of where things lie: this finds it out for them."""

    def __init__(self, ledger: Ledger, keys: Keys, clock: Clock, known: Known | None = None) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self.last: Depth | None = None
        self._known = known or Known()
        self._next_at = 0.0
        self._counting: asyncio.Task[None] | None = None

    async def ask(self, patience_s: float) -> Depth | None:
        """The last count, or a new one if it is there soon; None before the first."""
        if self._counting is None and self._clock.monotonic() >= self._next_at:
            self._counting = asyncio.get_running_loop().create_task(self._count(), name="depths")
        if self._counting is not None:
            await asyncio.wait([self._counting], timeout=patience_s)
        return self.last

    async def first(self) -> None:
        """The count that a node makes as it starts: of many queues it takes seconds, so that nobody has to wait for it
        later. What was counted to its end costs little: who asks has it counted anew."""
        while self.last is None:
            await self.ask(FRESH_S)
            if self.last is not None and not self.last.at_least:
                self._next_at = 0.0
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def _count(self) -> None:
        began = self._clock.monotonic()
        try:
            counts = Counts(
                self._ledger, self._keys, self._clock, queues_max=QUEUES_MAX, count_max=COUNT_MAX, read_max=READ_MAX,
                known=self._known,
            )
            await counts.count()
            rows = sorted(counts.rows.values(), key=lambda row: row.queue)
            at_least = bool(counts.at_least)
            records = await records_of(self._ledger, self._keys) if at_least else {}
            self.last = Depth(self._clock.wall(), rows, at_least, bool(counts.cut), records)
        except LedgerError:
            pass                    # the last count stands, and its age shows
        finally:
            ended = self._clock.monotonic()
            self._next_at = ended + max(FRESH_S, COST_SHARE * (ended - began))
            self._counting = None
