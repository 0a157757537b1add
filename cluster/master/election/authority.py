"""Whether a term goes on: its duties say here what they have met, and the term hears of it."""

from __future__ import annotations

import asyncio

from .election import Deposed


class OutOfStep(Exception):
    """What the master knows has parted from the store: look again."""


class Authority:
    """One term's. What comes after the first that is said counts for nothing, until the term looks again."""

    def __init__(self) -> None:
        self._ending: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()

    def depose(self) -> None:
        """The fence does not hold any more."""
        if self._ending is not None and not self._ending.done():
            self._ending.set_exception(Deposed("another node is master"))
            self._ending.exception()        # looked at: the term may have ended by itself

    def look_again(self, why: str) -> None:
        """The term goes on, from a fresh snapshot."""
        if self._ending is not None and not self._ending.done():
            self._ending.set_exception(OutOfStep(why))
            self._ending.exception()
            self._ending = asyncio.get_running_loop().create_future()

    def is_over(self) -> None:
        """The term has ended: whoever says something now is late."""
        ending, self._ending = self._ending, None
        if ending is not None and ending.done() and not ending.cancelled():
            ending.exception()      # looked at: it came while the term ended for another reason

    async def lost(self) -> None:
        """Raises what the first of them said: `Deposed`, or `OutOfStep`."""
        assert self._ending is not None
        await asyncio.shield(self._ending)      # who waits may be told to stop: what is said later is still heard
