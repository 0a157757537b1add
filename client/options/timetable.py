"""When a schedule's jobs are due: cron expressions and intervals. Pure.

Cron's rules are those of Debian's cron, by `cronsim`: at a change to summer time, what falls into the hour that is left
out runs right after it; at the change back, what names an hour runs once, and what runs every hour or minute goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from ..errors import InvalidJob
from ..model import ScheduleInfo
from .checks import duration_s, one_of

CatchUp = Literal["latest", "all", "none"]
CATCH_UPS: tuple[CatchUp, ...] = ("latest", "all", "none")

Overlap = Literal["allow", "skip", "queue"]
OVERLAPS: tuple[Overlap, ...] = ("allow", "skip", "queue")

EVERY_S_MIN = 1.0
JITTER_S_MAX = 86_400.0
CRON_CHARS_MAX = 200
CATCH_UP_MAX = 1_000
"""Missed ticks that `catch_up="all"` makes up for at most: the newest ones."""

LATE_MS = 60_000
"""A tick that is this late has been missed: there was no master for it."""


class Timetable(msgspec.Struct, frozen=True, omit_defaults=True):
    """Either `cron` in the time zone `tz` (an IANA name), or every `every_s` seconds, counted from `start_ms`.

    Moments are whole milliseconds since 1970, of UTC."""

    cron: str = ""
    tz: str = "UTC"
    every_s: float = 0.0
    start_ms: int = 0

    def next_after(self, moment_ms: int) -> int | None:
        """The first tick later than a moment; None if there is none within 50 years."""
        if self.every_s:
            step = self._step_ms
            return self.start_ms + max((moment_ms - self.start_ms) // step + 1, 1) * step
        return next(self._cron_ticks(-(-(moment_ms + 1) // 1000) - 1, reverse=False), None)

    def last_until(self, moment_ms: int) -> int | None:
        """The newest tick that is not later than a moment."""
        return next(self._back_from(moment_ms), None)

    def is_due(self, after_ms: int, until_ms: int, catch_up: CatchUp) -> bool:
        """Whether `due` has any."""
        last = self.last_until(until_ms)
        return last is not None and last > after_ms and (catch_up != "none" or last > until_ms - LATE_MS)

    def due(self, after_ms: int, until_ms: int, catch_up: CatchUp) -> list[int]:
        """The ticks later than `after_ms` and not later than `until_ms` that are to be fired, oldest first. Of those
        that were missed, as `catch_up` says: the latest, all (the newest `CATCH_UP_MAX`), or none. A wall clock that
        was set back makes none of them due again."""
        if not self.is_due(after_ms, until_ms, catch_up):
            return []
        missed = takewhile(lambda tick: tick > after_ms, self._back_from(until_ms))
        return list(islice(missed, CATCH_UP_MAX if catch_up == "all" else 1))[::-1]

    def explain(self) -> str:
        """In words: "At 03:00, Monday through Friday (Europe/Berlin)"."""
        if self.every_s:
            return f"Every {_span(self.every_s)}"
        return f"{CronSim(self.cron, datetime(2000, 1, 1, tzinfo=UTC)).explain()} ({self.tz})"

    @property
    def _step_ms(self) -> int:
        return round(self.every_s * 1000)

    def _back_from(self, moment_ms: int) -> Iterator[int]:
        """The ticks at or before a moment, newest first."""
        if self.every_s:
            step = self._step_ms
            for number in range((moment_ms - self.start_ms) // step, 0, -1):
                yield self.start_ms + number * step
        else:
            yield from self._cron_ticks(moment_ms // 1000 + 1, reverse=True)

    def _cron_ticks(self, beyond_s: int, *, reverse: bool) -> Iterator[int]:
        """Those strictly beyond a second, in order."""
        start = datetime.fromtimestamp(beyond_s, UTC).astimezone(zone_of(self.tz))
        for tick in CronSim(self.cron, start, reverse=reverse):
            yield round(tick.timestamp() * 1000)


def timetable(
    *, cron: str | None = None, tz: str | None = None, every: timedelta | float | None = None, start_ms: int = 0
) -> Timetable:
    """Checked. Raises `InvalidJob`, which names what is wrong and what would do."""
    if (cron is None) == (every is None):
        raise InvalidJob('a schedule needs either cron="0 3 * * 1-5" or every=timedelta(minutes=5)')
    if every is not None:
        if tz is not None:
            raise InvalidJob("tz goes with cron: an interval has no time zone")
        every_s = duration_s(every, "every", zero=False)
        if every_s < EVERY_S_MIN:
            raise InvalidJob(f"every {every!r:.80} is not valid: at least {EVERY_S_MIN:g} s")
        return Timetable(every_s=every_s, start_ms=start_ms)
    assert cron is not None
    if not isinstance(cron, str) or len(cron) > CRON_CHARS_MAX:
        raise InvalidJob(
            f'cron {cron!r:.80} is not valid: five fields, as in "0 3 * * 1-5" (at most {CRON_CHARS_MAX} characters)'
        )
    try:
        zone = zone_of(tz or "UTC")
        made = Timetable(cron=" ".join(cron.split()), tz=tz or "UTC")
        CronSim(made.cron, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        raise InvalidJob(
            f'cron {cron!r:.80} is not valid: {error}; five fields: minute hour day month weekday, as in "0 3 * * 1-5"'
        ) from None
    return made


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """Raises `InvalidJob` for a name that the time zone database does not have."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise InvalidJob(f'tz {name!r:.80} is not a time zone; one looks like "Europe/Berlin"') from None


def declared(
    cron: str | None, tz: str | None, every: timedelta | float | None, jitter: timedelta | float, catch_up: str,
    overlap: str, priority: int,
) -> ScheduleInfo | None:
    """What a task says of its schedule, checked; None if it has none. Raises `InvalidJob`."""
    jitter_s = jitter_of(jitter)
    if cron is None and every is None:
        if tz is not None or jitter_s or (catch_up, overlap) != ("latest", "allow"):
            raise InvalidJob("tz, jitter, catch_up and overlap belong to a schedule: give cron or every, too")
        return None
    table = timetable(cron=cron, tz=tz, every=every)
    return ScheduleInfo(
        table.cron or None, tz, table.every_s or None, jitter_s, one_of(catch_up, CATCH_UPS, "catch_up"),
        one_of(overlap, OVERLAPS, "overlap"), priority,
    )


def jitter_of(value: timedelta | float) -> float:
    seconds = duration_s(value, "jitter")
    if seconds > JITTER_S_MAX:
        raise InvalidJob(f"jitter {value!r:.80} is not valid: at most a day")
    return seconds


def _span(seconds: float) -> str:
    """The largest unit that goes in without a rest: 300 is "5 minutes"."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % size == 0:
            count = int(seconds // size)
            return unit if count == 1 else f"{count} {unit}s"
    return "second" if seconds == 1 else f"{seconds:g} seconds"
