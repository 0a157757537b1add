"""Blame inside a node, without runners."""

from __future__ import annotations

from rota.worker.channel.frames import Work
from rota.worker.channel.job_numbers import job_number
from rota.worker.pool.suspects import Sent, Suspects


def sent(key: int, index: int = 0) -> Sent:
    return Work(key, "b", "m:f", "q", "async", 1, 1, 0.0, "pickle", []), (index, b"")


def numbers(jobs: list[Sent]) -> list[int]:
    return [job_number(work.key, index) for work, (index, _) in jobs]


def test_who_was_alone_did_it() -> None:
    suspects = Suspects()
    assert suspects.died([sent(1)], alone=True) == ([sent(1)], [])
    assert not suspects.waiting


def test_of_several_nobody_pays_until_one_dies_alone_and_then_the_others_are_cleared() -> None:
    suspects = Suspects()
    assert suspects.died([sent(1), sent(2), sent(3), sent(4)], alone=False) == ([], [])
    last = suspects.take()
    assert last == sent(4) and suspects.has(4) and suspects.has(1)
    suspects.ended(job_number(4, 0))
    assert not suspects.has(4)
    assert suspects.take() == sent(3)
    verdict = suspects.died([sent(3)], alone=True)
    assert verdict == ([sent(3)], [sent(1), sent(2)])
    assert suspects.take() is None and not suspects.has(1)


def test_companies_are_kept_apart() -> None:
    """One crash says nothing about who was in another."""
    suspects = Suspects()
    suspects.died([sent(1), sent(2)], alone=False)
    suspects.died([sent(3), sent(4)], alone=False)
    assert suspects.take() == sent(2)
    assert suspects.died([sent(2)], alone=True).cleared == [sent(1)]
    assert suspects.waiting == 2


def test_one_beside_somebody_who_paid_otherwise_is_a_suspect() -> None:
    suspects = Suspects()
    assert suspects.died([sent(1)], alone=False) == ([], [])
    assert suspects.take() == sent(1)


def test_what_has_not_begun_waits_at_the_head() -> None:
    suspects = Suspects()
    suspects.died([sent(1), sent(2)], alone=False)
    assert suspects.take() == sent(2)
    suspects.untake(job_number(2, 0))
    assert suspects.take() == sent(2)


def test_taking_out() -> None:
    suspects = Suspects()
    suspects.died([sent(1, 0), sent(1, 1), sent(2)], alone=False)
    assert suspects.remove(job_number(1, 1)) and not suspects.remove(job_number(1, 1))
    assert suspects.withdraw({2}) == {2: [0]}
    assert suspects.withdraw(None) == {1: [0]}
    assert not suspects.waiting
    assert numbers(suspects.died([sent(1)], alone=True).guilty) == [job_number(1, 0)]
