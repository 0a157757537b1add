"""When jobs expire, each by itself: those of a bundle part ways when one of them sleeps, or a person has it run again.

    E1  nothing begins after it has expired, nor ends as expired before, or if it never does; and what expires goes on
        doing so until it has slept (or waited for others), or a person has it run again
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from .history import Job, Place, Step
from .names import job_name
from .scripted import Run

PARTED = ("sleep", "wait")
"""The outcomes of a run after which a job does not expire any more."""


class Change(NamedTuple):
    """The time by which a job has to begin is another one."""

    job: Job
    revision: int
    at: float
    claim: int          # the create revision of the claim that it was under, or 0
    before: int
    after: int


class Expiries:
    """Judges one revision after the other, and what the runners saw at the end. Times of tokens in ms since 1970."""

    def __init__(self, say: Callable[[str, str], None], wall_of: Callable[[float], float], skew_s: float) -> None:
        self._say = say
        self._wall_of = wall_of
        self._skew_s = skew_s
        self._claimed: dict[tuple[Job, int], int] = {}      # (job, create revision of its claim) -> as it was given
        self._changes: list[Change] = []

    def see(self, step: Step) -> None:
        for move in step.moves:
            for place in move.after:
                if place.kind == "claims":
                    self._claimed.setdefault((move.job, place.create_revision), _expires([place]))
            before, after = _expires(move.before), _expires(move.after)
            if move.before and move.after and before != after:
                claim = next((place.create_revision for place in move.before if place.kind == "claims"), 0)
                self._changes.append(Change(move.job, step.revision, step.entry.at, claim, before, after))
            if step.results.get(move.job) == "expired":
                self._check_end(move.job, before, step.entry.at)

    def _check_end(self, job: Job, expires: int, at: float) -> None:
        if not expires:
            self._say("E1", f"job {job_name(*job)} ended as expired, and never does")
        elif (self._wall_of(at) + self._skew_s) * 1000 < expires:
            self._say("E1", f"job {job_name(*job)} ended as expired before its time, {expires}")

    def finish(self, runs: Iterable[Run], again: Mapping[Job, Sequence[float]]) -> None:
        """`again`: when a person had a job run again."""
        parted: set[tuple[Job, int]] = set()
        for run in runs:
            bundle, _, index = run.job.partition("/")
            job = bundle, int(index)
            if run.outcome in PARTED:
                parted.add((job, run.fence))
            expires = self._claimed.get((job, run.fence), 0)
            if run.what == "start" and expires and (self._wall_of(run.at) - self._skew_s) * 1000 > expires:
                self._say("E1", f"job {run.job} was started at {run.at:.3f} s on {run.node}, and had expired")
        for change in self._changes:
            explained = (change.job, change.claim) in parted or change.at in again.get(change.job, ())
            if change.after or not explained:
                self._say("E1", f"job {job_name(*change.job)} expired at {change.before}, and since revision "
                                f"{change.revision} at {change.after}: nothing says why")


def _expires(places: Iterable[Place]) -> int:
    return max((place.token.expires for place in places if place.token is not None), default=0)
