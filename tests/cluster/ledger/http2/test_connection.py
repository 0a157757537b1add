"""Calls and streams on one connection, whatever the peer does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from grpc import StatusCode

from rota.cluster.ledger.http2 import calls, connection, pings
from rota.cluster.ledger.http2.frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    PADDED,
    PING,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    settings_frame,
    to_u32,
    u32,
)
from rota.cluster.ledger.http2.headers import request_block
from rota.cluster.ledger.members import RpcFailed

from .peer import EMPTY_TABLE, OK_HEADERS, OK_TRAILERS, Peer, connected, message, refusal

BLOCK = request_block("etcd", "/etcdserverpb.KV/Txn", tls=False)
S = 5.0


async def forever(peer: Peer) -> None:
    await peer.hangs_up()


async def echo(peer: Peer) -> None:
    while True:
        stream, body = await peer.request()
        peer.say(peer.answer(stream, body))


async def failure(call: Awaitable[object]) -> RpcFailed:
    with pytest.raises(RpcFailed) as failed:
        await call
    return failed.value


async def test_many_calls_at_once() -> None:
    async with connected(echo) as here:
        answers = await asyncio.gather(*(here.unary(BLOCK, b"%d" % number, S) for number in range(200)))
    assert answers == [b"%d" % number for number in range(200)]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_answers_in_pieces(size: int) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(3):
            stream, body = await peer.request()
            await peer.say_slowly(peer.answer(stream, body * 20), size)
        await forever(peer)

    async with connected(script) as here:
        for body in (b"one", b"", b"three"):
            assert await here.unary(BLOCK, body, S) == body * 20


async def test_headers_in_all_their_shapes() -> None:
    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.say(
            frame(HEADERS, PADDED, stream, b"\x02" + EMPTY_TABLE + OK_HEADERS[:3] + b"\0\0"),
            frame(CONTINUATION, 0, stream, OK_HEADERS[3:9]), frame(CONTINUATION, END_HEADERS, stream, OK_HEADERS[9:]),
            frame(DATA, PADDED, stream, b"\x04" + message(b"yes")[:6] + bytes(4)),
            frame(DATA, 0, stream, message(b"yes")[6:]), frame(DATA, 0, stream),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, OK_TRAILERS),
        )
        await forever(peer)

    async with connected(script) as here:
        assert await here.unary(BLOCK, b"", S) == b"yes"


async def test_an_error_of_the_server() -> None:
    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.say(peer.headers(stream, refusal(8, "etcdserver: mvcc: database space exceeded"), END_STREAM))
        stream, _ = await peer.request()
        peer.say(peer.headers(stream, b"\x08\x03503"))      # :status 503, and a page of HTML would follow
        assert (await peer.next(RST_STREAM)).stream == stream
        stream, _ = await peer.request()
        peer.say(peer.headers(stream), frame(DATA, END_STREAM, stream, message(b"no trailers")))
        await forever(peer)

    async with connected(script) as here:
        failed = await failure(here.unary(BLOCK, b"", S))
        assert (failed.code, failed.details, failed.sent) == (
            StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", True
        )
        assert (await failure(here.unary(BLOCK, b"", S))).code is StatusCode.UNAVAILABLE
        assert (await failure(here.unary(BLOCK, b"", S))).code is StatusCode.UNKNOWN
        assert here.usable


@pytest.mark.parametrize("body", [
    b"", b"\0\0\0\0", message(b"a") + message(b"b"), message(b"abc")[:-1], b"\1\0\0\0\1a",
])
async def test_an_answer_that_is_no_message(body: bytes) -> None:
    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.say(peer.headers(stream), frame(DATA, 0, stream, body), peer.headers(stream, OK_TRAILERS, END_STREAM))
        await forever(peer)

    async with connected(script) as here:
        assert (await failure(here.unary(BLOCK, b"", S))).code is StatusCode.INTERNAL


async def test_a_request_larger_than_the_windows_waits_for_them() -> None:
    big, small = bytes(range(256)) * 1000, b"small"

    async def script(peer: Peer) -> None:
        bodies: dict[int, bytes] = {}
        ended: set[int] = set()
        while len(ended) < 2:
            got = await peer.next(DATA)
            assert got.size <= 1000             # the window of a stream, as the peer has set it
            bodies[got.stream] = bodies.get(got.stream, b"") + got.payload
            if got.flags & END_STREAM:
                ended.add(got.stream)
            else:
                peer.say(*(frame(WINDOW_UPDATE, 0, where, u32(got.size)) for where in (0, got.stream)))
        first, second = sorted(bodies)
        assert bodies[first] == message(big) and bodies[second] == message(small)
        peer.say(peer.answer(first, b"1"), peer.answer(second, b"2"))
        await forever(peer)

    async with connected(script, (INITIAL_WINDOW_SIZE, 1000)) as here:
        assert await asyncio.gather(here.unary(BLOCK, big, S), here.unary(BLOCK, small, S)) == [b"1", b"2"]


async def test_a_window_that_is_taken_back_may_be_negative() -> None:
    async def script(peer: Peer) -> None:
        stream, got = 1, b""
        while len(got) < 1000:
            got += (await peer.next(DATA)).payload
        peer.say(settings_frame((INITIAL_WINDOW_SIZE, 10)))     # 990 more than it may have sent
        await peer.next(SETTINGS)
        peer.say(frame(WINDOW_UPDATE, 0, stream, u32(990)), frame(PING, 0, 0, b"12345678"))
        await peer.next(PING)                                    # nothing came: its window is 0 now
        assert not [left for left in peer._got if left.kind == DATA]
        peer.say(frame(WINDOW_UPDATE, 0, stream, u32(5000)))
        while len(got) < 2005:
            got += (await peer.next(DATA)).payload
        peer.say(peer.answer(stream, got[5:8]))
        await forever(peer)

    async with connected(script, (INITIAL_WINDOW_SIZE, 1000)) as here:
        assert await here.unary(BLOCK, b"abc" + bytes(1997), S) == b"abc"


async def within_windows(peer: Peer, stream: int, body: bytes) -> None:
    """Send data as far as we are let."""
    window, at = calls.WINDOW, 0
    while at < len(body):
        size = min(16_384, window, len(body) - at)
        if not size:
            got = await peer.next(WINDOW_UPDATE)
            window += to_u32(got.payload) if got.stream == stream else 0
            continue
        peer.say(frame(DATA, 0, stream, body[at : at + size]))
        await asyncio.sleep(0)
        at, window = at + size, window - size


async def test_an_answer_larger_than_our_window() -> None:
    body = bytes(3 * calls.WINDOW)

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.say(peer.headers(stream))
        await within_windows(peer, stream, message(body))
        peer.say(peer.headers(stream, OK_TRAILERS, END_STREAM))
        await forever(peer)

    async with connected(script) as here:
        assert await here.unary(BLOCK, b"", 20) == body


@pytest.mark.parametrize("sizes", [
    [calls.WINDOW * 2], [calls.WINDOW // 8, calls.WINDOW * 2, 1], [10, 0, 1_000_000, calls.WINDOW, calls.WINDOW + 1],
])
async def test_messages_of_a_stream_whatever_their_size(sizes: list[int]) -> None:
    async def script(peer: Peer) -> None:
        stream = (await peer.next(HEADERS)).stream
        peer.say(peer.headers(stream))
        await within_windows(peer, stream, b"".join(message(bytes(size)) for size in sizes))
        peer.say(peer.headers(stream, OK_TRAILERS, END_STREAM))
        await forever(peer)

    async with connected(script) as here:
        watch = here.stream(BLOCK)
        assert [len(await watch.read()) for _ in sizes] == sizes
        assert (await failure(watch.read())).code is StatusCode.OK
        assert (await failure(watch.read())).code is StatusCode.OK


async def test_a_stream_that_nobody_reads_is_kept_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "WINDOW", 100_000)
    monkeypatch.setattr(connection, "WINDOW", 100_000)

    async def script(peer: Peer) -> None:
        stream = (await peer.next(HEADERS)).stream
        peer.say(peer.headers(stream))
        await within_windows(peer, stream, 50 * message(bytes(10_000)))
        await forever(peer)

    async with connected(script) as here:
        watch = here.stream(BLOCK)
        for _ in range(50):
            await asyncio.sleep(0.005)
            assert len(watch._messages.whole) <= 10
            await watch.read()


async def test_both_directions_of_a_stream() -> None:
    async def script(peer: Peer) -> None:
        stream = (await peer.next(HEADERS)).stream
        peer.say(peer.headers(stream))
        for _ in range(3):
            got = await peer.next(DATA)
            assert not got.flags & END_STREAM
            peer.say(frame(DATA, 0, stream, got.payload + got.payload))
        assert to_u32((await peer.next(RST_STREAM)).payload) == CANCEL
        await forever(peer)

    async with connected(script) as here:
        watch = here.stream(BLOCK)
        for body in (b"a", b"b", b"c"):
            watch.write(body)
            assert [await watch.read(), await watch.read()] == [body, body]
        watch.cancel()
        watch.cancel()
        with pytest.raises(RpcFailed):
            watch.write(b"d")
        assert (await failure(watch.read())).code is StatusCode.CANCELLED


async def test_no_more_streams_than_the_peer_takes() -> None:
    async def script(peer: Peer) -> None:
        for _ in range(5):
            await peer.next(HEADERS)
            stream, body = await peer.request()
            peer.say(frame(PING, 0, 0, b"12345678"))
            await peer.next(PING)
            assert not [left for left in peer._got if left.kind == HEADERS]
            peer.say(peer.answer(stream, body))
        await forever(peer)

    async with connected(script, (MAX_CONCURRENT_STREAMS, 1)) as here:
        await asyncio.sleep(0.01)
        assert await asyncio.gather(*(here.unary(BLOCK, b"%d" % n, S) for n in range(4))) == [b"0", b"1", b"2", b"3"]
        slow = asyncio.ensure_future(here.unary(BLOCK, b"", S))
        await asyncio.sleep(0)
        gone = asyncio.ensure_future(here.unary(BLOCK, b"", S))
        await asyncio.sleep(0)
        gone.cancel()
        await slow
        await asyncio.gather(gone, return_exceptions=True)


async def test_what_waited_for_a_stream_past_its_time_was_not_sent() -> None:
    async with connected(forever, (MAX_CONCURRENT_STREAMS, 1)) as here:
        sent = asyncio.ensure_future(failure(here.unary(BLOCK, b"", 0.2)))
        await asyncio.sleep(0)
        unsent = await failure(here.unary(BLOCK, b"", 0.1))
        assert (unsent.code, unsent.sent) == (StatusCode.DEADLINE_EXCEEDED, False)
        assert ((await sent).code, (await sent).sent) == (StatusCode.DEADLINE_EXCEEDED, True)
        assert here.usable


async def test_a_farewell_lets_what_was_taken_end() -> None:
    async def script(peer: Peer) -> None:
        taken, _ = await peer.request()
        await peer.request()
        peer.say(frame(GOAWAY, 0, 0, u32(taken) + u32(0) + b"restarting"))
        await asyncio.sleep(0.02)
        peer.say(peer.answer(taken, b"done"))
        await peer.hangs_up()

    async with connected(script) as here:
        taken = asyncio.ensure_future(here.unary(BLOCK, b"", S))
        await asyncio.sleep(0)
        late = await failure(here.unary(BLOCK, b"", S))
        assert (late.code, late.sent) == (StatusCode.UNAVAILABLE, False) and "restarting" in late.details
        assert not here.usable
        assert not (await failure(here.unary(BLOCK, b"", S))).sent
        with pytest.raises(RpcFailed):
            here.stream(BLOCK)
        assert await taken == b"done"
        assert here.lost is not None        # nothing is left on it


@pytest.mark.parametrize(("code", "sent"), [(REFUSED_STREAM, False), (CANCEL, True), (2, True)])
async def test_a_call_that_the_peer_resets(code: int, sent: bool) -> None:
    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.say(frame(RST_STREAM, 0, stream, u32(code)), peer.headers(stream), frame(DATA, 0, stream, b"late"))
        await echo(peer)

    async with connected(script) as here:
        assert (await failure(here.unary(BLOCK, b"", S))).sent is sent
        assert await here.unary(BLOCK, b"next", S) == b"next"


async def test_a_call_that_is_cancelled_or_late_is_reset() -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            stream, _ = await peer.request()
            got = await peer.next(RST_STREAM)
            assert (got.stream, to_u32(got.payload)) == (stream, CANCEL)
            peer.say(peer.answer(stream, b"too late"))
        await echo(peer)

    async with connected(script) as here:
        task = asyncio.ensure_future(here.unary(BLOCK, b"", S))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await failure(here.unary(BLOCK, b"", 0.05))).code is StatusCode.DEADLINE_EXCEEDED
        assert await here.unary(BLOCK, b"next", S) == b"next"


async def test_pings_are_answered_that_of_the_bandwidth_once() -> None:
    async def script(peer: Peer) -> None:
        stream, body = await peer.request()
        peer.say(*(frame(PING, 0, 0, payload) for payload in 3 * [pings.BANDWIDTH_PING]))
        peer.say(frame(PING, 0, 0, b"at once!"))
        first, second = await peer.next(PING), await peer.next(PING)
        assert (first.payload, second.payload) == (b"at once!", pings.BANDWIDTH_PING)
        assert first.flags & second.flags & ACK
        peer.say(peer.answer(stream, body))
        await forever(peer)

    async with connected(script) as here:
        assert await here.unary(BLOCK, b"a", S) == b"a"


async def test_a_peer_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pings, "KEEPALIVE_S", 0.1)
    monkeypatch.setattr(pings, "KEEPALIVE_TIMEOUT_S", 0.1)

    async def script(peer: Peer) -> None:
        await peer.request()
        for _ in range(3):
            got = await peer.next(PING)
            peer.say(frame(PING, ACK, 0, got.payload))
        await forever(peer)         # answers no more

    async with connected(script) as here:
        failed = await failure(here.unary(BLOCK, b"", S))
        assert failed.code is StatusCode.UNAVAILABLE and failed.sent and "ping" in failed.details
        assert not here.usable


async def test_the_peer_hangs_up() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.close()

    async with connected(script) as here:
        watch = here.stream(BLOCK)
        failed = await failure(here.unary(BLOCK, b"", S))
        assert failed.code is StatusCode.UNAVAILABLE and failed.sent
        assert (await failure(watch.read())).code is StatusCode.UNAVAILABLE


@pytest.mark.parametrize("bad", [
    lambda peer, stream: frame(DATA, 0, stream + 2, b"of a stream that was never opened"),
    lambda peer, stream: peer.headers(2),
    lambda peer, stream: frame(WINDOW_UPDATE, 0, 0, u32(0)),
    lambda peer, stream: frame(WINDOW_UPDATE, 0, stream, u32(2**31 - 1)),
    lambda peer, stream: settings_frame((INITIAL_WINDOW_SIZE, 2**31)),
    lambda peer, stream: settings_frame((5, 100)),
    lambda peer, stream: settings_frame((2, 1)),
    lambda peer, stream: frame(HEADERS, END_HEADERS, stream, b"\xff\xff\xff"),
    lambda peer, stream: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    lambda peer, stream: peer.headers(stream) + 600 * frame(DATA, 0, stream, bytes(16_384)),    # past every window
], ids=range(10))
async def test_a_peer_that_breaks_the_protocol_is_left(
    bad: Callable[[Peer, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls.Receiving, "taken", lambda self, size: None)      # (for the last one: grants nothing)

    async def script(peer: Peer) -> None:
        stream, _ = await peer.request()
        peer.say(bad(peer, stream))
        await peer.next(GOAWAY)
        await peer.hangs_up()

    async with connected(script) as here:
        failed = await failure(here.unary(BLOCK, b"", S))
        assert failed.sent and "broke HTTP/2" in failed.details
        assert not here.usable
