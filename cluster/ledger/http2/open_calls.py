"""The calls of one connection: those that have a stream, and those that wait for one."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from grpc import StatusCode

from ..members import RpcFailed
from .calls import NO_DEADLINE, Call, Unary
from .frames import PROTOCOL_ERROR, WINDOW_MAX, Frame, PeerError

STREAM_MAX = WINDOW_MAX - 1_000
"""Of the streams' numbers, which are never used twice: then another connection takes over."""

Waiting: TypeAlias = tuple[Unary, bytes, bytes]
"""With its header block and its body."""


class OpenCalls:
    """Data of the connection, which does all that is said to the peer."""

    def __init__(self) -> None:
        self.by_stream: dict[int, Call] = {}
        self.streams_max = WINDOW_MAX
        self.waiting: deque[Waiting] = deque()
        self._next = 1

    def __bool__(self) -> bool:
        return bool(self.by_stream or self.waiting)

    def number(self) -> int:
        """Of the next stream."""
        number, self._next = self._next, self._next + 2
        return number

    @property
    def is_used_up(self) -> bool:
        return self._next > STREAM_MAX

    def of(self, got: Frame) -> Call | None:
        """None for one that has ended here. Raises `PeerError` for one that never began."""
        call = self.by_stream.get(got.stream)
        if call is None and (got.stream >= self._next or not got.stream & 1):
            raise PeerError(PROTOCOL_ERROR, f"stream {got.stream} was never opened")
        return call

    def next_waiting(self) -> Waiting | None:
        """For which there is a stream now."""
        while self.waiting and len(self.by_stream) < self.streams_max:
            waiting = self.waiting.popleft()
            if not waiting[0].over:
                return waiting
        return None

    @property
    def first_deadline(self) -> float:
        open_ = (*self.by_stream.values(), *(call for call, _, _ in self.waiting))
        return min((call.deadline for call in open_), default=NO_DEADLINE)

    def late(self, now: float) -> list[Call]:
        """Of those that have a stream."""
        return [call for call in self.by_stream.values() if call.deadline <= now]

    def fail_late_waiting(self, now: float) -> None:
        for waiting in [waiting for waiting in self.waiting if waiting[0].deadline <= now]:
            self.waiting.remove(waiting)
            waiting[0].fail(
                RpcFailed(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded before it was sent", sent=False)
            )

    def fail_above(self, last: int, why: RpcFailed) -> None:
        """The peer does nothing about these, nor about what waits."""
        for stream in [stream for stream in self.by_stream if stream > last]:
            self.by_stream.pop(stream).fail(why)
        self.fail_waiting(why)

    def fail_waiting(self, why: RpcFailed) -> None:
        while self.waiting:
            self.waiting.popleft()[0].fail(why)

    def fail_all(self, why: RpcFailed) -> None:
        calls = list(self.by_stream.values())
        self.by_stream.clear()
        for call in calls:
            call.fail(why)
        self.fail_waiting(RpcFailed(why.code, why.details, sent=False))
