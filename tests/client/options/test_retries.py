"""Schedules, and what becomes of a job that raised."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import rota
from rota.client.errors import InvalidJob
from rota.client.model import Options
from rota.client.options import backoff
from rota.client.tasks.task import Task, make_task

from ..sample_tasks import add, shout


def task(**said: Any) -> Task[..., Any]:
    return make_task(add.function, name="tests:retries", **said)


def test_retries_are_on_by_default() -> None:
    assert (add.info.max_attempts, add.info.backoff_base_s, add.info.backoff_cap_s) == (5, 1.0, 3600.0)
    delays = [add.retry_decision(ValueError(), attempt).delay_s for attempt in (1, 2, 3, 4, 5)]
    assert delays.pop() is None
    for number, delay_s in enumerate(delays):
        assert delay_s is not None and 2**number / 2 <= delay_s <= 2**number


def test_the_number_of_attempts_per_task_and_per_enqueue() -> None:
    error = ValueError()
    assert shout.retry_decision(error, 2).delay_s is not None and shout.retry_decision(error, 3).delay_s is None
    assert add.retry_decision(error, 1, Options(max_attempts=1)).delay_s is None
    assert shout.retry_decision(error, 3, Options(max_attempts=4)).delay_s is not None


def test_backoff_doubles_up_to_its_cap_and_leaves_half_to_chance() -> None:
    def delays(chance: float) -> list[float]:
        return [backoff.exponential_s(2.0, 10.0, attempt, lambda: chance) for attempt in (1, 2, 3, 4, 99, 10_000)]

    assert delays(1.0) == [2, 4, 8, 10, 10, 10]
    assert delays(0.0) == [1, 2, 4, 5, 5, 5]


def test_the_schedules_of_those_before_us() -> None:
    toniq = rota.backoff.toniq()
    assert [toniq(n) for n in range(1, 6)] == [0.25, 1.0, 20.0, 60.0, 150.0] and toniq.max_attempts == 6
    queuetopia = rota.backoff.queuetopia()
    assert [queuetopia(n) for n in (1, 2, 3, 10, 17, 19)] == [3, 5, 9, 1025, 86_400, 86_400]
    assert queuetopia.max_attempts == 20 and queuetopia(10_000) == 86_400
    backy = rota.backoff.backy()
    assert [backy(n) for n in (1, 2, 3)] == [0.101, 0.108, 0.127] and backy.max_attempts == 4
    steady = rota.backoff.exponential(base=timedelta(seconds=2), factor=3, cap=30, jitter=0, max_attempts=9)
    assert [steady(n) for n in (1, 2, 3, 4)] == [2, 6, 18, 30] and steady.max_attempts == 9
    for _ in range(100):
        assert 0.0 <= rota.backoff.exponential(jitter=1)(1) <= 1.0


def test_a_schedule_says_how_many_attempts_unless_the_task_does() -> None:
    assert task(retry_delay=rota.backoff.queuetopia()).info.max_attempts == 20
    assert task(retry_delay=rota.backoff.queuetopia(), max_attempts=2).info.max_attempts == 2
    assert task(retry_delay=lambda n: 1.0).info.max_attempts == 5


def test_a_plain_callable_decides_the_delay() -> None:
    cubic = task(retry_delay=lambda n: timedelta(milliseconds=n**3 + 100))
    assert [cubic.retry_decision(ValueError(), n).delay_s for n in (1, 2, 3)] == [0.101, 0.108, 0.127]


@pytest.mark.parametrize(("answer", "problem"), [
    (lambda n: 1 / 0, r"its retry_delay\(1\) raised ZeroDivisionError: division by zero"),
    (lambda n: -3, r"its retry_delay\(1\) gave no delay: retry_delay -3 is not valid: at least 0"),
    (lambda n: None, r"its retry_delay\(1\) gave no delay: retry_delay None is not valid: seconds"),
])  # fmt: skip
def test_a_callable_that_fails_ends_the_job_and_says_so(answer: Any, problem: str) -> None:
    decision = task(retry_delay=answer).retry_decision(ValueError(), 1)
    assert decision.delay_s is None
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(decision.problem)


def test_an_enqueue_may_say_how_long_to_wait() -> None:
    error = ValueError()

    def delays(target: Task[..., Any], *attempts: int) -> list[float | None]:
        return [target.retry_decision(error, attempt, target.route.options).delay_s for attempt in attempts]

    cubic = task(retry_delay=lambda n: n**3)
    assert delays(cubic.using(backoff_base=0), 1, 4) == [0, 0]
    assert all(1 <= delay <= 2 for delay in delays(cubic.using(backoff_base=9, backoff_cap=2), 1, 2, 3))  # type: ignore[operator]
    assert delays(task().using(retry_delay=lambda n: n / 2), 1, 2, 3, 4, 5) == [0.5, 1, 1.5, 2, None]
    assert delays(task().using(retry_delay=rota.backoff.toniq()), 1, 2, 3, 5, 6) == [0.25, 1, 20, 150, None]
    assert delays(task().using(retry_delay=rota.backoff.queuetopia(), max_attempts=3), 1, 2, 3) == [3, 5, None]
    assert delays(cubic.using(retry_delay=lambda n: 7).using(backoff_base=0), 1) == [0]
    assert rota.NamedTask("m:f").using(retry_delay=lambda n: n).route.options.retry_delays_s[-1] == 100
    by_value = make_task(lambda: None, by_value=True, retry_delay=lambda n: 10 * n, max_attempts=3)
    assert by_value.order((), {}).route.options.retry_delays_s == (10, 20)


@pytest.mark.parametrize(("options", "message"), [
    ({"retry_delay": lambda n: 1 / 0}, r"retry_delay\(1\) raised ZeroDivisionError"),
    ({"retry_delay": lambda n: -n}, r"retry_delay\(1\) gave no delay: retry_delay -1 is not valid: at least 0"),
    ({"retry_delay": 3}, "retry_delay 3 is not valid: a function"),
    ({"retry_delay": rota.backoff.toniq(), "backoff_cap": 3}, "give one"),
    ({"backoff_base": -1}, "backoff_base -1 is not valid: at least 0"),
])  # fmt: skip
def test_bad_options_of_an_enqueue(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        task().using(**options)


def test_some_exceptions_are_worth_a_retry_and_others_are_not() -> None:
    only = task(retry_on=(OSError, ValueError))
    assert only.retry_decision(ConnectionError(), 1).delay_s is not None
    assert only.retry_decision(KeyError(), 1).delay_s is None
    never = task(never_retry_on=KeyError)
    assert never.retry_decision(KeyError(), 1).delay_s is None
    assert never.retry_decision(ValueError(), 1).delay_s is not None
    both = task(retry_on=LookupError, never_retry_on=KeyError)
    assert both.retry_decision(IndexError(), 1).delay_s is not None
    assert both.retry_decision(KeyError(), 1).delay_s is None


def test_a_job_asks_for_it() -> None:
    strict = task(retry_on=OSError, max_attempts=2)
    assert strict.retry_decision(rota.Retry(after=timedelta(minutes=1)), 1).delay_s == 60
    assert strict.retry_decision(rota.Retry(), 1).delay_s is not None
    assert strict.retry_decision(rota.Retry(after=1), 2).delay_s is None        # it counts
    assert str(rota.Retry("later", after=3)) == "later"
    assert str(rota.Retry(after=3)) == "asked to be tried again after 3 s"
    assert rota.Snooze(2.5).after_s == 2.5
    for wrong in (-1, float("nan"), "soon"):
        with pytest.raises(InvalidJob):
            rota.Snooze(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("options", "message"), [
    ({"retry_delay": 3}, "retry_delay 3 is not valid: a function"),
    ({"retry_on": "ValueError"}, "retry_on 'ValueError' is not valid: an exception class"),
    ({"never_retry_on": (ValueError, 3)}, "never_retry_on .*an exception class"),
    ({"backoff_base": -1}, "backoff_base -1 is not valid: at least 0"),
])  # fmt: skip
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        task(**options)


def test_bad_schedules() -> None:
    for options in ({"factor": 0.5}, {"jitter": 2}, {"cap": -1}, {"max_attempts": 0}):
        with pytest.raises(InvalidJob):
            rota.backoff.exponential(**options)


def test_what_cannot_travel_with_code_is_refused() -> None:
    by_value = make_task(lambda: None, by_value=True, retry_on=OSError)
    with pytest.raises(InvalidJob, match=r"travels as code: limits, .* cannot go along"):
        by_value.order((), {})
