"""Reading what lies by name, from any name on, at a cost that does not grow with what lies behind it.

etcd walks over every key of the range that is asked for, however few are wanted: of a million keys that takes half a
second, each time. So a range ends where the beginning of the key changes: at its last letters to begin with, at earlier
ones as long as little is found there; and where a page was full, where what all of the page begin with ends. What is
asked for is then some pages wide, however many names there are.
"""

from __future__ import annotations

from ..ledger.ledger import Ledger, Record, prefix_end

WIDE = 4
"""A range that holds no more than such a part of what is wanted is too narrow."""

DEAR = 20_000
"""What it costs to find where the next key lies, in keys walked over, that it is remembered for."""

KNOWN_MAX = 4_096


class Known:
    """Where the next key lay, behind places where nothing lay for long; looked at again each time. For whoever reads
    the same area often."""

    def __init__(self) -> None:
        self._next: dict[bytes, tuple[bytes, int]] = {}

    def get(self, at: bytes) -> tuple[bytes, int] | None:
        return self._next.get(at)

    def first(self, at: bytes) -> bytes | None:
        found = self._next.get(at)
        return found[0] if found is not None else None

    def put(self, at: bytes, key: bytes, letters: int) -> None:
        if len(self._next) >= KNOWN_MAX:
            self._next.clear()
        self._next[at] = key, letters

    def forget(self, at: bytes) -> None:
        self._next.pop(at, None)


class Strides:
    """The records below `area`, whose keys go on with a name and a slash; behind the name `after`, if it is given."""

    def __init__(
        self, ledger: Ledger, area: bytes, after: bytes = b"", *, keys_only: bool = False, known: Known | None = None
    ) -> None:
        self._ledger = ledger
        self._area = area
        self._keys_only = keys_only
        self._known = known or Known()
        self._at = prefix_end(area + after + b"/") if after else area
        self._end = prefix_end(area)
        self._letters = len(self._at) - len(area)       # so many, behind the area, all keys of a range begin with

    async def read(self, size: int) -> tuple[Record, ...]:
        """The next records, `size` at most; none at the end."""
        await self._leap()
        while self._at < self._end:
            at, letters, stop = self._at, *self._range()
            page = await self._ledger.read(at, stop, limit=size, keys_only=self._keys_only)
            self._at = page.records[-1].key + b"\0" if page.more else stop
            if page.more:
                self._letters = self._common(page.records)
            else:
                self._letters = letters - 1 if page.total * WIDE < size else letters
            if page.records:
                if page.total > DEAR:
                    self._known.put(at, page.records[0].key, self._letters)
                return page.records
        return ()

    def skip(self, name: bytes) -> None:
        """Go on behind all that this name has."""
        self._at = prefix_end(self._area + name + b"/")

    async def _leap(self) -> None:
        """Over what is known to hold nothing, if that is still so."""
        known = self._known.get(self._at)
        if known is None or known[0] <= self._at:
            return
        page = await self._ledger.read(self._at, known[0], limit=1, keys_only=True)
        if page.records:
            self._known.forget(self._at)
        else:
            self._at, self._letters = known

    def _range(self) -> tuple[int, bytes]:
        begins = self._at[len(self._area):]
        letters = max(0, min(self._letters, len(begins)))
        return letters, min(prefix_end(self._area + begins[:letters]), self._end) if letters else self._end

    def _common(self, records: tuple[Record, ...]) -> int:
        """How many letters behind the area the first and the last of them begin with."""
        first, last = records[0].key, records[-1].key
        letters = len(self._area)
        while letters < min(len(first), len(last)) and first[letters] == last[letters]:
            letters += 1
        return letters - len(self._area)
