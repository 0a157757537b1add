"""Reading what lies by name, from any name on, at a cost that does not grow with what lies behind it.

etcd walks over every key of the range that is asked for, however few are wanted: of a million keys that takes a third
of a second, each time. So a range ends where the beginning of the name changes: at its last letters to begin with, at
earlier ones as long as little is found there. What is asked for is then some letters of names wide, however many names
there are.
"""

from __future__ import annotations

from ..ledger.ledger import Ledger, Record, prefix_end

WIDE = 4
"""A range that holds so many times what is wanted is too wide; one that holds no more than such a part too narrow."""


class Strides:
    """The records below `area`, whose keys go on with a name and a slash; behind the name `after`, if it is given."""

    def __init__(self, ledger: Ledger, area: bytes, after: bytes = b"", *, keys_only: bool = False) -> None:
        self._ledger = ledger
        self._area = area
        self._keys_only = keys_only
        self._at = prefix_end(area + after + b"/") if after else area
        self._end = prefix_end(area)
        self._letters = len(self._beginning())      # so many that the names of a range have in common

    async def read(self, size: int) -> tuple[Record, ...]:
        """The next records, `size` at most; none at the end."""
        while self._at < self._end:
            letters, stop = self._range()
            page = await self._ledger.read(self._at, stop, limit=size, keys_only=self._keys_only)
            self._at = page.records[-1].key + b"\0" if page.more else stop
            if page.total > WIDE * size:
                left = len(self._beginning()) - letters
                self._letters = letters + max(1, left * 3 // 4)
            elif page.total * WIDE < size:
                self._letters = letters - 1
            else:
                self._letters = letters
            if page.records:
                return page.records
        return ()

    def skip(self, name: bytes) -> None:
        """Go on behind all that this name has."""
        self._at = prefix_end(self._area + name + b"/")

    def _beginning(self) -> bytes:
        """The name that is to be read next, as far as it is known, with its slash if it is known to its end."""
        name, slash, _ = self._at[len(self._area):].partition(b"/")
        return name + slash

    def _range(self) -> tuple[int, bytes]:
        known = self._beginning()
        letters = max(0, min(self._letters, len(known)))
        return letters, min(prefix_end(self._area + known[:letters]), self._end) if letters else self._end
