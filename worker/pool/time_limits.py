"""Time limits of jobs, kept by the node: what is overdue in a runner, and whose fault that is.

A runner of `async def` jobs keeps them itself as long as its loop turns: it says when it has told a job to end. A job
that was told and goes on is stubborn. If nothing was told the loop does not turn, and any job on it may be why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rota.client.model import TaskInfo

from ..channel.frames import Work
from ..channel.slots import slot_of
from .ready import Job
from .seat import Seat

CANCEL_GRACE_S = 2.0
"""How long a job that was told to end may go on, where its task is not known."""


class Overdue(NamedTuple):
    slot: int
    work: Work
    error: str
    blocked: bool       # the loop does not turn: it need not be this one's fault


class TimeLimits:
    def __init__(self, info_of: Callable[[str], TaskInfo | None]) -> None:
        self._info_of = info_of

    def timeout_s(self, work: Work) -> float | None:
        if work.options.timeout_s is not None:
            return work.options.timeout_s
        info = self._info_of(work.task)
        return None if info is None else info.timeout_s

    def grace_s(self, work: Work) -> float:
        info = self._info_of(work.task)
        return CANCEL_GRACE_S if info is None else info.cancel_grace_s

    def expect(self, seat: Seat, work: Work, jobs: list[Job], now: float) -> None:
        """Jobs are sent to a runner. (Of a plain function's runner the first that has no outcome is looked at.)"""
        timeout_s = self.timeout_s(work)
        if seat.kind == "async" and timeout_s is not None:
            for index, _ in jobs:
                seat.expect(slot_of(work.key, index), now + timeout_s + self.grace_s(work))

    def look(self, seat: Seat, now: float) -> Overdue | None:
        """One job for which a runner has to go."""
        return self._look_sync(seat, now) if seat.kind == "sync" else self._look_async(seat, now)

    def _look_sync(self, seat: Seat, now: float) -> Overdue | None:
        head = seat.head()
        if head is None:
            return None
        slot, work = head
        timeout_s = self.timeout_s(work)
        if timeout_s is not None and now >= max(seat.head_since, seat.touched.get(slot, 0.0)) + timeout_s:
            seat.read_now()
            if slot in seat.sent and now >= seat.touched.get(slot, 0.0) + timeout_s:
                return Overdue(slot, work, f"TimeoutError: timed out after {timeout_s:g} s", False)
        for doomed in list(seat.overdue(now)):      # asked to stop, and it did not
            seat.read_now()
            if doomed in seat.sent:
                return Overdue(doomed, seat.sent[doomed][0], "cancelled", False)
        return None

    def _look_async(self, seat: Seat, now: float) -> Overdue | None:
        slots = list(seat.overdue(now))
        if not slots:
            return None
        seat.read_now()
        started = set(seat.started())
        for slot in slots:
            if slot not in seat.sent:
                continue
            work = seat.sent[slot][0]
            limit = seat.touched.get(slot, 0.0) + (self.timeout_s(work) or 0.0) + self.grace_s(work)
            if slot not in started:         # something blocks the loop, but not this one
                seat.expect(slot, now + CANCEL_GRACE_S)
            elif now < limit and slot not in seat.doomed:
                seat.expect(slot, limit)
            else:
                return self._blame(seat, slot, work, alone=len(started) == 1)
        return None

    def _blame(self, seat: Seat, slot: int, work: Work, *, alone: bool) -> Overdue:
        if slot in seat.told or alone:
            error = f"TimeoutError: did not end when it was cancelled after its timeout of {self.timeout_s(work)} s"
            return Overdue(slot, work, error, False)
        return Overdue(slot, work, "", True)
