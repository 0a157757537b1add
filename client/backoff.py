"""How long to wait before the next attempt: ready-made schedules, for `@task(retry_delay=...)`.

    @rota.task(retry_delay=rota.backoff.queuetopia())
    def charge(order: int) -> None: ...

Any function from the number of the attempt that failed (from 1) to seconds will do, too. A schedule also says how many
attempts there are, where `max_attempts` does not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

from . import options

MAX_ATTEMPTS = 5
BASE_S, CAP_S = 1.0, 3600.0
"""What tasks do that say nothing: five attempts, a second after the first failure, twice as long after each further
one, an hour at the most; between half of that and all of it is waited, at random."""

EXPONENT_MAX = 64
Delay = Callable[[int], float | timedelta]


class Schedule:
    """A function from the number of the failed attempt to seconds, with a number of attempts of its own."""

    def __init__(self, delay: Callable[[int], float], max_attempts: int, text: str) -> None:
        self._delay = delay
        self.max_attempts = max_attempts
        self._text = text

    def __call__(self, attempt: int) -> float:
        return self._delay(attempt)

    def __repr__(self) -> str:
        return f"<backoff {self._text}>"


def exponential(
    base: float | timedelta = BASE_S,
    factor: float = 2.0,
    cap: float | timedelta = CAP_S,
    jitter: float = 0.5,
    max_attempts: int = MAX_ATTEMPTS,
) -> Schedule:
    """`base`, multiplied by `factor` after each failure, at most `cap`; the share `jitter` of it is left to chance, so
    that what failed together does not come back together (0: none of it, 1: all of it)."""
    base_s, cap_s = options.duration_s(base, "base"), options.duration_s(cap, "cap")
    options.fraction(jitter, "jitter")
    options.at_least_one(factor, "factor")

    def delay(attempt: int) -> float:
        full = min(cap_s, base_s * factor ** min(attempt - 1, EXPONENT_MAX)) if factor < 1e4 else cap_s
        return full * (1 - jitter * random.random())

    return Schedule(delay, options.attempts(max_attempts), f"exponential from {base_s:g} s to {cap_s:g} s")


def toniq() -> Schedule:
    """Toniq's: five retries, after 250 ms, 1 s, 20 s, 1 min and 2.5 min."""
    delays_s = (0.25, 1.0, 20.0, 60.0, 150.0)
    return Schedule(lambda attempt: delays_s[min(attempt, len(delays_s)) - 1], len(delays_s) + 1, "toniq")


def queuetopia(cap: float | timedelta = 24 * 3600.0, max_attempts: int = 20) -> Schedule:
    """Queuetopia's: 20 attempts, (2^n + 1) seconds after attempt n, at most 24 hours."""
    cap_s = options.duration_s(cap, "cap")
    return Schedule(
        lambda attempt: min(cap_s, 2.0 ** min(attempt, EXPONENT_MAX) + 1), options.attempts(max_attempts), "queuetopia"
    )


def backy(retries: int = 3) -> Schedule:
    """Backy's: three retries, n^3 + 100 milliseconds before retry n."""
    return Schedule(lambda attempt: (attempt**3 + 100) / 1000, options.attempts(retries + 1), "backy")


def exponential_s(base_s: float, cap_s: float, attempt: int, random_unit: Callable[[], float] = random.random) -> float:
    """What tasks do that have no `retry_delay`, and what a node does for a job whose runner died."""
    full = min(cap_s, base_s * 2.0 ** min(attempt - 1, EXPONENT_MAX))
    return full * (1 + random_unit()) / 2
