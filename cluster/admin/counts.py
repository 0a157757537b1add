"""How many jobs each queue has: counted when somebody asks, up to a limit, and said where the limit was met."""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec.structs import replace

from rota.client.wire.views import QueueView

from ..clock import Clock
from ..ledger.ledger import Ledger, Record, prefix_end
from ..ledger.scan import PAGE, scan
from ..state.keys import Keys
from ..state.records import RunningRecord, claim_in, decode, waiting_at
from .strides import Known, Strides

COUNT_MAX = 20_000
"""Records of one queue (and of all that is scheduled, or claimed) that are counted: exact figures of a backlog of
millions are not worth reading it."""

READ_MAX = 5 * COUNT_MAX
"""Records that are counted in all; of further queues it is only seen that there is something."""

LOOK = 2
"""As many records say whether a queue has one or more."""


class Counts:
    """One count. `rows` holds a view of each queue that was met.

    A part of the queues can be counted: those whose names are behind `after` (as keys are ordered), and of each kind of
    record no more than `queues_max` of them; `cut` says of which there are more. `count_max` and `read_max` are limits
    as above."""

    def __init__(
        self, ledger: Ledger, keys: Keys, clock: Clock, *, after: str = "", queues_max: int | None = None,
        count_max: int = COUNT_MAX, read_max: int = READ_MAX, known: Known | None = None,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._after = after.encode()
        self._queues_max = queues_max
        self._count_max = count_max
        self._read_max = read_max
        self._known = known
        self.cut: set[str] = set()      # fields of which there are more queues
        self.rows: dict[str, QueueView] = {}

    async def count(self) -> None:
        await self._waiting()
        await self._moving("scheduled", self._keys.scheduled)
        await self._awaiting()
        await self._moving("claimed", self._keys.claims)
        await self._failed()
        await self._running()

    @property
    def at_least(self) -> set[str]:
        """Fields whose sum may be higher."""
        return self.cut | {field for row in self.rows.values() for field in row.at_least}

    def row(self, queue: str) -> QueueView:
        return self.rows.get(queue) or QueueView(queue)

    async def _waiting(self) -> None:
        now = self._clock.wall()
        async for record in self._by_queue("waiting", self._keys.jobs):
            token = waiting_at(self._keys, record)
            if token is not None:
                row = self.row(token.queue)
                oldest_s = max(row.oldest_s or 0.0, now - token.at / 1000)
                self.rows[token.queue] = replace(row, waiting=row.waiting + token.pending, oldest_s=oldest_s)

    async def _awaiting(self) -> None:
        async for record in self._by_queue("awaiting", self._keys.awaiting):
            token = waiting_at(self._keys, record)
            if token is not None:
                row = self.row(token.queue)
                self.rows[token.queue] = replace(row, awaiting=row.awaiting + token.pending)

    async def _failed(self) -> None:
        async for record in self._by_queue("failed", self._keys.failed, keys_only=True):
            if (parsed := self._keys.parse_failed(record.key)) is not None:
                row = self.row(parsed[0])
                self.rows[row.queue] = replace(row, failed=row.failed + 1)

    async def _running(self) -> None:
        """What nodes say of themselves."""
        more = False
        async for record in scan(self._ledger, self._keys.running):
            running = decode(RunningRecord, record.value)
            for job in running.jobs if running is not None else ():
                row = self.row(job.queue)
                self.rows[job.queue] = replace(row, running=row.running + 1)
            more |= running is not None and running.more > 0
        if more:
            self.rows = {name: _at_least(row, "running") for name, row in self.rows.items()}

    async def _moving(self, field: str, prefix: bytes) -> None:
        """What does not lie by queue."""
        counted = 0
        async for record in scan(self._ledger, prefix, limit=self._count_max):
            counted += 1
            claimed = prefix == self._keys.claims
            token = claim_in(record.value) if claimed else waiting_at(self._keys, record)
            if token is not None:
                row = self.row(token.queue)
                self.rows[token.queue] = replace(row, **{field: getattr(row, field) + token.pending})
        if counted >= self._count_max:
            self.rows = {name: _at_least(row, field) for name, row in self.rows.items()}

    async def _by_queue(self, field: str, prefix: bytes, *, keys_only: bool = False) -> AsyncIterator[Record]:
        """Each queue's records, up to the limit; a queue that has more is left for the next one."""
        strides = Strides(self._ledger, prefix, self._after, keys_only=keys_only, known=self._known)
        counted = read = queues = 0
        queue = b""
        while records := await strides.read(min(PAGE, self._count_max + 1) if read < self._read_max else LOOK):
            for record in records:
                name = record.key[len(prefix):].partition(b"/")[0]
                counted = counted + 1 if name == queue else 1
                queues += name != queue
                if self._queues_max is not None and queues > self._queues_max:
                    self.cut.add(field)
                    return
                queue = name
                read += 1
                if counted > (self._count_max if read <= self._read_max else 1):
                    known = name.decode(errors="replace")
                    self.rows[known] = _at_least(self.row(known), field)
                    strides.skip(name)
                    break
                yield record


async def records_of(ledger: Ledger, keys: Keys) -> dict[str, int]:
    """How many records there are, by fields, as etcd counts them: jobs enqueued by themselves have one each."""
    found = {}
    for field, area in (
        ("waiting", keys.jobs), ("scheduled", keys.scheduled), ("awaiting", keys.awaiting), ("failed", keys.failed)
    ):
        page = await ledger.read(area, prefix_end(area), limit=1, keys_only=True)
        found[field] = page.total
    return found


def _at_least(row: QueueView, field: str) -> QueueView:
    return row if field in row.at_least else replace(row, at_least=[*row.at_least, field], exact=False)
