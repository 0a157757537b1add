"""Who waits for which result. Nothing is followed that nobody waits for; what waits at the same time is asked for
together."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from ..errors import ClientClosed, JobCancelled, JobExpired, JobFailed, JobUnknown, ResultInvalid, RotaError
from ..ids import job_id
from ..model import ResultEntry
from ..transports.transport import Transport
from ..wire.keyring import Seal

KEPT_BYTES_MAX = 16 * 1024 * 1024
"""Of results that came along with one that was waited for: the next job of the same bundle is asked for soon."""

ENTRY_BYTES = 200
"""What an entry weighs beside its value."""


class Results:
    """A `Follower`. All methods are called on the event loop; `seal()` gives what to verify results with."""

    def __init__(self, transport: Transport, seal: Callable[[], Seal]) -> None:
        self._transport = transport
        self._seal = seal
        self._waiting: dict[str, dict[int, list[asyncio.Future[ResultEntry | None]]]] = {}
        self._looking: dict[str, list[asyncio.Future[ResultEntry | None]]] = {}     # to be told also that there is none
        self._kept: OrderedDict[tuple[str, int], ResultEntry] = OrderedDict()
        self._kept_bytes = 0
        self._to_follow: set[str] = set()
        self._to_leave: set[str] = set()

    async def wait(self, bundle: str, index: int) -> ResultEntry:
        """The terminal outcome of a job. Raises `JobUnknown`, `ResultInvalid`, `Unreachable`."""
        entry = self.kept(bundle, index) or await self._wait(bundle, index, look=False)
        assert entry is not None
        return entry

    async def look(self, bundle: str, index: int) -> ResultEntry | None:
        """The same, or None where there is no outcome yet, as soon as a node has said so."""
        return self.kept(bundle, index) or await self._wait(bundle, index, look=True)

    async def _wait(self, bundle: str, index: int, *, look: bool) -> ResultEntry | None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultEntry | None] = loop.create_future()
        jobs = self._waiting.setdefault(bundle, {})
        if not jobs or look:
            self._plan(loop, self._to_follow, bundle)
            self._to_leave.discard(bundle)
        jobs.setdefault(index, []).append(future)
        if look:
            self._looking.setdefault(bundle, []).append(future)
        try:
            return await future
        finally:
            self._forget(bundle, index, future)

    def kept(self, bundle: str, index: int) -> ResultEntry | None:
        """What came along with another result. May be called from any thread."""
        return self._kept.get((bundle, index))

    def push(self, bundle: str, results: bytes) -> None:
        if not results:
            for index, futures in self._waiting.get(bundle, {}).items():
                _refuse(futures, gone(job_id(bundle, index)))
            return
        try:
            record = self._seal().results(bundle, results)
        except ResultInvalid as error:
            self.refuse(bundle, error)
            return
        jobs = self._waiting.get(bundle, {})
        for entry in record.entries:
            for future in jobs.get(entry.index, ()):
                if not future.done():
                    future.set_result(entry)
            if entry.status != "failed":    # such may still change: an operator can retry it
                self._keep(bundle, entry)

    def registered(self, bundle: str) -> None:
        for future in self._looking.pop(bundle, ()):
            if not future.done():
                future.set_result(None)

    def refuse(self, bundle: str, error: RotaError) -> None:
        for futures in self._waiting.get(bundle, {}).values():
            _refuse(futures, error)

    def close(self) -> None:
        for bundle in list(self._waiting):
            self.refuse(bundle, ClientClosed("the client was closed"))

    def _keep(self, bundle: str, entry: ResultEntry) -> None:
        if (bundle, entry.index) in self._kept:
            return
        self._kept[bundle, entry.index] = entry
        self._kept_bytes += len(entry.value) + ENTRY_BYTES
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= len(old.value) + ENTRY_BYTES

    def _forget(self, bundle: str, index: int, future: asyncio.Future[ResultEntry | None]) -> None:
        if future in self._looking.get(bundle, ()):
            self._looking[bundle].remove(future)
        jobs = self._waiting[bundle]
        jobs[index].remove(future)
        if not jobs[index]:
            del jobs[index]
        if not jobs:
            del self._waiting[bundle]
            self._looking.pop(bundle, None)
            self._plan(asyncio.get_running_loop(), self._to_leave, bundle)
            self._to_follow.discard(bundle)

    def _plan(self, loop: asyncio.AbstractEventLoop, plan: set[str], bundle: str) -> None:
        """Carry out both plans at the end of this turn of the loop, together."""
        if not self._to_follow and not self._to_leave:
            loop.call_soon(self._carry_out)
        plan.add(bundle)

    def _carry_out(self) -> None:
        follow, self._to_follow = self._to_follow, set()
        leave, self._to_leave = self._to_leave, set()
        if leave:
            self._transport.unfollow(leave)
        if follow:
            self._transport.follow(follow, self)


def check_entry(job_id: str, entry: ResultEntry) -> None:
    """Raise what a job's outcome means to who waited for its result."""
    if entry.status == "failed":
        raise JobFailed(job_id, entry.error, entry.traceback, entry.attempts)
    if entry.status == "cancelled":
        why = f": {entry.error}" if entry.error not in ("", "cancelled") else ""
        raise JobCancelled(f"job {job_id} was cancelled{why}", job_id)
    if entry.status == "expired":
        raise JobExpired(f"job {job_id} has expired: {entry.error}", job_id)


def gone(job_id: str) -> JobUnknown:
    """A job has ended, and that is all there is."""
    return JobUnknown(
        f"job {job_id} has ended, and what became of it is not kept: its result has expired, or was not to be kept "
        "(keep_result=0)", job_id,
    )


def _refuse(futures: list[asyncio.Future[ResultEntry | None]], error: RotaError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
