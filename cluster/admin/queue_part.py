"""A part of the list of queues: a page of them is counted, however many there are."""

from __future__ import annotations

from msgspec.structs import replace

from rota.client.model import Rate
from rota.client.options.rates import words
from rota.client.wire.views import QueueView

from ..clock import Clock
from ..ledger.ledger import Ledger
from ..state.directory import Directory
from ..state.heads import Head, read_heads
from ..state.keys import Keys
from ..state.records import QueueRecord
from ..state.words import Words
from .counts import Counts
from .strides import Known

COUNT_MAX, COUNT_PER_QUEUE = 2_000, 20
READ_MAX, READ_PER_QUEUE = 10_000, 20
"""Records of one queue, and of all, that are counted: so many, or so many for each queue that is asked for."""


class QueueParts:
    def __init__(
        self, ledger: Ledger, keys: Keys, clock: Clock, directory: Directory, words: Words, known: Known
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._directory = directory
        self._words = words
        self._known = known

    async def part(self, after: str, limit: int) -> tuple[list[QueueView], str]:
        """Queues that hold jobs or have settings, behind the name `after`, and what to go on after ("": no more). They
        come as keys are ordered."""
        counts = Counts(
            self._ledger, self._keys, self._clock, after=after, queues_max=limit + 1,
            count_max=max(COUNT_MAX, COUNT_PER_QUEUE * limit), read_max=max(READ_MAX, READ_PER_QUEUE * limit),
            known=self._known,
        )
        await counts.count()
        settings = self._directory.queues
        names = sorted({*counts.rows, *settings}, key=_order)
        if after:
            names = [name for name in names if _order(name) > _order(after)]
        rows = []
        for name in names[:limit]:
            row, record = counts.row(name), settings.get(name)
            rows.append(row if record is None else with_settings(row, record))
        return await self._with_heads(rows), names[limit - 1] if len(names) > limit else ""

    async def _with_heads(self, rows: list[QueueView]) -> list[QueueView]:
        serial = sorted(row.queue for row in rows if row.serial)
        heads = {
            head.queue: head
            for head in await read_heads(self._ledger, self._keys, self._words, serial)
            if head.token.blocked
        }
        return [
            with_head(row, head) if (head := heads.get(row.queue)) is not None else row for row in rows
        ]


def with_settings(row: QueueView, record: QueueRecord) -> QueueView:
    return replace(
        row, paused=record.paused, serial=record.serial, max_concurrency=record.max_concurrency,
        rate=in_words(record.rate), max_waiting=record.max_waiting, on_full=record.on_full,
    )


def with_head(row: QueueView, head: Head) -> QueueView:
    """A serial queue that its head blocks."""
    error = head.token.error or "no error is known"
    why = f"job {head.job} failed for good ({error}) and blocks it: {head.advice}"
    return replace(row, blocked=head.job, why=why)


def in_words(rate: Rate | None) -> str | None:
    return None if rate is None else words(rate)


def _order(name: str) -> bytes:
    """As in keys, where a slash comes behind the name."""
    return name.encode() + b"/"
