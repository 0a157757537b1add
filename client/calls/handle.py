"""What an enqueue returns: handles, through which results are waited for."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload

from ..ids import job_id, job_ids, parse_job_id
from ..model import Level
from ..wire.views import EventsPage, JobView, LogView, ProgressView
from .happenings import Happenings
from .watching import Watch

R_co = TypeVar("R_co", covariant=True)

Outcomes = Iterator[tuple[int, Callable[[], Any]]]
AsyncOutcomes = AsyncIterator[tuple[int, Callable[[], Any]]]
"""Places of jobs that have ended, and what gives the result of each, or raises what became of it."""


class HandleMet(TypeError):
    """A handle was pickled where no other job can wait for its result."""


class Taking(NamedTuple):
    """While something with handles in it is pickled: those that were met, and what is pickled in the place of one, or
    of many."""

    met: list[JobHandle[Any]]
    one: Callable[[str, int], Any]
    many: Callable[[list[tuple[str, int]]], Any] | None = None      # bundles and their counts; None: a list of each


taking: ContextVar[Taking | None] = ContextVar("rota_taking_handles", default=None)
"""Set for the arguments of an enqueue, where handles stand for results (`upstream.py`), and for what jobs remember."""


class Inside(Protocol):
    """What waits for results inside of a job that runs: the job gives its slot back meanwhile (`runner/steps.py`)."""

    def waits(self, source: Source) -> bool: ...
    def results(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> list[Any]: ...
    async def aresults(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> list[Any]: ...


inside: list[Inside] = []
"""One at the most: of a process that runs jobs."""


class Source(Protocol):
    """Where a handle asks: the client that made it."""

    def result(self, bundle: str, index: int, timeout: float | None) -> Any: ...
    async def aresult(self, bundle: str, index: int, timeout: float | None) -> Any: ...
    def job(self, job_id: str) -> JobView: ...
    def log(self, job_id: str) -> LogView: ...
    async def alog(self, job_id: str) -> LogView: ...
    def news(self, watch: Watch) -> EventsPage: ...
    async def anews(self, watch: Watch) -> EventsPage: ...
    async def ajob(self, job_id: str) -> JobView: ...
    def cancel_job(self, job_id: str) -> str: ...
    async def acancel_job(self, job_id: str) -> str: ...
    def outcomes(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> Outcomes: ...
    def aoutcomes(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> AsyncOutcomes: ...


class JobHandle(Generic[R_co]):
    """One enqueued job. Await it, or call `result()`."""

    __slots__ = ("_bundle", "_index", "_source", "existing", "level")

    def __init__(
        self, source: Source, bundle: str, index: int, level: Level | None = None, existing: bool = False
    ) -> None:
        self._source = source
        self._bundle = bundle
        self._index = index
        self.level = level
        """How safely the job was stored when the enqueue returned: "durable", "delayed" or "none". None for a handle
        that was made from an id."""
        self.existing = existing
        """Whether the enqueue stored nothing, since this job was there, with the key that was to be unique."""

    def beside(self, bundles: Sequence[tuple[str, int]]) -> JobHandles[Any]:
        """Handles of other jobs, through the same client: bundles, and how many jobs of each."""
        return JobHandles(self._source, bundles)

    @property
    def id(self) -> str:
        """Its id, to look it up with: `client.handle(id)`, `rota job ID`."""
        return job_id(self._bundle, self._index)

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for the job and return its result: at most `timeout` seconds, for ever if that is None; 0 looks once.

        Inside of a job the waiting job gives its slot back, and is run again from its beginning when the other one has
        ended, or `timeout` is over; what it has done by `rota.step` is remembered, and so is a wait that was over.

        Raises:
            JobFailed: it ended in the failed set; carries error and traceback as text.
            JobCancelled: it was cancelled.
            JobExpired: it had not begun by the time that was said (`expires`).
            ResultTimeout: no result within `timeout` seconds; the message says where the job is, and why.
            JobUnknown: there is no such job, or it has ended and what became of it is not kept (`keep_result=0`), or no
                longer. Whoever waits while a job ends that way is told a second later or so.
            ResultInvalid: what is stored is not what a node of this cluster wrote, or cannot be unpickled here.
            Unreachable: no node answers.
        """
        for job in inside:
            if job.waits(self._source):
                found: R_co = job.results([(self._bundle, self._index)], timeout)[0]
                return found
        value: R_co = self._source.result(self._bundle, self._index, timeout)
        return value

    async def aresult(self, timeout: float | None = None) -> R_co:
        """`result()` for coroutines."""
        for job in inside:
            if job.waits(self._source):
                found: R_co = (await job.aresults([(self._bundle, self._index)], timeout))[0]
                return found
        value: R_co = await self._source.aresult(self._bundle, self._index, timeout)
        return value

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.aresult().__await__()

    def status(self) -> JobView:
        """Where the job is, and why it waits there."""
        return self._source.job(self.id)

    async def astatus(self) -> JobView:
        """`status` for coroutines."""
        return await self._source.ajob(self.id)

    def progress(self) -> ProgressView | None:
        """How far the job is, as it said last with `rota.progress`; None if it does not run, or has not said."""
        return self.status().progress

    async def aprogress(self) -> ProgressView | None:
        """`progress` for coroutines."""
        return (await self.astatus()).progress

    def log(self) -> LogView:
        """What is kept of its log: the last lines, where its task or enqueue says `keep_log`."""
        return self._source.log(self.id)

    async def alog(self) -> LogView:
        """`log` for coroutines."""
        return await self._source.alog(self.id)

    def events(self) -> Happenings:
        """What happens to the job from now on, until it has ended: `for event in handle.events()`, or `async for`.

        First comes where it is now, with its progress and the lines kept of its log; then changes of its state,
        progress (at most twice a second), log lines. States that last for less than half a second may be left out; the
        last event is always the one that says how it ended.
        """
        return Happenings(self._source, self.id)

    def cancel(self) -> str:
        """Cancel the job, wherever it is.

        Returns "cancelled" (it had not begun, and never will), "requested" (a node holds it and stops it: wait for the
        result to know) or "ended".
        """
        return self._source.cancel_job(self.id)

    async def acancel(self) -> str:
        """`cancel()` for coroutines."""
        return await self._source.acancel_job(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobHandle) and self.id == other.id

    def __hash__(self) -> int:
        return hash((self._bundle, self._index))

    def __reduce__(self) -> tuple[Callable[[str, int], Any], tuple[str, int]]:
        """Among the arguments of an enqueue it stands for the job's result."""
        into = taking.get()
        if into is None:
            raise HandleMet("a job handle belongs to its client: pass handle.id, and use rota.handle(id) there")
        into.met.append(self)
        bundle, index = parse_job_id(self.id)
        return into.one, (sys.intern(bundle), index)

    def __repr__(self) -> str:
        return f"<job {self.id}>"


class JobHandles(Sequence[JobHandle[R_co]]):
    """The handles of many jobs, in the order of their calls; each is made when it is asked for."""

    def __init__(
        self, source: Source, bundles: Sequence[tuple[str, int]], levels: Mapping[str, Level] | None = None,
        existing: Set[int] = frozenset(),
    ) -> None:
        self._source = source
        self._bundles = bundles
        self._levels: Mapping[str, Level] = levels or {}        # of bundles that are not durable
        self._existing = existing       # which of the bundles were there before
        self._starts = [0]
        for _, count in bundles:
            self._starts.append(self._starts[-1] + count)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[list[Any]]]:
        """Among the arguments of an enqueue it stands for the list of their results."""
        into = taking.get()
        if into is None:
            raise HandleMet("job handles belong to their client: pass handles.ids, and use rota.handle(id) there")
        if into.many is not None:
            return into.many, (list(self._bundles),)
        return list, (list(self),)

    @property
    def levels(self) -> Set[Level]:
        """How safely their jobs were stored."""
        return set(self._levels.values()) or {"durable"}

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[JobHandle[R_co]]:
        for number, (bundle, count) in enumerate(self._bundles):
            level = self._levels.get(bundle, "durable")
            for index in range(count):
                yield JobHandle(self._source, bundle, index, level, number in self._existing)

    @overload
    def __getitem__(self, at: int) -> JobHandle[R_co]: ...
    @overload
    def __getitem__(self, at: slice) -> list[JobHandle[R_co]]: ...
    def __getitem__(self, at: int | slice) -> JobHandle[R_co] | list[JobHandle[R_co]]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = at + len(self) if at < 0 else at
        if not 0 <= place < len(self):
            raise IndexError(f"{at} of {len(self)} handles")
        number = bisect_right(self._starts, place) - 1
        bundle = self._bundles[number][0]
        return JobHandle(
            self._source, bundle, place - self._starts[number], self._levels.get(bundle, "durable"),
            number in self._existing,
        )

    def as_completed(self, timeout: float | None = None) -> Iterator[JobHandle[R_co]]:
        """The handles, each as soon as its job has ended, well or not. Raises `ResultTimeout` if some have not within
        `timeout` seconds (0: looks once)."""
        for place, _ in self._source.outcomes(self._refs(), timeout):
            yield self[place]

    async def aas_completed(self, timeout: float | None = None) -> AsyncIterator[JobHandle[R_co]]:
        """`as_completed` for coroutines: `async for handle in handles.aas_completed(): ...`"""
        async for place, _ in self._source.aoutcomes(self._refs(), timeout):
            yield self[place]

    def results(self, timeout: float | None = None, *, progress: bool | None = None) -> list[R_co]:
        """Wait for all jobs and return their results, in the order of the calls. Raises the error of the first that did
        not end well, as `JobHandle.result` does, or `ResultTimeout`. `progress` shows a bar on stderr; None: if that
        is a terminal."""
        for job in inside:
            if job.waits(self._source):
                return job.results(self._refs(), timeout)
        values: dict[int, R_co] = {}
        with shown(len(self), progress) as advance:
            for place, outcome in self._source.outcomes(self._refs(), timeout):
                values[place] = outcome()
                advance()
        return [values[place] for place in range(len(self))]

    async def aresults(self, timeout: float | None = None) -> list[R_co]:
        """`results` for coroutines, without a bar."""
        for job in inside:
            if job.waits(self._source):
                return await job.aresults(self._refs(), timeout)
        values: dict[int, R_co] = {}
        async for place, outcome in self._source.aoutcomes(self._refs(), timeout):
            values[place] = outcome()
        return [values[place] for place in range(len(self))]

    def _refs(self) -> list[tuple[str, int]]:
        return [(bundle, index) for bundle, count in self._bundles for index in range(count)]

    @property
    def ids(self) -> list[str]:
        """The ids, in the order of the calls."""
        return [one for bundle, count in self._bundles for one in job_ids(bundle, count)]

    def __repr__(self) -> str:
        return f"<{len(self):,} jobs>"


@contextmanager
def shown(total: int, progress: bool | None) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, where it is wanted; gives what moves it on."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
