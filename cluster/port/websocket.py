"""One client's WebSocket: frames in, one service call each, answers and results out.

Requests of one connection are worked on side by side, up to a limit; at the limit nothing more is read, and TCP holds
the client back. A client that does not take its results in time is dropped: it connects again and asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from aiohttp import WSCloseCode, WSMsgType, web

from rota.client.errors import EnqueueError, InvalidJob, JobUnknown
from rota.client.model import UNREADABLE, Mode, Receipt
from rota.client.wire import frames as wire
from rota.client.wire.keyring import Keyring

from .happenings import Streams
from .service import NodeService
from .watches import Watches, told

log = logging.getLogger("rota.http")

HEARTBEAT_S = 20.0
CLOSE_S = 0.2
PUSHED_BYTES_MAX = 16 * 1024 * 1024
"""Results that wait for a slow client."""

FOLLOWED_MAX = 100_000
"""Bundles that one client may follow at once."""

End = Callable[[], None]


class Socket:
    """Serves one connection; `serve()` returns when it is over. `note` says in the log, now and then, what clients
    do."""

    def __init__(
        self, service: NodeService, keyring: Keyring, note: Callable[[str], None], streams: Streams
    ) -> None:
        self._service = service
        self._note = note
        self._keyring = keyring
        self._ws = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=wire.FRAME_BYTES_MAX, compress=False, timeout=CLOSE_S
        )
        self._transport: asyncio.Transport | None = None
        self._free = asyncio.Semaphore(wire.IN_FLIGHT_MAX)
        self._follow_lock = asyncio.Lock()
        self._follows: dict[str, _Follow] = {}
        self._pushes: deque[tuple[str, bytes]] = deque()
        self._pushed_bytes = 0
        self._pushing = asyncio.Event()
        self._watches = Watches(service, streams, self._send)
        self._reads_whole = True

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = self._ws
        self._reads_whole = request.headers.get(wire.RESULTS_HEADER, "1") != "1"
        await ws.prepare(request)
        self._transport = request.transport
        await self._send(wire.Hello(
            wire.PROTOCOL, self._service.cluster, self._service.node, self._keyring.ids,
            wire.Limits(
                jobs_per_bundle_max=self._service.jobs_per_bundle, header_schema_max=self._service.header_schema
            ), pushes_events=True,
        ))
        try:
            async with asyncio.TaskGroup() as group:
                pusher = group.create_task(self._push_results(), name="rota push")
                try:
                    await self._read(group)
                finally:
                    pusher.cancel()
                    await self._watches.close()
        finally:
            for follow in set(self._follows.values()):
                follow.end()
            self._follows.clear()
        return ws

    async def close(self) -> None:
        await self._ws.close(code=WSCloseCode.GOING_AWAY)

    async def _read(self, group: asyncio.TaskGroup) -> None:
        """Take frames until the connection ends. Requests still in work then have nobody to answer, but bundles that
        are on their way into the store are better finished than cut off."""
        async for message in self._ws:
            if message.type is not WSMsgType.BINARY:
                break
            try:
                frame = wire.decode_from_client(message.data)
            except UNREADABLE as error:
                self._note("a client sent a frame that cannot be read")
                log.debug("a client sent a frame that cannot be read: %.200s", error)
                await self._ws.close(code=WSCloseCode.INVALID_TEXT, message=b"unreadable frame")
                break
            match frame:
                case wire.Unfollow():
                    self._unfollow(frame.bundles)
                case wire.WatchRequest():
                    await self._watches.begin(frame)
                case wire.Unwatch():
                    self._watches.end(frame.corr)
                case _:
                    await self._free.acquire()
                    group.create_task(self._carry_out(frame), name="rota request")

    async def _carry_out(self, frame: wire.Request) -> None:
        try:
            reply = await self._answer(frame)
        except Exception as error:
            reply = wire.ErrorFrame(frame.corr, told(error, frame))
        await self._send(reply)
        self._free.release()        # only now: who does not take answers may not ask on

    async def _answer(self, frame: wire.Request) -> wire.FromNode:
        match frame:
            case wire.EnqueueRequest():
                return _enqueue_reply(frame, await self._service.enqueue(frame.bundles, frame.seen_revision))
            case wire.FollowRequest():
                unknown = await self._follow(frame.session, frame.bundles)
                await self._send_pushes()       # what is known already comes before the answer
                return wire.Done(frame.corr, unknown)
            case wire.FunctionRequest():
                await self._service.put_function(frame.digest, frame.blob)
                return wire.Done(frame.corr)
            case wire.TaskModeRequest():
                return wire.TaskModeReply(frame.corr, as_mode(await self._service.task_mode(frame.task)))

    async def _send(self, frame: wire.FromNode) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):        # it has gone; the reader ends by itself
            await self._ws.send_bytes(wire.encode(frame))

    # -- results

    async def _follow(self, session: str, bundles: list[str]) -> list[str]:
        """Follow bundles, all in one call of the service if it knows them all. Returns those that it does not know."""
        async with self._follow_lock:
            return await self._follow_new(session, bundles)

    async def _follow_new(self, session: str, bundles: list[str]) -> list[str]:
        new = [bundle for bundle in dict.fromkeys(bundles) if bundle not in self._follows]
        if len(self._follows) + len(new) > FOLLOWED_MAX:
            raise InvalidJob(f"one connection follows at most {FOLLOWED_MAX:,} bundles")
        try:
            await self._follow_all(session, new)
            return []
        except JobUnknown:
            unknown = []
            for bundle in new:
                try:
                    await self._follow_all(session, [bundle])
                except JobUnknown:
                    unknown.append(bundle)
            return unknown

    async def _follow_all(self, session: str, bundles: list[str]) -> None:
        if not bundles:
            return
        follow = _Follow(set(bundles), await self._service.follow(session, bundles, self._push))
        self._follows.update(dict.fromkeys(bundles, follow))

    def _unfollow(self, bundles: list[str]) -> None:
        for bundle in bundles:
            follow = self._follows.pop(bundle, None)
            if follow is not None:
                follow.bundles.discard(bundle)
                if not follow.bundles:
                    follow.end()

    def _push(self, bundle: str, results: bytes) -> None:
        if not self._reads_whole:
            results = self._keyring.results_one_by_one(results, self._service.cluster)
        if self._pushed_bytes > PUSHED_BYTES_MAX:
            if self._transport is not None and not self._transport.is_closing():
                self._note("a client did not take its results, and was left")
                self._transport.abort()
            return
        self._pushes.append((bundle, results))
        self._pushed_bytes += len(results)
        self._pushing.set()

    async def _push_results(self) -> None:
        while True:
            await self._pushing.wait()
            await self._send_pushes()

    async def _send_pushes(self) -> None:
        """Send what was pushed, as much at once as a frame holds."""
        while self._pushes:
            frame: list[tuple[str, bytes]] = []
            size = 0
            while self._pushes and size < wire.CLIENT_FRAME_BYTES:
                frame.append(self._pushes.popleft())
                size += len(frame[-1][1])
            self._pushed_bytes -= size
            if not self._pushes:
                self._pushing.clear()
            await self._send(wire.ResultPush(frame))


_MODES: dict[str | None, Mode] = {"async": "async", "sync": "sync"}


def as_mode(text: str | None) -> Mode | None:
    return _MODES.get(text)


class _Follow:
    """One call of `service.follow`, which ends when the last of its bundles is left."""

    def __init__(self, bundles: set[str], end: End) -> None:
        self.bundles = bundles
        self.end = end


def _enqueue_reply(frame: wire.EnqueueRequest, answers: list[Receipt | EnqueueError]) -> wire.EnqueueReply:
    receipts = [answer if isinstance(answer, Receipt) else None for answer in answers]
    refusals = {place: wire.refusal(answer) for place, answer in enumerate(answers) if isinstance(answer, Exception)}
    return wire.EnqueueReply(frame.corr, receipts, refusals)
