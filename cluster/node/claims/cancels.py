"""Requests to cancel jobs that a node holds. Rare, so every node sees all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Set

from ...ledger.follow import Listing, Show, follow
from ...ledger.ledger import Ledger
from ...state.keys import Keys, whole


class Cancels:
    """Known as long as `requests` is iterated."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys
        self._wanted: dict[str, set[int]] = {}      # bundle as it was enqueued -> indexes

    def of(self, bundle: str) -> Set[int]:
        """The jobs of a bundle (or of that which it is a piece of) that are to be cancelled."""
        return self._wanted.get(whole(bundle), frozenset())

    async def requests(self) -> AsyncIterator[tuple[str, int]]:
        """(bundle as it was enqueued, index) of each request, as it comes; after a gap those that are there again."""
        async with follow(self._ledger, self._keys.cancels, show=Show.KEYS) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    self._wanted = {}
                    keys = [(record.key, False) for record in seen.records]
                else:
                    keys = [(event.record.key, event.deleted) for event in seen.events]
                for key, ended in keys:
                    parsed = self._keys.parse_cancel(key)
                    if parsed is not None and self._note(*parsed, ended=ended):
                        yield parsed

    def _note(self, bundle: str, index: int, *, ended: bool) -> bool:
        wanted = self._wanted.setdefault(bundle, set())
        if not ended:
            wanted.add(index)
            return True
        wanted.discard(index)
        if not wanted:
            del self._wanted[bundle]
        return False
