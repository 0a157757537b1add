"""Frames: whole, in pieces, and garbage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.client.errors import ConfigError
from rota.client.model import Outcome
from rota.worker.channel import start_permits as permits
from rota.worker.channel.channel import (
    FRAME_BYTES_MAX,
    HEADER,
    BadFrame,
    BlockingEnd,
    ChannelClosed,
    LoopEnd,
    Parser,
    pack,
)
from rota.worker.channel.frames import Done, Dropped, FromRunner, Starved
from rota.worker.guard.guardlink import GuardLink

from ..rig import new_permits

FRAMES = [Done([(7, Outcome(3, "ok", b"value"))]), Dropped(), Starved(), Done([(8, Outcome(0, "failed", error="no"))])]
STREAM = b"".join(map(pack, FRAMES))


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_frames_survive_any_cut(cuts: list[int]) -> None:
    parser: Parser[FromRunner] = Parser(FromRunner)
    found: list[FromRunner] = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(STREAM)], strict=True):
        parser.feed(STREAM[start:end], found)
    assert found == FRAMES


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_noticed_or_awaited(at: int, flip: int) -> None:
    """No damage yields a frame that was never sent."""
    damaged = bytearray(STREAM)
    damaged[at] ^= flip
    parser: Parser[FromRunner] = Parser(FromRunner)
    found: list[FromRunner] = []
    with contextlib.suppress(BadFrame):
        parser.feed(bytes(damaged), found)
    assert found == FRAMES[: len(found)] and len(found) < len(FRAMES)


@given(st.binary(min_size=8))
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    parser: Parser[FromRunner] = Parser(FromRunner)
    with contextlib.suppress(BadFrame):
        parser.feed(data, [])


@given(st.binary(min_size=1))
def test_garbage_with_a_right_checksum_never_raises_anything_else(data: bytes) -> None:
    parser: Parser[FromRunner] = Parser(FromRunner)
    with contextlib.suppress(BadFrame):
        parser.feed(HEADER.pack(len(data), crc32(data)) + data, [])


@pytest.mark.parametrize("payload", [b"\xa2\xff\xfe", b"\x91" * 100_000 + b"\x00"], ids=["bad text", "deep"])
def test_what_is_no_text_and_what_is_too_deep_is_a_bad_frame(payload: bytes) -> None:
    parser: Parser[FromRunner] = Parser(FromRunner)
    with pytest.raises(BadFrame):
        parser.feed(HEADER.pack(len(payload), crc32(payload)) + payload, [])


def test_a_length_beyond_the_limit_is_refused_at_once() -> None:
    parser: Parser[FromRunner] = Parser(FromRunner)
    with pytest.raises(BadFrame, match="announced"):
        parser.feed(HEADER.pack(FRAME_BYTES_MAX + 1, 0), [])
    with pytest.raises(ValueError, match="limit"):
        pack(Done([(1, Outcome(0, "ok", bytes(FRAME_BYTES_MAX)))]))


async def test_large_frames_wait_for_a_slow_reader() -> None:
    near, far = socket.socketpair()
    got: list[FromRunner] = []
    lost = asyncio.Event()
    sender = _end(near, [], lost)
    sent = [Done([(number, Outcome(0, "ok", bytes(1_000_000)))]) for number in range(5)]
    for frame in sent:
        sender.send(frame)                  # far more than the socket holds: nothing blocks
    receiver = _end(far, got, lost)
    async with asyncio.timeout(20):
        while len(got) < len(sent):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)
    assert got == sent
    sender.close()
    async with asyncio.timeout(20):
        await lost.wait()
    receiver.close()


async def test_what_a_dead_peer_left_is_read_before_the_end() -> None:
    near, far = socket.socketpair()
    got: list[FromRunner] = []
    lost = asyncio.Event()
    end = _end(near, got, lost)
    far.sendall(STREAM + b"\0\0\0\1")
    far.close()
    end.drain()
    assert got == FRAMES and lost.is_set() and end.closed


def _end(sock: socket.socket, got: list[FromRunner], lost: asyncio.Event) -> LoopEnd[FromRunner]:
    def take(frames: list[FromRunner]) -> float:
        got.extend(frames)
        return 0.0

    return LoopEnd(sock, FromRunner, on_frames=take, on_lost=lambda bad: lost.set())


def test_the_blocking_end() -> None:
    near, far = socket.socketpair()
    with near, far:
        end: BlockingEnd[FromRunner] = BlockingEnd(near, FromRunner)
        far.sendall(STREAM)
        assert end.receive() == FRAMES
        far.close()
        with pytest.raises(ChannelClosed):
            end.receive()
        with pytest.raises(ChannelClosed):
            end.send(Dropped())


def test_permits_are_counted_by_the_kernel() -> None:
    descriptor = new_permits()
    permits.grant(descriptor, 5)
    assert permits.take(descriptor)
    assert permits.left(descriptor) == 4
    assert permits.take_back(descriptor, 3) == 4        # one more than there can be: somebody wrote to it
    assert not permits.take(descriptor)
    assert permits.take_back(descriptor, 3) == 0
    os.close(descriptor)


def test_without_a_guard_there_is_no_node() -> None:
    for environment in ({}, {"ROTA_GUARD_FD": "x"}, {"ROTA_GUARD_FD": "999"}):
        with pytest.raises(ConfigError, match="guard"):
            GuardLink.from_environment(environment)


async def test_while_reading_rests_it_is_looked_for_what_comes_by_another_way() -> None:
    """Once at least after each batch, and as long as there is something."""
    ours, theirs = socket.socketpair()
    happened: list[str] = []
    other_way = ["noted", "noted too"]

    def look() -> float:
        happened.append(other_way.pop(0) if other_way else "nothing")
        return 0.0 if happened[-1] == "nothing" else 0.01

    def on_frames(frames: list[FromRunner]) -> float:
        happened.extend("said" for _ in frames)
        (said if happened.count("said") == 1 else over).set()
        return 0.01

    said, over = asyncio.Event(), asyncio.Event()
    end = LoopEnd(ours, FromRunner, on_frames=on_frames, on_lost=lambda bad: None, look=look)
    with theirs:
        theirs.sendall(pack(Dropped()))
        await said.wait()
        theirs.sendall(pack(Dropped()))
        await over.wait()
        end.close()
    assert happened == ["said", "noted", "noted too", "nothing", "said"]
