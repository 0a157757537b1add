"""What happens to one job, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from ..wire.views import EventsPage, JobEvent
from .watching import Watch


class Teller(Protocol):
    """Who knows: a client. Each call waits until there is something new."""

    def news(self, watch: Watch) -> EventsPage: ...
    async def anews(self, watch: Watch) -> EventsPage: ...


class Happenings:
    """Events of one job, in a `for` or an `async for` loop; each loop begins with where the job is now. A node that
    goes away is replaced by another: nothing is told twice."""

    def __init__(self, teller: Teller, job_id: str) -> None:
        self._teller = teller
        self._job_id = job_id

    def __iter__(self) -> Iterator[JobEvent]:
        watch, page = Watch(self._job_id), EventsPage()
        try:
            while not page.over:
                page = self._teller.news(watch)
                yield from page.events
        finally:
            watch.leave()

    async def __aiter__(self) -> AsyncIterator[JobEvent]:
        watch, page = Watch(self._job_id), EventsPage()
        try:
            while not page.over:
                page = await self._teller.anews(watch)
                for event in page.events:
                    yield event
        finally:
            watch.leave()

    def __repr__(self) -> str:
        return f"<events of job {self._job_id}>"
