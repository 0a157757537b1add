"""A watch on etcd that survives what happens to streams.

One task reads the stream and one asks for progress; what has been read waits in a list, so that a consumer that was
busy gets everything at once. The revision to resume from is the last one fully seen: the last event's, or that of a
progress answer that cannot have overtaken events.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from aetcd import rpc

from rota.client import errors

from .endpoints import Endpoints
from .ledger import Changes, Event, is_empty
from .members import Member, RpcFailed, WatchCall
from .messages import events as decode_events
from .releases import progress_is_ordered
from .translate import TokenRefused, meaning

BACKLOG_EVENTS_MAX = 100_000
"""Events that may wait for their consumer (some 100 MB); beyond it the stream is left unread, and etcd keeps them."""

RECONNECT_PAUSE_MIN_S, RECONNECT_PAUSE_MAX_S = 0.05, 1.0

STALL_PERIODS = 3
STALL_LIMIT_MAX_S = 30.0
"""A stream is given up after 3 silent periods. The limit doubles when the next one stalls before its first answer, too:
etcd is silent while it scans a long history for a watch that resumes far back, and starting it over would not help."""

ANY_WATCH = -1
"""The watch id of an answer to a progress request: it speaks for the whole stream."""


class _StreamLost(errors.LedgerUnavailable):
    """The stream ended; another one can go on where it ended."""


class EtcdWatch:
    """See `ledger.Watch`. Iterate inside `async with`; one consumer.

    Progress needs etcd 3.5.8 (3.4.25), or a server that notifies by itself as the embedded one does: before, answers to
    a client's request could overtake events, and are only taken as a sign of life.
    """

    def __init__(
        self, endpoints: Endpoints, key: bytes, range_end: bytes, from_revision: int, *, deletes_only: bool = False
    ) -> None:
        if from_revision < 1:
            raise errors.TransactionInvalid(f"a watch starts at a revision from 1 on, not at {from_revision}")
        if is_empty(key, range_end):        # etcd refuses it, and would be asked again and again
            raise errors.TransactionInvalid(f"the range {key!r} to {range_end!r} holds no key")
        self._endpoints = endpoints
        self._key = key
        self._range_end = range_end
        self._deletes_only = deletes_only
        self._interval_s = endpoints.config.progress_interval_s
        self._stall_limit_s = STALL_PERIODS * self._interval_s
        self._seen = from_revision - 1
        self._delivered = from_revision - 1
        self._backlog: list[Event] = []
        self._error: errors.LedgerError | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._call: WatchCall | None = None
        self._endpoint: Member | None = None
        self._heard_at = 0.0
        self._answered = False      # this stream has said something
        self._start = 0             # where this stream began
        self._ahead = False         # the store has not come to where this stream began
        self._paused = False
        self._renewed_token = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow(), name=f"watch {self._key!r}"),
            loop.create_task(self._pulse(), name=f"watch pulse {self._key!r}"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._error = self._error or errors.LedgerUnavailable("the watch is closed")
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changes:
        assert self._tasks, "iterate a watch inside `async with`"
        while not (self._backlog or self._seen > self._delivered):
            if self._error:
                raise self._error
            self._news.clear()
            await self._news.wait()
        events, self._backlog = self._backlog, []
        self._delivered = self._seen
        self._room.set()
        return Changes(self._seen, tuple(events))

    async def _follow(self) -> None:
        """Read streams, one after the other, until something ends the watch for good."""
        pause_s = RECONNECT_PAUSE_MIN_S
        while True:
            self._answered = False
            try:
                endpoint = await self._endpoints.connected()
                await self._read_stream(endpoint)
            except (errors.LedgerUnavailable, errors.WriteUnknown):
                if self._endpoints.closed:
                    return self._end(errors.LedgerUnavailable("the ledger is closed"))
            except errors.LedgerError as error:
                return self._end(error)
            except Exception as error:      # a bug must reach the consumer, not leave it waiting
                self._end(errors.LedgerUnavailable(f"the watch failed: {error!r}"))
                raise
            pause_s = RECONNECT_PAUSE_MIN_S if self._answered else min(2 * pause_s, RECONNECT_PAUSE_MAX_S)
            await asyncio.sleep(pause_s)

    def _end(self, error: errors.LedgerError) -> None:
        self._error = error
        self._news.set()

    async def _read_stream(self, endpoint: Member) -> None:
        """Read one stream to its end, which is an exception."""
        progress_ordered = await self._progress_ordered(endpoint)
        call: WatchCall | None = None
        try:
            call = endpoint.watch(self._endpoints.metadata())
            self._call, self._endpoint, self._heard_at = call, endpoint, asyncio.get_running_loop().time()
            self._start = self._seen + 1
            await call.write(_create_request(self._key, self._range_end, self._start, self._deletes_only))
            await self._read_answers(call, endpoint, progress_ordered)
        except RpcFailed as error:
            self._endpoints.blame(endpoint)
            raise meaning(error) from None
        except (errors.LedgerUnavailable, errors.WriteUnknown):
            self._endpoints.blame(endpoint)
            raise
        finally:
            self._call = None
            if call is not None:
                call.cancel()

    async def _read_answers(self, call: WatchCall, endpoint: Member, progress_ordered: bool) -> None:
        loop = asyncio.get_running_loop()
        fragments: list[Event] = []
        while True:
            response = await call.read()
            self._heard_at = loop.time()
            self._answered = True
            self._endpoints.check_stream(response.header)
            if response.canceled:
                await self._cancelled(response, endpoint)
            elif response.created:
                await self._created(response)
            elif response.events:
                fragments += decode_events(response.events)
                if not response.fragment:
                    self._take(fragments)
                    fragments = []
                    if len(self._backlog) > BACKLOG_EVENTS_MAX:
                        await self._wait_for_room()
            elif progress_ordered or response.watch_id != ANY_WATCH:
                self._progress(response.header.revision)

    def _take(self, events: list[Event]) -> None:
        """Add the events of one answer, which are those of whole revisions. Those seen before are dropped: early 3.5
        and 3.4 could repeat them."""
        if events[0].record.mod_revision <= self._seen:
            events = [event for event in events if event.record.mod_revision > self._seen]
        if events:
            self._backlog += events
            self._seen = events[-1].record.mod_revision
            self._advance()

    def _progress(self, revision: int) -> None:
        if revision > self._seen:
            self._seen = revision
            self._advance()

    def _advance(self) -> None:
        self._stall_limit_s = STALL_PERIODS * self._interval_s
        self._ahead = False
        self._news.set()

    async def _wait_for_room(self) -> None:
        self._paused = True
        try:
            while len(self._backlog) > BACKLOG_EVENTS_MAX // 2:
                self._room.clear()
                await self._room.wait()
        finally:
            self._paused = False
            self._heard_at = asyncio.get_running_loop().time()

    async def _created(self, response: Any) -> None:
        """A member that lags behind may well be asked for revisions it does not have yet; a whole store may not."""
        self._renewed_token = False
        self._ahead = response.header.revision < self._start
        if response.header.revision >= self._seen:
            return
        answer = await self._endpoints.read("range", rpc.RangeRequest(key=self._key, keys_only=True, limit=1))
        if answer.header.revision < self._seen:
            raise self._endpoints.rewound(
                f"the store is at revision {answer.header.revision}, but was at {self._seen} before"
            )

    async def _cancelled(self, response: Any, endpoint: Member) -> None:
        """The server ended the watch: raise why."""
        if response.compact_revision:
            raise errors.Compacted(response.compact_revision)
        reason = response.cancel_reason
        if "permission denied" in reason or "auth" in reason or "user name is empty" in reason:
            # Until 3.5.9 an expired token is called a lack of permission here, so that it is worth a second try.
            if not self._renewed_token and await self._endpoints.refresh_token(endpoint):
                self._renewed_token = True
                raise _StreamLost(reason)
            raise errors.LedgerDenied(reason)
        if "compacted" in reason:
            raise errors.Compacted(self._seen + 1)
        raise _StreamLost(reason or "the server ended the watch")

    async def _progress_ordered(self, endpoint: Member) -> bool:
        try:
            status = await self._status(endpoint, self._endpoints.config.read_try_s)
        except TokenRefused:
            raise
        except errors.LedgerDenied:
            return True     # only releases that are newer than the fault ask for permission here
        except (errors.LedgerUnavailable, errors.WriteUnknown):
            self._endpoints.blame(endpoint)
            raise
        return progress_is_ordered(status.version)

    async def _pulse(self) -> None:
        """Ask for progress; cut the stream off when nothing at all comes back."""
        loop = asyncio.get_running_loop()
        request = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
        while True:
            await asyncio.sleep(self._interval_s)
            call, endpoint = self._call, self._endpoint
            if call is None or endpoint is None or self._paused:
                continue
            silent_s = loop.time() - self._heard_at
            if silent_s > self._stall_limit_s and not (self._ahead and await self._only_idle(endpoint)):
                await self._cut_off(call, endpoint)
                continue
            if not self._answered or silent_s < self._interval_s:
                continue    # the request that opens the watch may still be on its way; or events tell enough
            try:
                async with asyncio.timeout(self._interval_s):
                    await call.write(request)
            except (TimeoutError, RpcFailed):
                pass    # the reader notices, or the stall limit does

    async def _only_idle(self, endpoint: Member) -> bool:
        """Whether the silence is that of a store nobody writes to. A watch that starts at the next revision is told no
        progress before the store gets there (since 3.4.38, 3.5.22, 3.6.2), so another call must show a sign of life.
        When the store has got there, the stream has one more period to say so."""
        try:
            status = await self._status(endpoint, self._interval_s)
        except errors.LedgerError:
            return False
        self._ahead = status.header.revision < self._start
        self._heard_at = asyncio.get_running_loop().time()
        return True

    async def _status(self, endpoint: Member, timeout_s: float) -> Any:
        return await self._endpoints.call(endpoint, "status", rpc.StatusRequest(), timeout_s, any_member=True)

    async def _cut_off(self, call: WatchCall, endpoint: Member) -> None:
        """Nothing comes from this endpoint any more. With others to turn to, end everything that waits for it: those
        calls would sit out their deadlines."""
        self._stall_limit_s = min(2 * self._stall_limit_s, STALL_LIMIT_MAX_S)
        self._endpoints.blame(endpoint)
        call.cancel()
        if len(self._endpoints.all) > 1:
            await endpoint.reset()


def _create_request(key: bytes, range_end: bytes, start: int, deletes_only: bool) -> Any:
    return rpc.WatchRequest(create_request=rpc.WatchCreateRequest(
        key=key, range_end=range_end, start_revision=start, progress_notify=True, fragment=True,
        filters=[rpc.WatchCreateRequest.NOPUT] if deletes_only else [],
    ))
