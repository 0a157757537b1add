"""The events of one job, pushed over a connection: page after page, taken up by another node where one goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol

from ..errors import RotaError
from ..wire.views import EventsPage

BEHIND_MAX = 100
"""Pages that wait for a slow reader: beyond them the stream is left, and later taken up where he is."""


class Stream:
    """What one link pushes of one job. `next()` raises what ended it."""

    def __init__(self, corr: int) -> None:
        self.corr = corr
        self.lapsed = False
        """The reader was too far behind: nothing is taken any more."""
        self._pages: deque[EventsPage] = deque()
        self._error: RotaError | None = None
        self._changed = asyncio.Event()

    def push(self, page: EventsPage) -> None:
        self.lapsed = self.lapsed or len(self._pages) >= BEHIND_MAX
        if not self.lapsed:
            self._pages.append(page)
            self._changed.set()

    def fail(self, error: RotaError) -> None:
        self._error = error
        self._changed.set()

    async def next(self) -> EventsPage | None:
        """None: it has lapsed."""
        while not self._pages:
            if self.lapsed:
                return None
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._pages.popleft()


class Watched(Protocol):
    """What is needed of a link."""

    async def watch(self, job: str, after: str) -> Stream: ...
    def leave(self, stream: Stream) -> None: ...


class Watch:
    """Where one reader is in the events of a job. It outlives links: `page` takes the one that works now."""

    def __init__(self, job: str) -> None:
        self.job = job
        self._next = ""
        self._link: Watched | None = None
        self._stream: Stream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def page(self, link: Watched) -> EventsPage:
        """What is new, as soon as there is something. Raises what `Link.ask` raises."""
        self._loop = asyncio.get_running_loop()
        while True:
            if self._stream is None or self._link is not link:
                self._leave()
                self._link, self._stream = link, await link.watch(self.job, self._next)
            try:
                page = await self._stream.next()
            except RotaError:
                self._link = self._stream = None
                raise
            if page is not None:
                self._next = page.next
                return page
            self._leave()

    def leave(self) -> None:
        """Nothing of it is wanted any more. From any thread, and at any time."""
        if self._loop is not None and self._stream is not None:
            with contextlib.suppress(RuntimeError):     # the loop has ended, and with it the link
                self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        if self._link is not None and self._stream is not None:
            self._link.leave(self._stream)
        self._link = self._stream = None
