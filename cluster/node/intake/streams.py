"""Which jobs come in a stream that nobody waits for: they may wait a few milliseconds for each other (decision 37)."""

from __future__ import annotations

from collections.abc import Callable

from rota.client.model import Enqueue

from ...clock import Clock
from ...state.directory import Directory
from ...state.keys import session_of

GAP_S = 0.05
"""What comes sooner after the enqueue before, at this node, is part of a stream."""

LARGE = 100
"""A bundle of so many jobs is company enough for itself."""


class Streams:
    """`awaited`: whether somebody waits here for results of this client, or did lately."""

    def __init__(self, directory: Directory, clock: Clock, awaited: Callable[[str], bool]) -> None:
        self._directory = directory
        self._clock = clock
        self._awaited = awaited
        self._last = float("-inf")

    def is_calm(self, bundle: Enqueue) -> bool:
        """To be asked once of each bundle. What is alone, large, due later, limited, or of others' concern, is not."""
        now = self._clock.monotonic()
        last, self._last = self._last, now
        plain = bundle.terms is None and not bundle.delay_s and bundle.count < LARGE
        return plain and now - last < GAP_S and not (
            self._directory.is_limited(bundle.task, bundle.queue) or self._awaited(session_of(bundle.bundle))
        )
