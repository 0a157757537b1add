"""A call with one answer, and a stream of answers, as the connection feeds them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from grpc import StatusCode

from ..members import RpcFailed
from .frames import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, PeerError, to_u32
from .headers import status_in
from .sending import PREFIX_BYTES

WINDOW = 8 * 1024 * 1024
"""What a stream may have sent that nobody has taken. An answer is taken as it comes, events as they are read: etcd
keeps what a watch has that nobody reads."""

NO_DEADLINE = float("inf")

Widen = Callable[[int, int], None]
"""(stream, bytes): the peer may send so much more."""


class Call(Protocol):
    stream: int
    window: int
    over: bool
    deadline: float

    def data(self, payload: bytes, size: int) -> None: ...
    def end(self, fields: dict[str, str]) -> None: ...
    def fail(self, error: RpcFailed) -> None: ...


class Receiving:
    """The peer's side of the window of one stream."""

    __slots__ = ("_left", "_stream", "_taken", "_widen")

    def __init__(self, stream: int, widen: Widen) -> None:
        self._stream, self._widen = stream, widen
        self._left, self._taken = WINDOW, 0

    def came(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise PeerError(FLOW_CONTROL_ERROR, "more data than its window lets through")

    def taken(self, size: int) -> None:
        self._taken += size
        if self._taken >= WINDOW // 4:
            self._left += self._taken
            self._widen(self._stream, self._taken)
            self._taken = 0


class Unary:
    """One answer, for whoever awaits `answer`."""

    __slots__ = ("_parts", "_receiving", "_widen", "answer", "deadline", "over", "stream", "window")

    def __init__(self, answer: asyncio.Future[bytes], deadline: float, widen: Widen) -> None:
        self.answer, self.deadline, self._widen = answer, deadline, widen
        self.stream = self.window = 0
        self.over = False
        self._parts: list[bytes] = []
        self._receiving: Receiving | None = None

    def data(self, payload: bytes, size: int) -> None:
        if self._receiving is None:
            self._receiving = Receiving(self.stream, self._widen)
        self._parts.append(payload)
        self._receiving.came(size)
        self._receiving.taken(size)

    def end(self, fields: dict[str, str]) -> None:
        self.over = True
        if self.answer.done():
            return
        code, details = status_in(fields)
        if code is not StatusCode.OK:
            self.answer.set_exception(RpcFailed(code, details))
            return
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if len(body) < PREFIX_BYTES or body[0] or len(body) != PREFIX_BYTES + to_u32(body[1:PREFIX_BYTES]):
            self.answer.set_exception(RpcFailed(StatusCode.INTERNAL, "an answer that is not one whole message"))
        else:
            self.answer.set_result(body[PREFIX_BYTES:])

    def fail(self, error: RpcFailed) -> None:
        self.over = True
        if not self.answer.done():
            self.answer.set_exception(error)


class Messages:
    """Cuts a stream's data into messages."""

    def __init__(self) -> None:
        self.whole: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._have, self._need = 0, PREFIX_BYTES

    @property
    def partial(self) -> int:
        """Bytes of a message that is not whole."""
        return self._have

    def feed(self, payload: bytes) -> None:
        """Raises `PeerError`."""
        self._parts.append(payload)
        self._have += len(payload)
        if self._have < self._need:
            return
        data = payload if len(self._parts) == 1 else b"".join(self._parts)
        at, end = 0, len(data)
        while end - at >= PREFIX_BYTES:
            if data[at]:
                raise PeerError(PROTOCOL_ERROR, "a compressed message, which we did not ask for")
            self._need = PREFIX_BYTES + to_u32(data[at + 1 : at + PREFIX_BYTES])
            if end - at < self._need:
                break
            self.whole.append(data[at + PREFIX_BYTES : at + self._need])
            at += self._need
            self._need = PREFIX_BYTES
        self._parts = [data[at:]] if at < end else []
        self._have = end - at


class Stream:
    """Messages in both directions. One reader."""

    deadline = NO_DEADLINE

    def __init__(
        self, stream: int, window: int, widen: Widen, send: Callable[[Stream, bytes], None],
        reset: Callable[[Stream], None],
    ) -> None:
        self.stream, self.window, self.over = stream, window, False
        self._send, self._reset = send, reset
        self._receiving = Receiving(stream, widen)
        self._messages = Messages()
        self._early = 0             # bytes of unread messages that were granted before they were read
        self._end: RpcFailed | None = None
        self._news = asyncio.Event()

    def data(self, payload: bytes, size: int) -> None:
        self._receiving.came(size)
        self._messages.feed(payload)
        padding = size - len(payload)
        if padding:
            self._receiving.taken(padding)
        if self._messages.whole:
            self._news.set()
        if self._messages.partial > WINDOW // 2:        # a message larger than the window must not wait for its reader
            self._early += len(payload)
            self._receiving.taken(len(payload))

    def end(self, fields: dict[str, str]) -> None:
        self.fail(RpcFailed(*status_in(fields)))

    def fail(self, error: RpcFailed) -> None:
        self.over = True
        self._end = self._end or error
        self._news.set()

    async def read(self) -> bytes:
        """The next message. Raises `RpcFailed` behind the last one, also when the stream ended well."""
        messages = self._messages.whole
        while not messages:
            if self._end is not None:
                raise RpcFailed(self._end.code, self._end.details, sent=self._end.sent)
            self._news.clear()
            await self._news.wait()
        message = messages.popleft()
        size = len(message) + PREFIX_BYTES
        early = min(self._early, size)
        self._early -= early
        if not self.over:
            self._receiving.taken(size - early)
        return message

    def write(self, body: bytes) -> None:
        """Raises `RpcFailed` if the stream has ended."""
        if self._end is not None:
            raise RpcFailed(self._end.code, self._end.details, sent=self._end.sent)
        self._send(self, body)

    def cancel(self) -> None:
        if not self.over:
            self._reset(self)
            self.fail(RpcFailed(StatusCode.CANCELLED, "cancelled"))
