"""Jobs that wait for jobs: handles among the arguments of an enqueue, and `using(after=…)`.

Where a handle stands in the arguments, the payload (which is signed) says which job's result belongs there; a runner
puts it there when it unpickles them. So handles may lie in lists, in dicts, or in objects of the application's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from . import ids
from .calls.handle import HandleMet, JobHandle, JobHandles, Taking, taking
from .calls.script import NAMES_SOMETHING
from .errors import InvalidJob, NotInJob
from .ids import parse_job_id
from .model import UPSTREAM_MAX, ResultEntry, Upstream

After: TypeAlias = JobHandle[Any] | str | Iterable[JobHandle[Any] | str]

MARK = b"rota.client.upstream"
"""In every payload that a handle stood in: the module that pickle names. What is stored names it, so it stays here."""

MARK_BYTE = NAMES_SOMETHING
"""And so this byte is there, too."""

Given: TypeAlias = Mapping[tuple[str, int], ResultEntry]
Open: TypeAlias = Callable[[str, ResultEntry], Any]

_given: ContextVar[tuple[Given, Open] | None] = ContextVar("rota_given_results", default=None)

__all__ = [
    "MARK", "MARK_BYTE", "After", "HandleMet", "ResultOf", "collecting", "joined", "open_with", "refs_of", "result_of",
    "upstream_of",
]


class ResultOf:
    """What stands for a result where arguments are only looked at."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id

    def __repr__(self) -> str:
        return f"<result of job {self.job_id}>"


def result_of(bundle: str, index: int) -> Any:
    """What pickle calls in the place of a handle."""
    known, job_id = _given.get(), ids.job_id(bundle, index)
    if known is None:
        return ResultOf(job_id)
    given, open_ = known
    if (bundle, index) not in given:
        raise NotInJob(f"the result of job {job_id}, which this job was to be given, did not come along")
    return open_(job_id, given[bundle, index])


@contextmanager
def open_with(given: Given, open_: Open) -> Iterator[None]:
    """While arguments are unpickled: the results that belong into them. `open_` makes a value of an entry."""
    token = _given.set((given, open_))
    try:
        yield
    finally:
        _given.reset(token)


@contextmanager
def collecting() -> Iterator[list[JobHandle[Any]]]:
    """While arguments are pickled: handles stand for results; gives those that were met."""
    met: list[JobHandle[Any]] = []
    token = taking.set(Taking(met, result_of))
    try:
        yield met
    finally:
        taking.reset(token)


def refs_of(after: After) -> set[tuple[str, int]]:
    """The jobs that `after` names. Raises `InvalidJob`."""
    if isinstance(after, JobHandle | str):
        after = (after,)
    if isinstance(after, JobHandles) and "none" in after.levels:
        raise _volatile()
    try:
        return {_ref(one) for one in after}
    except TypeError:
        raise InvalidJob(f"after={after!r:.80} is not valid: a job's handle or id, or several of them") from None


def upstream_of(after: Iterable[tuple[str, int]], wanted: Iterable[tuple[str, int]]) -> tuple[Upstream, ...]:
    """Jobs to wait for; of those `wanted` the results are needed, too. Raises `InvalidJob` for too many."""
    jobs: dict[str, int] = {}
    results: dict[str, int] = {}
    for bundle, index in wanted:
        results[bundle] = results.get(bundle, 0) | 1 << index
        jobs[bundle] = jobs.get(bundle, 0) | 1 << index
    for bundle, index in after:
        jobs[bundle] = jobs.get(bundle, 0) | 1 << index
    if (count := sum(bits.bit_count() for bits in jobs.values())) > UPSTREAM_MAX:
        raise InvalidJob(
            f"a job can wait for {UPSTREAM_MAX:,} others, and this one would for {count:,}: let jobs in between gather "
            "some of them each"
        )
    return tuple(
        Upstream(bundle, f"{bits:x}", f"{results[bundle]:x}" if bundle in results else "")
        for bundle, bits in sorted(jobs.items())
    )


def joined(before: tuple[Upstream, ...], handles: Iterable[JobHandle[Any]]) -> tuple[Upstream, ...]:
    """What is waited for anyway, and these handles, whose results are wanted."""
    return upstream_of(_jobs(before, "jobs"), {*_jobs(before, "wanted"), *map(_ref, handles)})


def _jobs(upstream: tuple[Upstream, ...], which: str) -> set[tuple[str, int]]:
    found = set()
    for one in upstream:
        bits = int(getattr(one, which) or "0", 16)
        found |= {(one.bundle, index) for index in range(bits.bit_length()) if bits >> index & 1}
    return found


def _ref(one: object) -> tuple[str, int]:
    if isinstance(one, JobHandle):
        if one.level == "none":
            raise _volatile()
        return parse_job_id(one.id)
    if isinstance(one, str):
        try:
            return parse_job_id(one)
        except ValueError as error:
            raise InvalidJob(str(error)) from None
    raise InvalidJob(f"{one!r:.80} is no job: a handle is, or a job's id")


def _volatile() -> InvalidJob:
    return InvalidJob("a job of persistence level 'none' is in no store, so no other can wait for it there")
