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


def rate(text: str | None, option: str) -> Rate | None:
    """A rate from its words: so many jobs per second, minute, hour, day, or so many of them, and how many at once when
    nothing has run for long (1 if nothing is said). Raises `InvalidJob`."""
    if text is None:
        return None
    found = _RATE.fullmatch(text.lower()) if isinstance(text, str) else None
    unit = UNITS.get(WORDS.get(found[3].removesuffix("s") or "s", found[3])) if found is not None else None
    if found is None or unit is None:
        raise InvalidJob(f'{option} {text!r:.60}: such as "100/minute", "5/10s" or "1000/hour, burst 50"')
    made = Rate(int(found[1]), unit * int(found[2] or 1), int(found[4] or 1))
    if not (0 < made.count <= COUNT_MAX and 0 < made.per_s <= PER_S_MAX and 0 < made.burst <= COUNT_MAX):
        raise InvalidJob(f"{option} {text!r:.60}: 1 to {COUNT_MAX:,} jobs (and bursts), in 1 second to 31 days")
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
    return text if made.burst == 1 else f"{text}, burst {made.burst}"
