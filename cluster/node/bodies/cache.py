"""What this node took in last."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from rota.client.model import Header

CACHE_BYTES_MAX = 32 * 1024 * 1024
CACHED_OVERHEAD_BYTES = 1_200
"""What a body of one small job takes beside its bytes: header, names, lists."""
TAKEN_MAX = 20_000

LATELY_S = 1.0
"""Of a bundle that was taken in so lately, what there is to know of its results comes by the watch over them."""


VerifiedBody: TypeAlias = tuple[bytes, Header, list[tuple[int, bytes]]]
"""A body, its header, and its jobs as (index, payload)."""


class BodyCache:
    """The bodies this node took in last: if it also runs them, it need not read them back."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[str, VerifiedBody] = OrderedDict()
        self._taken: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._bytes = 0

    def note(self, bundle: str, revision: int, now: float) -> None:
        self._taken[bundle] = (revision, now)
        if len(self._taken) > TAKEN_MAX:
            self._taken.popitem(last=False)

    def taken_at(self, bundle: str, since: float) -> int | None:
        """The revision at which a bundle was taken in here, if that was not before `since`."""
        revision, at = self._taken.get(bundle, (0, since - 1))
        return revision if at >= since else None

    def put(self, bundle: str, body: VerifiedBody) -> None:
        self.take(bundle)           # of a repeat
        self._bodies[bundle] = body
        self._bytes += _size(body)
        while self._bytes > CACHE_BYTES_MAX:
            self._bytes -= _size(self._bodies.popitem(last=False)[1])

    def take(self, bundle: str) -> VerifiedBody | None:
        body = self._bodies.pop(bundle, None)
        if body is not None:
            self._bytes -= _size(body)
        return body


def _size(body: VerifiedBody) -> int:
    return len(body[0]) + CACHED_OVERHEAD_BYTES
