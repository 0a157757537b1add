"""Where a reader is in the events of one job. (Every module with a task imports this: no event loop here.)"""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import RotaError
from ..wire.views import EventsPage


class Watched(Protocol):
    """What is needed of a link: a stream has `next()`, a page, or None where the reader was too far behind."""

    async def watch(self, job: str, after: str) -> Any: ...
    def leave(self, stream: Any) -> None:
        """From any thread, and at any time."""
        ...


class Watch:
    """It outlives links: `page` takes the one that works now."""

    def __init__(self, job: str) -> None:
        self.job = job
        self._next = ""
        self._link: Watched | None = None
        self._stream: Any = None

    async def page(self, link: Watched) -> EventsPage:
        """What is new, as soon as there is something. Raises what `Link.ask` raises."""
        while True:
            if self._stream is None or self._link is not link:
                self.leave()
                self._link, self._stream = link, await link.watch(self.job, self._next)
            try:
                page: EventsPage | None = await self._stream.next()
            except RotaError:
                self._link = self._stream = None
                raise
            except BaseException:       # cancelled: who has left may have done so before there was a stream
                self.leave()
                raise
            if page is not None:
                self._next = page.next
                return page
            self.leave()

    def leave(self) -> None:
        """Nothing of it is wanted any more. From any thread, and at any time."""
        link, stream = self._link, self._stream
        self._link = self._stream = None
        if link is not None and stream is not None:
            link.leave(stream)
