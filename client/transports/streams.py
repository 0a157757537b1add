"""What one link pushes of one job, until its reader comes for it."""

from __future__ import annotations

import asyncio
from collections import deque

from ..errors import RotaError
from ..wire.views import EventsPage

BEHIND_MAX = 100
"""Pages that wait for a slow reader: beyond them the stream is left, and later taken up where he is."""


class Stream:
    """`next()` raises what ended it."""

    def __init__(self, corr: int) -> None:
        self.corr = corr
        self._lapsed = False            # the reader was too far behind: nothing is taken any more
        self._pages: deque[EventsPage] = deque()
        self._error: RotaError | None = None
        self._changed = asyncio.Event()

    def push(self, page: EventsPage) -> None:
        self._lapsed = self._lapsed or len(self._pages) >= BEHIND_MAX
        if not self._lapsed:
            self._pages.append(page)
            self._changed.set()

    def fail(self, error: RotaError) -> None:
        self._error = error
        self._changed.set()

    async def next(self) -> EventsPage | None:
        """None: it has lapsed."""
        while not self._pages:
            if self._lapsed:
                return None
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._pages.popleft()
