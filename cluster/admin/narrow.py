"""Reading what waits from any place on, at a cost that does not grow with what lies behind it.

etcd walks over every key of the range that is asked for, however few are wanted. So a range ends a few orders behind
where it begins; and where the first key of an area lies is remembered, for to find it the whole area is walked over,
once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..ledger.ledger import Ledger, Page, prefix_end
from ..state.keys import ORDER_DIGITS, ORDER_MAX, Keys
from .strides import Known

SPAN = 256
"""Orders that are asked for at first; four times as many each time that few keys are found."""
GROWTH = 4
FEW = 50
HINTS_MAX = 4_096


class Narrow:
    """Of tokens below `jobs/`. The pages of one walk are read one after the other, each as things are by then."""

    def __init__(self, ledger: Ledger, keys: Keys, known: Known | None = None) -> None:
        self._ledger = ledger
        self._keys = keys
        self._known = known or Known()
        self._first: dict[bytes, bytes] = {}        # from where -> the first key that was found there, the last time

    async def pages(self, prefix: bytes, after: bytes, size: int) -> AsyncIterator[Page]:
        """What lies below `prefix`, behind the key `after` (b"": from its beginning), in pages of so many at most."""
        at, end, span = after + b"\0" if after else prefix, prefix_end(prefix), SPAN
        edge = b"" if after else at         # where an area begins, as long as its first key is not found
        entered = b""
        while at < end:
            lane, order = self._place(at)
            if lane is None:
                entered = edge or at
                at = edge = await self._enter(entered, end)
                if not at:
                    return
                lane, order = self._place(at)
                if lane is None:            # somebody else's key: read on as it comes
                    page = await self._ledger.read(at, end, limit=size)
                    yield page
                    if not page.records:
                        return
                    at, edge = page.records[-1].key + b"\0", b""
                    continue
            stop = min(order + span, ORDER_MAX)
            page = await self._ledger.read(at, min(_at(lane, stop), end), limit=size)
            if entered and page.records:
                self._remember(entered, page.records[0].key)
                entered = b""
            yield page
            if page.more:
                at = page.records[-1].key + b"\0"
                continue
            span = span * GROWTH if len(page.records) < FEW else SPAN
            at, edge = (_at(lane, stop), b"") if stop <= page.revision else (prefix_end(lane), prefix_end(lane))

    async def _enter(self, begin: bytes, end: bytes) -> bytes:
        """The first key from `begin` on; b"" if there is none."""
        hint = self._first.get(begin) or self._known.first(begin)
        if hint is not None and hint < end:
            page = await self._ledger.read(begin, hint, limit=1, keys_only=True)
            if not page.records:
                return hint                 # nothing before it; if it is gone, what follows is found from there
            return self._remember(begin, page.records[0].key)
        page = await self._ledger.read(begin, end, limit=1, keys_only=True)
        return self._remember(begin, page.records[0].key) if page.records else b""

    def _remember(self, begin: bytes, key: bytes) -> bytes:
        if len(self._first) >= HINTS_MAX:
            self._first.clear()
        self._first[begin] = key
        return key

    def _place(self, key: bytes) -> tuple[bytes | None, int]:
        """The lane that a key lies in (`jobs/<queue>/<priority>/`), and its order there."""
        rest = key[len(self._keys.jobs):].split(b"/")
        if len(rest) < 3 or not rest[2][:ORDER_DIGITS].isdigit() or len(rest[2][:ORDER_DIGITS]) < ORDER_DIGITS:
            return None, 0
        return self._keys.jobs + b"/".join(rest[:2]) + b"/", int(rest[2][:ORDER_DIGITS])


def _at(lane: bytes, order: int) -> bytes:
    return lane + f"{order:0{ORDER_DIGITS}d}".encode()
