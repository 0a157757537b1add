"""Waiting for many jobs at once: on the client's loop they are followed together, and handed over as they end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ResultTimeout, RotaError
from ..model import ResultEntry

if TYPE_CHECKING:
    from .engine import Engine

AT_ONCE_MAX = 10_000
"""Jobs that are waited for at a time; the next have their turn as these end."""

Ref = tuple[str, int]
Ended = tuple[int, ResultEntry | RotaError]
"""Its place among those waited for, and what became of it."""


class Gathering:
    """All methods are called on the engine's loop. `close()` it."""

    def __init__(self, engine: Engine, refs: Sequence[Ref], timeout_s: float | None) -> None:
        self._engine = engine
        self._refs = refs
        self._look = timeout_s is not None and timeout_s <= 0
        self._timeout_s = timeout_s
        self._until = None if timeout_s is None or self._look else engine.loop.time() + timeout_s
        self._left = len(refs)
        self._ended: list[Ended] = []
        self._news = asyncio.Event()
        self._feeder = engine.loop.create_task(self._feed(), name="rota gathering")

    async def next(self) -> list[Ended]:
        """Some that have ended; an empty list when all have been told. Raises `ResultTimeout`."""
        while self._left:
            if self._ended:
                ended, self._ended = self._ended, []
                self._left -= len(ended)
                return ended
            if self._feeder.done():
                self._feeder.result()
                self._time_out()            # some were looked for, and have not ended
            self._news.clear()
            try:
                async with asyncio.timeout_at(self._until):
                    await self._news.wait()
            except TimeoutError:
                self._time_out()
        return []

    async def close(self) -> None:
        self._feeder.cancel()
        await asyncio.wait([self._feeder])

    def _time_out(self) -> None:
        text = f"{self._left:,} of {len(self._refs):,} jobs have not ended within {self._timeout_s:g} s"
        raise ResultTimeout(text)

    async def _feed(self) -> None:
        room = asyncio.Semaphore(AT_ONCE_MAX)
        try:
            async with asyncio.TaskGroup() as group:
                for place, ref in enumerate(self._refs):
                    await room.acquire()
                    group.create_task(self._wait(place, ref, room), name="rota result")
        finally:
            self._news.set()

    async def _wait(self, place: int, ref: Ref, room: asyncio.Semaphore) -> None:
        outcome: ResultEntry | RotaError
        try:
            if not self._look:
                outcome = await self._engine.result_entry(*ref, None)
            elif (found := await self._engine.look(*ref)) is not None:
                outcome = found
            else:
                return
        except RotaError as error:
            outcome = error
        finally:
            room.release()
        self._ended.append((place, outcome))
        self._news.set()
