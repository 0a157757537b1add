"""What happens to one job, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from ..errors import Unreachable
from ..wire.views import EventsPage, JobEvent

MISSES_MAX = 10


class Teller(Protocol):
    """Who knows: a client. Each call waits until there is something new behind `after`, or a while has passed."""

    def news(self, job_id: str, after: str) -> EventsPage: ...
    async def anews(self, job_id: str, after: str) -> EventsPage: ...


class Happenings:
    """Events of one job, in a `for` or an `async for` loop; each loop begins with where the job is now. A node that
    goes away is replaced by another: nothing is told twice."""

    def __init__(self, teller: Teller, job_id: str) -> None:
        self._teller = teller
        self._job_id = job_id

    def __iter__(self) -> Iterator[JobEvent]:
        page, misses = EventsPage(), 0
        while not page.over:
            try:
                page, misses = self._teller.news(self._job_id, page.next), 0
            except Unreachable:
                misses += 1         # each has waited for a node as long as a client does
                if misses > MISSES_MAX:
                    raise
                continue
            yield from page.events

    async def __aiter__(self) -> AsyncIterator[JobEvent]:
        page, misses = EventsPage(), 0
        while not page.over:
            try:
                page, misses = await self._teller.anews(self._job_id, page.next), 0
            except Unreachable:
                misses += 1
                if misses > MISSES_MAX:
                    raise
                continue
            for event in page.events:
                yield event

    def __repr__(self) -> str:
        return f"<events of job {self._job_id}>"
