"""A block of enqueues that are not waited for one by one.

    with rota.pipeline():
        handles = [resize.enqueue(path) for path in paths]      # each returns at once
    # here all of them are stored, or an error says which are not

A loop of plain enqueues waits for the store once for each job. In a pipeline jobs travel together, as those of
`enqueue_many` do, and still each call is checked where it is made and has a handle of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self, TypeVar

from ..calls.handle import JobHandle, Source
from ..errors import PartlyEnqueued
from ..ids import job_id
from ..process import background
from ..wire.views import JobView
from .coalesce import Ref

R = TypeVar("R")

JOBS_AHEAD_MAX = 5_000
BYTES_AHEAD_MAX = 8 * 1024 * 1024
"""Of one pipeline, not answered yet: then an enqueue waits for the oldest."""

TURN_JOBS = 100
"""After so many jobs a coroutine that enqueues lets the others of its loop run."""

_current: ContextVar[Pipeline | None] = ContextVar("rota_pipeline", default=None)


def current() -> Pipeline | None:
    """The pipeline that this code runs in. One that has ended is none: tasks begun in its block may outlive it."""
    pipeline = _current.get()
    return pipeline if pipeline is not None and pipeline.is_open else None


class Pipeline:
    """What `pipeline()` gives: `with`, or `async with` in a coroutine."""

    def __init__(self) -> None:
        self.is_open = False
        self._ahead: deque[tuple[Future[Ref], int]] = deque()
        self._bytes = 0
        self._taken = 0
        self._stored: list[Ref] = []
        self._faults = 0
        self._fault: Exception | None = None
        self._token: Token[Pipeline | None] | None = None

    def take(self, stored: Future[Ref], size: int) -> None:
        """One more is on its way; blocks while too many are."""
        for oldest in self._over(stored, size):
            self._note(oldest, background.wait)

    async def atake(self, stored: Future[Ref], size: int) -> None:
        """`take` for coroutines."""
        for oldest in self._over(stored, size):
            await _settled(oldest)
            self._note(oldest)
        if self._taken % TURN_JOBS == 0:
            await asyncio.sleep(0)

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("a pipeline is used once: rota.pipeline() makes another")
        self.is_open = True
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        while self._ahead:
            self._note(self._ahead.popleft()[0], background.wait)
        self._say(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        while self._ahead:
            oldest, _ = self._ahead.popleft()
            await _settled(oldest)
            self._note(oldest)
        self._say(error)

    def _over(self, stored: Future[Ref], size: int) -> list[Future[Ref]]:
        """Those to wait for, so that this one has room."""
        self._ahead.append((stored, size))
        self._bytes += size
        self._taken += 1
        over = []
        while self._ahead[0][0].done() or len(self._ahead) > JOBS_AHEAD_MAX or self._bytes > BYTES_AHEAD_MAX:
            oldest, its = self._ahead.popleft()
            self._bytes -= its
            over.append(oldest)
            if not self._ahead:
                break
        return over

    def _note(self, stored: Future[Ref], wait: Callable[[Future[Ref]], Ref] = Future.result) -> None:
        try:
            self._stored.append(wait(stored))
        except Exception as error:
            self._faults += 1
            self._fault = self._fault or error

    def _leave(self) -> None:
        self.is_open = False
        assert self._token is not None
        _current.reset(self._token)

    def _say(self, error: BaseException | None) -> None:
        """Raise what went wrong; beside an error of the block itself it is a note."""
        if self._fault is None:
            return
        if error is not None:
            error.add_note(f"rota: {self._faults:,} jobs of the pipeline are not stored: {self._fault}")
        elif self._stored:
            ids = [job_id(ref.bundle, ref.place) for ref in self._stored]
            raise PartlyEnqueued(ids, self._fault) from self._fault
        else:
            raise self._fault


def pipeline() -> Pipeline:
    """A block in which `enqueue` and `aenqueue` do not wait until their job is stored.

        with rota.pipeline():
            for path in paths:
                resize.enqueue(path)

    In a coroutine: `async with rota.pipeline():` and `await resize.aenqueue(path)`. It holds for whatever enqueues in
    the block, through any client, in the order of the calls. A call that is wrong in itself raises where it is made.
    What a handle in the block cannot know before the job is stored (its id, its result), it waits for.

    Raises, at the end of the block:
        PartlyEnqueued: some are stored, and some are not; it says which are, and the first error.
        What `enqueue` raises: none is stored.
    """
    return Pipeline()


class PipelinedHandle(JobHandle[R]):
    """A handle whose job is on its way: what the answer says is filled in when it is asked for."""

    __slots__ = ("_stored", "_wait")

    def __init__(self, source: Source, stored: Future[Ref], wait: Callable[[Future[Ref]], Ref]) -> None:
        self._source = source
        self._stored = stored
        self._wait = wait

    def __getattr__(self, name: str) -> Any:
        """A slot that is not filled yet."""
        if name not in JobHandle.__slots__:
            raise AttributeError(name)
        self._bundle, self._index, self.level, self.existing = self._wait(self._stored)
        return getattr(self, name)

    async def aresult(self, timeout: float | None = None) -> R:
        await _settled(self._stored)
        return await super().aresult(timeout)

    async def astatus(self) -> JobView:
        await _settled(self._stored)
        return await super().astatus()

    async def acancel(self) -> str:
        await _settled(self._stored)
        return await super().acancel()

    def __repr__(self) -> str:
        return super().__repr__() if self._stored.done() else "<job on its way>"


async def _settled(stored: Future[Ref]) -> None:
    """Whether it is stored or not is known."""
    if not stored.done():
        answer = asyncio.wrap_future(stored)
        await asyncio.wait([answer])
        if not answer.cancelled():
            answer.exception()          # it is told by `stored`; of this one nobody asks
