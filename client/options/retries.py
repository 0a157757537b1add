"""Whether a job that raised is tried again, and when. The runner decides: it has the task's code.

A job may decide for itself: `raise rota.Retry(after=30)` counts as a failed attempt, `raise rota.Snooze(30)` does not.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import msgspec

from ..errors import InvalidJob, NotInJob, Portable
from ..model import NO_OPTIONS, Options, TaskInfo
from . import checks
from .backoff import Delay, Schedule, delay_s, says_delays

Kinds = tuple[type[BaseException], ...]


class Retry(Portable, Exception):
    """Raise it in a job to have the job tried again after `after` (seconds or a timedelta; None: as the task's backoff
    says). It counts as an attempt: when all are used up, the job fails."""

    def __init__(self, message: str = "", *, after: float | timedelta | None = None) -> None:
        self.after_s = None if after is None else checks.duration_s(after, "after")
        super().__init__(message or ("asked to be tried again" + _after(self.after_s)))


class Snooze(Portable, Exception):
    """Raise it in a job to have the job run again after `after` (seconds or a timedelta). It is no failure, and does
    not count as an attempt."""

    def __init__(self, after: float | timedelta) -> None:
        self.after_s = checks.duration_s(after, "after")
        super().__init__("asked to be run again" + _after(self.after_s))


class Decision(NamedTuple):
    """`delay_s` None: give up. `problem`: the task's own `retry_delay` has failed, and that is why."""

    delay_s: float | None
    problem: str = ""


class Retries(msgspec.Struct, frozen=True):
    """A task's rules, beyond the numbers in its `TaskInfo`."""

    delay: Delay | None = None
    only_on: Kinds | None = None
    never_on: Kinds = ()

    @property
    def plain(self) -> bool:
        """Whether numbers say it all."""
        return self.only_on is None and not self.never_on

    def decide(self, info: TaskInfo, error: BaseException, attempt: int, options: Options = NO_OPTIONS) -> Decision:
        """What becomes of a job after its attempt number `attempt` (from 1) raised `error`."""
        if is_final(error) or attempt >= (options.max_attempts or info.max_attempts):
            return Decision(None)
        if isinstance(error, Retry):
            return self._delay(info, attempt, options) if error.after_s is None else Decision(error.after_s)
        if isinstance(error, self.never_on) or (self.only_on is not None and not isinstance(error, self.only_on)):
            return Decision(None)
        return self._delay(info, attempt, options)

    def _delay(self, info: TaskInfo, attempt: int, options: Options) -> Decision:
        if self.delay is None or says_delays(options):
            return Decision(delay_s(info, options, attempt))
        try:
            answer = self.delay(attempt)
        except Exception as error:      # the user's own code
            return Decision(None, f"its retry_delay({attempt}) raised {type(error).__qualname__}: {error}")
        try:
            return Decision(checks.duration_s(answer, "retry_delay"))
        except InvalidJob as error:
            return Decision(None, f"its retry_delay({attempt}) gave no delay: {error}")


def is_final(error: BaseException) -> bool:
    """Whether every further attempt would end in the same way. A group is final if all in it is."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_final(part) for part in error.exceptions)
    return isinstance(error, NotInJob)


def retries(delay: Delay | None, only_on: object, never_on: object) -> Retries:
    """Checked. Raises `InvalidJob`."""
    if delay is not None and not callable(delay):
        raise InvalidJob(f"retry_delay {delay!r:.80} is not valid: a function from the attempt's number to seconds")
    return Retries(delay, None if only_on is None else _kinds(only_on, "retry_on"), _kinds(never_on, "never_retry_on"))


def attempts_of(delay: Delay | None, default: int) -> int:
    """How many attempts there are where nobody said."""
    return delay.max_attempts if isinstance(delay, Schedule) else default


def _kinds(given: object, option: str) -> Kinds:
    kinds = given if isinstance(given, tuple) else (given,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise InvalidJob(f"{option} {given!r:.80} is not valid: an exception class, or a tuple of them")
    return kinds


def _after(seconds: float | None) -> str:
    return "" if seconds is None else f" after {seconds:g} s"
