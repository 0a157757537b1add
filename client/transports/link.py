"""One WebSocket to one node: frames out, answers and results in. It knows nothing of retries: when it breaks, all that
is unanswered raises `LinkLost`, and `Connection` decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count

import aiohttp

from ..errors import ConfigError, ProtocolMismatch, RotaError, Unauthorized, Unreachable
from ..model import UNREADABLE
from ..settings.hosts import is_loopback
from ..wire import frames as wire
from .streams import Stream

HEARTBEAT_S = 6.0
"""A ping after this much silence; the answer must come within half of it. So a frozen node is left after 9 s, and one
that is merely slow is not."""

CLOSE_S = 0.2
"""How long to wait for the other end's goodbye, which changes nothing."""

OnResults = Callable[["Link", Iterable[tuple[str, bytes]]], None]


class LinkLost(RotaError):
    """The connection broke before the answer came: what was asked may have been carried out."""


class Link:
    """Made by `open()`; to be `close()`d. Once `lost`, it is of no more use."""

    def __init__(
        self, ws: aiohttp.ClientWebSocketResponse, hello: wire.Hello, url: str, on_lost: Callable[[], None],
        headers: Mapping[str, str],
    ) -> None:
        self.hello = hello
        self.url = url
        self.headers = headers
        """That requests to this node carry, beside those to all."""
        self.lost = False
        peer = ws.get_extra_info("peername")
        self.is_local = isinstance(peer, tuple) and is_loopback(str(peer[0]))
        """Whether the other end is on this machine: by its address, whatever name led there."""
        self.functions: set[str] = set()
        """Digests of code that was put through this link."""
        self._ws = ws
        self._on_lost = on_lost
        self._corr = count(1)
        self._asked: dict[int, asyncio.Future[wire.Reply]] = {}
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, url: str, on_results: OnResults, on_lost: Callable[[], None],
        headers: Mapping[str, str],
    ) -> Link:
        """Raises `Unreachable`, `Unauthorized`, `ConfigError` or `ProtocolMismatch`. The caller bounds the time."""
        ws = await _handshake(session, url, headers)
        try:
            _refuse_redirects(url, ws._response.history)
            hello = wire.decode_from_node(await ws.receive_bytes())
            if not isinstance(hello, wire.Hello):
                raise TypeError(f"its first frame is a {type(hello).__name__}")
            wire.check_version(hello.version, f"the node at {url}")
        except (TypeError, aiohttp.ClientError, *UNREADABLE) as error:
            await ws.close()
            raise Unreachable(f"{url} does not speak like a rota node: {error}") from None
        except BaseException:
            await ws.close()
            raise
        link = cls(ws, hello, url, on_lost, headers)
        link._reader = asyncio.get_running_loop().create_task(link._read(on_results), name=f"rota link {url}")
        return link

    async def ask(self, request: wire.Request, deadline: float) -> wire.Reply:
        """Send a request (setting its `corr`) and return its answer. Raises `LinkLost`, `TimeoutError` at the deadline
        (the loop's time), or the error that the node answered with."""
        corr = request.corr = next(self._corr)
        answer: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()
        self._asked[corr] = answer
        try:
            async with asyncio.timeout_at(deadline):
                await self.send(request)
                reply = await answer
        finally:
            self._asked.pop(corr, None)
        if isinstance(reply, wire.ErrorFrame):
            raise wire.error_of(reply.refusal)
        return reply

    async def send(self, frame: wire.FromClient) -> None:
        """Send a frame; waits while the node takes none. Raises `LinkLost`."""
        if self.lost:
            raise LinkLost(f"the connection to {self.url} is lost")
        try:
            await self._ws.send_bytes(wire.encode(frame))
        except (OSError, aiohttp.ClientError) as error:
            self.abandon()
            raise LinkLost(f"the connection to {self.url} is lost: {error}") from None

    async def watch(self, job: str, after: str) -> Stream:
        """Have what happens to a job pushed. Raises `LinkLost`, `ProtocolMismatch`."""
        if not self.hello.pushes_events:
            raise ProtocolMismatch(f"the node at {self.url} is too old to push events: upgrade nodes before clients")
        stream = Stream(next(self._corr))
        self._streams[stream.corr] = stream
        try:
            await self.send(wire.WatchRequest(stream.corr, job, after))
        except BaseException:
            self._left(stream)          # it may have been sent all the same
            raise
        return stream

    def leave(self, stream: Stream) -> None:
        """Have no more of it pushed. From any thread, and at any time."""
        with contextlib.suppress(RuntimeError):         # the loop has ended, and with it the connection
            self._loop.call_soon_threadsafe(self._left, stream)

    def _left(self, stream: Stream) -> None:
        if self._streams.pop(stream.corr, None) is not None:
            goodbye = self._loop.create_task(self._unwatch(stream.corr), name="rota unwatch")
            self._goodbyes.add(goodbye)
            goodbye.add_done_callback(self._goodbyes.discard)

    async def _unwatch(self, corr: int) -> None:
        with contextlib.suppress(LinkLost):
            await self.send(wire.Unwatch(corr))

    def abandon(self) -> None:
        """Be of no more use: whoever waits for an answer learns that none will come."""
        self.lost = True
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_exception(LinkLost(f"the connection to {self.url} was lost"))
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(LinkLost(f"the connection to {self.url} was lost"))
        self._on_lost()

    async def close(self) -> None:
        self.abandon()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        await self._ws.close()

    async def _read(self, on_results: OnResults) -> None:
        try:
            async for message in self._ws:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    break
                frame = wire.decode_from_node(message.data)
                if isinstance(frame, wire.ResultPush):
                    on_results(self, frame.results)
                elif isinstance(frame, wire.EventsPush):
                    self._pushed(frame)
                elif not isinstance(frame, wire.Hello):
                    self._answer(frame)
        except UNREADABLE:
            pass                            # a node that talks nonsense is as good as lost
        finally:
            self.abandon()

    def _pushed(self, frame: wire.EventsPush) -> None:
        stream = self._streams.get(frame.corr)
        if stream is not None:              # else its reader has left
            stream.push(frame.page)
            if frame.page.over:
                del self._streams[frame.corr]

    def _answer(self, frame: wire.Reply) -> None:
        if isinstance(frame, wire.ErrorFrame) and (stream := self._streams.pop(frame.corr, None)) is not None:
            stream.fail(wire.error_of(frame.refusal))
            return
        answer = self._asked.get(frame.corr)
        if answer is not None and not answer.done():    # else its asker has given up
            answer.set_result(frame)


async def _handshake(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]
) -> aiohttp.ClientWebSocketResponse:
    try:
        return await session.ws_connect(
            url + wire.PATH,
            headers=headers,
            heartbeat=HEARTBEAT_S,
            max_msg_size=wire.FRAME_BYTES_MAX,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
        )
    except aiohttp.WSServerHandshakeError as error:
        _refuse_redirects(url, error.history)
        if error.status == 401:
            raise Unauthorized(
                f"the node at {url} refused the bearer token: give the cluster's (ROTA_TOKEN_FILE, or token=...)"
            ) from None
        if error.status == 426:
            theirs = error.headers.get(wire.PROTOCOL_HEADER, "?") if error.headers else "?"
            raise ProtocolMismatch(f"the node at {url} speaks protocol {theirs}, this client {wire.PROTOCOL}") from None
        raise Unreachable(f"{url} answered {error.status}") from None
    except (OSError, aiohttp.ClientError, ValueError) as error:
        raise Unreachable(f"{url}: {error or type(error).__name__}") from None


def _refuse_redirects(url: str, history: Sequence[aiohttp.ClientResponse]) -> None:
    """They have been followed by then, but nothing of what came is used: a client talks to whom it was told to."""
    if history:
        raise ConfigError(f"{url} redirects to {history[0].headers.get('Location', '?'):.200}: give that address")
