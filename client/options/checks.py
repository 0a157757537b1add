"""Checks of what a user may say about an enqueue: each refusal names the option, the value and what would do."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from ..errors import InvalidJob
from ..ids import NAME_RULE, is_name, normal
from ..model import (
    ATTEMPTS_MAX,
    DURATION_S_MAX,
    LABELS_MAX,
    LOG_LINES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    WEIGHT_MAX,
    Level,
)

Word = TypeVar("Word", bound=str)

KEY_CHARS_MAX = 128
WINDOW_S_MAX = 60.0
BATCH_MAX = 10_000
BATCH_WAIT_S = 0.1
BATCH_WAIT_S_MAX = 3_600.0
LEVELS: tuple[Level, ...] = ("durable", "delayed", "none")


def queue_name(queue: str) -> str:
    """A queue's name in its one spelling."""
    name = normal(queue) if isinstance(queue, str) else ""
    if not is_name(name):
        raise InvalidJob(f"{queue!r:.80} is not a valid queue name: {NAME_RULE}")
    return str(name)


def priority(value: int) -> int:
    if not _is_int(value) or not PRIORITY_MIN <= value <= PRIORITY_MAX:
        raise InvalidJob(
            f"priority {value!r:.40} is not valid: a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}, higher first"
        )
    return value


def attempts(value: int) -> int:
    if not _is_int(value) or not 1 <= value <= ATTEMPTS_MAX:
        raise InvalidJob(f"max_attempts {value!r:.40} is not valid: a whole number of at least 1")
    return value


def duration_s(value: float | timedelta, option: str, *, zero: bool = True) -> float:
    """Seconds, from seconds or a timedelta."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise InvalidJob(f"{option} {value!r:.80} is not valid: seconds, or a timedelta")
    if not 0 <= seconds <= DURATION_S_MAX or (not zero and seconds == 0):
        least = "at least" if zero else "more than"
        raise InvalidJob(f"{option} {value!r:.80} is not valid: {least} 0, and at most 100 years")
    return float(seconds)


def window_s(value: float | timedelta, option: str, *, zero: bool = True) -> float:
    """How long an enqueue may take: nodes remember what they took for twice as long as the most."""
    seconds = duration_s(value, option, zero=zero)
    if seconds > WINDOW_S_MAX:
        raise InvalidJob(f"{option} {value!r:.80} is not valid: at most {WINDOW_S_MAX:g} s")
    return seconds


def fraction(value: float, option: str) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidJob(f"{option} {value!r:.40} is not valid: from 0 to 1")
    return value


def at_least_one(value: float, option: str) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 1:
        raise InvalidJob(f"{option} {value!r:.40} is not valid: at least 1")
    return value


def limit(value: int | None, option: str) -> int | None:
    """How many at a time; None: any number."""
    if value is not None and (not _is_int(value) or value < 1):
        raise InvalidJob(f"{option} {value!r:.40} is not valid: a whole number of at least 1, or None for no limit")
    return value


def log_lines(value: int) -> int:
    if not _is_int(value) or not 0 <= value <= LOG_LINES_MAX:
        raise InvalidJob(f"keep_log {value!r:.40} is not valid: 0 to {LOG_LINES_MAX:,} lines")
    return value


def batch(value: int) -> int:
    if not _is_int(value) or not 1 <= value <= BATCH_MAX:
        raise InvalidJob(f"batch {value!r:.40} is not valid: a number of jobs, from 1 to {BATCH_MAX:,}")
    return value


def batch_wait_s(batch: int | None, wait: float | timedelta | None) -> float:
    """How long the first job of a batch waits for more."""
    if wait is None:
        return 0.0 if batch is None else BATCH_WAIT_S
    if batch is None:
        raise InvalidJob("batch_wait needs batch, too: the number of jobs to gather meanwhile")
    seconds = duration_s(wait, "batch_wait")
    if seconds > BATCH_WAIT_S_MAX:
        raise InvalidJob(
            f"batch_wait {wait!r:.40} is not valid: at most {BATCH_WAIT_S_MAX:g} s, for its jobs hold slots meanwhile"
        )
    return seconds


def level(value: str) -> Level:
    return one_of(value, LEVELS, "level")


def one_of(value: str, known: Sequence[Word], option: str) -> Word:
    """One of a few words."""
    for word in known:
        if value == word:
            return word
    raise InvalidJob(f"{option} {value!r:.40} is not valid: one of {', '.join(known)}")


def labels(given: Collection[str]) -> tuple[str, ...]:
    """Names of what a node has, and a task needs."""
    names = {given} if isinstance(given, str) else set(given)
    for name in names:
        if not isinstance(name, str) or not is_name(name):
            raise InvalidJob(f"{name!r:.80} is not a valid label: {NAME_RULE}")
    if len(names) > LABELS_MAX:
        raise InvalidJob(f"{len(names)} labels: at most {LABELS_MAX}")
    return tuple(sorted(names))


def weight(value: int) -> int:
    """Slots that a job takes."""
    if not _is_int(value) or not 1 <= value <= WEIGHT_MAX:
        raise InvalidJob(
            f"weight {value!r:.40} is not valid: a whole number of slots, from 1 to {WEIGHT_MAX:,}"
        )
    return value


def key(value: object, option: str = "key") -> str:
    """What a limit per key counts by; None and "" are no key."""
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        kind = type(value).__name__
        raise InvalidJob(f"{option} {value!r:.80} is not valid: a text or a whole number, not a value of type {kind}")
    text = str(value)
    if len(text) > KEY_CHARS_MAX or not text.isprintable():
        raise InvalidJob(f"{option} {text!r:.80} is not valid: at most {KEY_CHARS_MAX} printable characters")
    return text


def delay(run_after: timedelta | datetime | float) -> tuple[float, datetime | None]:
    """(seconds to wait, None), or (0.0, the time to wait for)."""
    if not isinstance(run_after, datetime):
        return duration_s(run_after, "run_after"), None
    if run_after.tzinfo is None or run_after.utcoffset() is None:
        raise InvalidJob(
            f"run_after {run_after.isoformat()} has no time zone: "
            f"use datetime.now(UTC) + ..., or run_after.astimezone() if it is this machine's local time"
        )
    return 0.0, run_after


def moment(value: datetime | timedelta | float | None, option: str) -> float | str:
    """Seconds since 1970; "" for None. A timedelta means so long ago."""
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return max(0.0, now_s() - value.total_seconds())
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise InvalidJob(f"{option} {value.isoformat()} has no time zone: .astimezone() means that of this machine")
        return max(0.0, value.timestamp())
    return duration_s(value, option)


def seconds_until(run_at: datetime) -> float:
    """A time that has passed means now."""
    return max(0.0, (run_at - datetime.now(UTC)).total_seconds())


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def now_s() -> float:
    """Seconds since 1970, by this process's clock: what is signed says when."""
    return datetime.now(UTC).timestamp()
