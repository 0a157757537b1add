"""Rates as people say them: "100/minute", "5/10s, burst 20"."""

from __future__ import annotations

import re

from ..errors import InvalidJob
from ..model import Rate

UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
WORDS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d"}
_RATE = re.compile(r"\s*(\d+)\s*/\s*(\d*)\s*([a-z]+)\s*(?:,\s*burst\s+(\d+)\s*)?")
COUNT_MAX = 1_000_000
PER_S_MAX = 31 * 86_400.0
BURST_S = 0.1
"""A job is given out by a write to the store, which takes milliseconds: what is faster than that comes in bursts."""


def rate(text: str | None, option: str) -> Rate | None:
    """A rate from its words: so many jobs per second, minute, hour, day, or so many of them, and how many at once when
    nothing has run for long (if nothing is said, what comes in a tenth of a second, and 1 at least). Raises
    `InvalidJob`."""
    if text is None:
        return None
    found = _RATE.fullmatch(text.lower()) if isinstance(text, str) else None
    unit = UNITS.get(WORDS.get(found[3].removesuffix("s") or "s", found[3])) if found is not None else None
    if found is None or unit is None:
        raise InvalidJob(f'{option} {text!r:.60} is not valid: write "100/minute", "5/10s" or "1000/hour, burst 50"')
    count, per_s = int(found[1]), unit * int(found[2] or 1)
    burst = int(found[4]) if found[4] else _usual_burst(count, per_s)
    made = Rate(count, per_s, burst)
    if not (0 < count <= COUNT_MAX and 0 < per_s <= PER_S_MAX and 0 < burst <= COUNT_MAX):
        raise InvalidJob(f"{option} {text!r:.60} is not valid: 1 to {COUNT_MAX:,} jobs (or burst), in 1 s to 31 days")
    return made


def normal(text: str | None) -> str | None:
    """A rate in its one spelling. Raises `InvalidJob`."""
    made = rate(text, "rate")
    return None if made is None else words(made)


def words(made: Rate) -> str:
    """The same, to be read, and to be given to `rate`."""
    unit = next(name for name, seconds in reversed(UNITS.items()) if made.per_s % seconds == 0 or name == "s")
    number = made.per_s / UNITS[unit]
    text = f"{made.count}/{'' if number == 1 else f'{number:g}'}{unit}"
    return text if made.burst == _usual_burst(made.count, made.per_s) else f"{text}, burst {made.burst}"


def _usual_burst(count: int, per_s: float) -> int:
    return max(1, int(count / per_s * BURST_S)) if per_s else 1
