"""When jobs expire: the judge lets a right history pass, and finds what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.records import Token

from .expiry import Expiries
from .history import Job, Move, Place, Step
from .scripted import Run

JOB: Job = ("b", 0)
SIBLING: Job = ("b", 1)


def place(kind: str, expires: int, revision: int) -> Place:
    token = Token("m:f", "q", 0, 7, 2, "sync", 0, expires=expires)
    return Place(kind, kind.encode(), "b", "n1" if kind == "claims" else "", token, revision, revision)


class Script:
    """One revision per move, at as many seconds."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.judge = Expiries(lambda rule, text: self.found.append(f"{rule}: {text}"), lambda at: at, 0.01)
        self.where: dict[Job, tuple[Place, ...]] = {}

    def move(self, at: int, kind: str, expires: int, *jobs: Job, status: str = "") -> None:
        after = (place(kind, expires, at),) if kind else ()
        step = Step(Entry(at, float(at), "", None, ()))
        for job in jobs:
            step.moves.append(Move(job, self.where.get(job, ()), after))
            self.where[job] = after
            if status:
                step.results[job] = status
        self.judge.see(step)

    def finish(self, *runs: Run, again: Sequence[float] = ()) -> list[str]:
        self.judge.finish(runs, {JOB: again})
        return self.found


def run(what: str, at: float, fence: int, outcome: str = "", job: str = "b/0") -> Run:
    return Run(what, at, job, "n1", fence, 1, outcome)


def parted() -> Script:
    """A bundle that expires at 5 s, claimed at 2 s; one job of it sleeps from 3 s on, the other goes back."""
    script = Script()
    script.move(1, "jobs", 5_000, JOB, SIBLING)
    script.move(2, "claims", 5_000, JOB, SIBLING)
    script.move(3, "scheduled", 0, JOB)
    script.move(4, "jobs", 5_000, SIBLING)
    return script


SLEEPS = (run("start", 2.1, 2), run("end", 2.9, 2, "sleep"))


def test_of_a_bundle_one_sleeps_and_the_other_expires() -> None:
    script = parted()
    script.move(6, "", 0, SIBLING, status="expired")
    script.move(7, "claims", 0, JOB)
    assert not script.finish(*SLEEPS, run("start", 7.1, 7))


def test_what_has_expired_does_not_begin() -> None:
    script = parted()
    script.move(6, "claims", 5_000, SIBLING)
    (found,) = script.finish(*SLEEPS, run("start", 6.1, 6, job="b/1"))
    assert found == "E1: job b/1 was started at 6.100 s on n1, and had expired"


def test_what_sleeps_does_not_end_as_expired_and_nothing_does_before_its_time() -> None:
    script = parted()
    script.move(6, "", 0, JOB, status="expired")
    assert script.finish(*SLEEPS) == ["E1: job b/0 ended as expired, and never does"]
    script = parted()
    script.judge = Expiries(script.judge._say, lambda at: at - 2, 0.01)
    script.move(6, "", 0, SIBLING, status="expired")
    assert script.finish(*SLEEPS) == ["E1: job b/1 ended as expired before its time, 5000"]


def test_nothing_but_sleep_and_a_person_lifts_an_expiry() -> None:
    lost = ["E1: job b/0 expired at 5000, and since revision 3 at 0: nothing says why"]
    assert parted().finish(run("start", 2.1, 2), run("end", 2.9, 2, "retry")) == lost
    assert parted().finish(run("start", 2.1, 1), run("end", 2.9, 1, "sleep")) == lost       # under another claim
    assert not parted().finish(again=[3.0])
