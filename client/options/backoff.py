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

from ..errors import InvalidJob
from ..model import Options, TaskInfo
from . import checks

MAX_ATTEMPTS = 5
BASE_S, CAP_S = 1.0, 3600.0
"""What tasks do that say nothing: five attempts, a second after the first failure, twice as long after each further
one, an hour at the most; between half of that and all of it is waited, at random."""

EXPONENT_MAX = 64

TABLE_MAX = 100
"""Delays that travel with a job; after more attempts than that the last one is waited again."""

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
    base_s, cap_s = checks.duration_s(base, "base"), checks.duration_s(cap, "cap")
    checks.fraction(jitter, "jitter")
    checks.at_least_one(factor, "factor")

    def delay(attempt: int) -> float:
        full = min(cap_s, base_s * factor ** min(attempt - 1, EXPONENT_MAX)) if factor < 1e4 else cap_s
        return full * (1 - jitter * random.random())

    return Schedule(delay, checks.attempts(max_attempts), f"exponential from {base_s:g} s to {cap_s:g} s")


def toniq() -> Schedule:
    """Toniq's: five retries, after 250 ms, 1 s, 20 s, 1 min and 2.5 min."""
    delays_s = (0.25, 1.0, 20.0, 60.0, 150.0)
    return Schedule(lambda attempt: delays_s[min(attempt, len(delays_s)) - 1], len(delays_s) + 1, "toniq")


def queuetopia(cap: float | timedelta = 24 * 3600.0, max_attempts: int = 20) -> Schedule:
    """Queuetopia's: 20 attempts, (2^n + 1) seconds after attempt n, at most 24 hours."""
    cap_s = checks.duration_s(cap, "cap")
    return Schedule(
        lambda attempt: min(cap_s, 2.0 ** min(attempt, EXPONENT_MAX) + 1), checks.attempts(max_attempts), "queuetopia"
    )


def backy(retries: int = 3) -> Schedule:
    """Backy's: three retries, n^3 + 100 milliseconds before retry n."""
    return Schedule(lambda attempt: (attempt**3 + 100) / 1000, checks.attempts(retries + 1), "backy")


def table(delay: Delay, max_attempts: int) -> tuple[float, ...]:
    """What a function from the failed attempt to seconds says, for each attempt that may fail: so it can travel with a
    job, to nodes that do not have its code. Raises `InvalidJob`."""
    delays = []
    for attempt in range(1, min(max_attempts, TABLE_MAX + 1)):
        try:
            answer = delay(attempt)
        except Exception as error:      # the user's own code
            raise InvalidJob(f"retry_delay({attempt}) raised {type(error).__qualname__}: {error}") from error
        try:
            delays.append(checks.duration_s(answer, "retry_delay"))
        except InvalidJob as error:
            raise InvalidJob(f"retry_delay({attempt}) gave no delay: {error}") from None
    return tuple(delays)


def delay_s(info: TaskInfo, options: Options, attempt: int) -> float:
    """How long to wait after a failed attempt, by what its enqueue and its task say in numbers: where there is no
    `retry_delay`, and for a job whose runner died."""
    if options.retry_delays_s:
        return options.retry_delays_s[min(attempt, len(options.retry_delays_s)) - 1]
    base_s = info.backoff_base_s if options.backoff_base_s is None else options.backoff_base_s
    cap_s = info.backoff_cap_s if options.backoff_cap_s is None else options.backoff_cap_s
    return exponential_s(base_s, cap_s, attempt)


def says_delays(options: Options) -> bool:
    """Whether an enqueue has a backoff of its own."""
    return bool(options.retry_delays_s) or options.backoff_base_s is not None or options.backoff_cap_s is not None


def exponential_s(base_s: float, cap_s: float, attempt: int, random_unit: Callable[[], float] = random.random) -> float:
    """Doubled after each failure, up to the cap; between half of that and all of it is waited."""
    full = min(cap_s, base_s * 2.0 ** min(attempt - 1, EXPONENT_MAX))
    return full * (1 + random_unit()) / 2
