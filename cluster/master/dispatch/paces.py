"""Which tasks are slow and which are quick, by what was seen of them lately. Pure."""

from __future__ import annotations

import enum

PACE_S = 10.0
"""How long what was seen of a task counts."""


ALONE_MAX = 1_000
"""Tasks of which it is remembered how long a job took that ran alone."""


class Pace(enum.Enum):
    UNKNOWN = "unknown"
    SLOW = "slow"           # a node gave back jobs of it, because it would not begin them soon
    QUICK = "quick"         # a bundle of it ended as soon as it was given out


class Paces:
    """By task; what is too old is forgotten."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, Pace]] = {}
        self._alone_s: dict[str, float] = {}
        self._sweep_at = 100

    def slow(self, task: str, now: float) -> None:
        self._see(task, now, Pace.SLOW)

    def quick(self, task: str, now: float) -> None:
        """It does not make up for what was seen to be slow: jobs of one task may differ."""
        seen = self._seen.get(task)
        if seen is None or seen[0] <= now or seen[1] is Pace.QUICK:
            self._see(task, now, Pace.QUICK)

    def took_alone(self, task: str, seconds: float) -> None:
        """What was lost while it ran has ended well this time."""
        if len(self._alone_s) >= ALONE_MAX:
            self._alone_s.clear()
        self._alone_s[task] = seconds

    def alone_s(self, task: str) -> float:
        """How long the last such job of a task took; 0 if none has ended, so that these are tried first: of what kills
        its node none does."""
        return self._alone_s.get(task, 0.0)

    def forget(self, task: str) -> None:
        self._seen.pop(task, None)

    def of(self, task: str, now: float) -> Pace:
        until, pace = self._seen.get(task, (0.0, Pace.UNKNOWN))
        return pace if until > now else Pace.UNKNOWN

    def _see(self, task: str, now: float, pace: Pace) -> None:
        self._seen[task] = (now + PACE_S, pace)
        if len(self._seen) > self._sweep_at:
            self._seen = {name: seen for name, seen in self._seen.items() if seen[0] > now}
            self._sweep_at = 2 * len(self._seen) + 100

    def __len__(self) -> int:
        return len(self._seen)
