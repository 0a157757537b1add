"""How much gets done in a slice of time: what a node may be given ahead of what it runs (design, rule 9). Pure."""

from __future__ import annotations

SLICE_S = 0.1
KEEP_SLICES = 5
"""What a node gets through in as many slices it keeps, though others could begin it sooner; but no longer than that."""

WHOLE_SLICES = 4
"""More than its room a node is given ahead if it gets through all it has then in so many slices: it will keep it."""

FADE = 0.7
"""An idle slice leaves this much of the figure: within a second it is gone."""


class Throughput:
    """Jobs finished in the best of the recent slices."""

    __slots__ = ("_current", "_recent", "_since")

    def __init__(self) -> None:
        self._current = 0
        self._recent = 0.0
        self._since = 0.0

    def add(self, jobs: int, now: float) -> None:
        self._turn(now)
        self._current += jobs

    def in_a_slice(self, now: float) -> int:
        if now - self._since >= SLICE_S:
            self._turn(now)
        return max(self._current, int(self._recent))

    def _turn(self, now: float) -> None:
        slices = int((now - self._since) / SLICE_S)
        if slices > 0:
            self._recent = max(self._current, self._recent * FADE) * FADE ** min(slices - 1, 50)
            self._current = 0
            self._since = now
