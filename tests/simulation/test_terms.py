"""What the options of a job promise: the judge lets a right history pass, and finds what is wrong with it."""

from __future__ import annotations

import pytest

from rota.client.model import TaskInfo

from .history import Job, Order
from .scripted import Run
from .terms import Terms

BUNDLE = "b"
JOB = "b/0"
TASKS = {
    "m:f": TaskInfo("m:f", "sync"),
    "m:once": TaskInfo("m:once", "sync", on_orphan="fail"),
    "m:patient": TaskInfo("m:patient", "sync", requeue_delay_s=2.0),
}


def start(at: float, node: str = "n1-a", *, fence: int = 5, attempt: int = 1) -> Run:
    return Run("start", at, JOB, node, fence, attempt)


def end(
    at: float, outcome: str = "ok", node: str = "n1-a", *, fence: int = 5, attempt: int = 1, delay_s: float = 0.0
) -> Run:
    return Run("end", at, JOB, node, fence, attempt, outcome, delay_s)


def rules(
    order: Order, *runs: Run, again: tuple[float, ...] = (), orphaned: tuple[tuple[float, str], ...] = (),
    killings: tuple[tuple[float, str], ...] = (),
) -> set[str]:
    job: Job = (BUNDLE, 0)
    terms = Terms(
        TASKS, {BUNDLE: order}, again={job: again}, orphaned={job: orphaned}, own=(), killings=killings, slack_s=0.01
    )
    return {text.partition(":")[0] for text in terms.judge(runs)}


PLAIN = Order(task="m:f", asked={"n1": 1.0})
LATER = Order(task="m:f", asked={"n1": 1.0}, delay_s=3.0)
ONCE = Order(task="m:once", asked={"n1": 1.0})
PATIENT = Order(task="m:patient", asked={"n1": 1.0})
MEMORY = Order(task="m:f", level="none", asked={"n1": 1.0}, taken={"n1": 1.0})
RETRY = (start(1), end(2, "retry", delay_s=1.5))


def test_what_is_right() -> None:
    assert rules(PLAIN, start(1), end(2)) == set()
    assert rules(LATER, start(4), end(5)) == set()
    assert rules(PLAIN, *RETRY, start(3.5, attempt=2), end(4, attempt=2)) == set()
    assert rules(PATIENT, start(1), start(4.5, "n2-a", fence=9), orphaned=((2.0, "n1-a"),)) == set()
    assert rules(ONCE, *RETRY, start(3.5, attempt=2), end(4, attempt=2)) == set()
    assert rules(MEMORY, start(1, fence=0), end(2, fence=0)) == set()


def test_a_person_may_have_it_run_again_at_once() -> None:
    assert rules(PLAIN, *RETRY, start(2.5), again=(2.4,)) == set()
    assert rules(PATIENT, start(1), start(2.5, "n2-a"), orphaned=((2.0, "n1-a"),), again=(2.4,)) == set()
    assert rules(ONCE, start(1), start(3, "n2-a", fence=9), again=(2.0,)) == set()


def test_a_lost_node_may_begin_what_it_held_until_it_knows() -> None:
    assert rules(PATIENT, start(2.5), orphaned=((2.0, "n1-a"),)) == set()


def test_what_was_in_killed_runners_need_not_end() -> None:
    assert rules(MEMORY, start(1, fence=0), killings=((1.5, "n1"),)) == set()


def test_begun_unstored_elsewhere_it_counts_for_nothing() -> None:
    early = start(1.0, "n2-a", fence=0), end(1.1, "retry", "n2-a", fence=0, delay_s=9.0)
    assert rules(PLAIN, *early, *RETRY, start(3.5, attempt=2)) == set()


@pytest.mark.parametrize(
    ("rule", "order", "runs"),
    [
        ("T1", LATER, (start(3.5),)),
        ("T2", PLAIN, (*RETRY, start(3.4, attempt=2))),
        ("T2", PLAIN, (start(1), end(2), start(3, attempt=2))),
        ("T4", ONCE, (start(1), start(3, "n2-a", fence=9))),
        ("T4", ONCE, (*RETRY, start(4, "n2-a", fence=9))),
        ("T4", ONCE, (start(1, fence=0), start(3, "n2-a", fence=9))),
        ("T5", MEMORY, (start(1, "n2-a", fence=0), start(1, fence=0), end(2, fence=0))),
        ("T5", MEMORY, (start(0.5, fence=0), end(2, fence=0))),
        ("T5", MEMORY, (start(1, fence=0), start(1.5, fence=0), end(2, fence=0))),
        ("T5", MEMORY, (start(1, fence=0),)),
        ("T2", MEMORY, (start(1, fence=0), end(2, "retry", fence=0, delay_s=2), start(3, fence=0, attempt=2))),
    ],
)
def test_it_finds(rule: str, order: Order, runs: tuple[Run, ...]) -> None:
    assert rule in rules(order, *runs)


def test_an_orphan_that_does_not_wait() -> None:
    assert rules(PATIENT, start(1), start(3.9, "n2-a", fence=9), orphaned=((2.0, "n1-a"),)) == {"T3"}


def test_killed_before_it_was_asked_is_no_excuse() -> None:
    assert rules(MEMORY, start(1, fence=0), killings=((0.5, "n1"), (2.0, "n2"))) == {"T5"}


def test_what_nobody_asked_for_is_judged_elsewhere() -> None:
    terms = Terms(TASKS, {}, again={}, orphaned={}, own=(), killings=(), slack_s=0.01)
    assert not terms.judge([start(2.0), end(3.0)])
