"""Reading frames: any cut of the bytes gives the same frames, and what is no HTTP/2 is said to be none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.cluster.ledger.http2 import frames
from rota.cluster.ledger.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    FrameReader,
    PeerError,
    frame,
    settings_frame,
)

GREETING = settings_frame((3, 100))


def read(*parts: bytes) -> list[Frame]:
    reader = FrameReader()
    reader.feed(GREETING)
    return [got for part in parts for got in reader.feed(part)]


FRAMES = st.one_of(
    st.builds(lambda stream, body, end: frame(DATA, end, stream, body),
              st.integers(1, 2**31 - 1), st.binary(max_size=300), st.sampled_from((0, END_STREAM))),
    st.builds(lambda stream, body: frame(HEADERS, END_HEADERS, stream, body),
              st.integers(1, 99), st.binary(max_size=50)),
    st.builds(lambda body: frame(PING, 0, 0, body), st.binary(min_size=8, max_size=8)),
    st.builds(lambda step: frame(WINDOW_UPDATE, 0, 0, frames.u32(step)), st.integers(1, 2**31 - 1)),
    st.builds(lambda body: frame(GOAWAY, 0, 0, body), st.binary(min_size=8, max_size=20)),
    st.just(settings_frame((4, 1), (5, 16_384))),
    st.builds(lambda unknown, body: frame(unknown, 0, 0, body), st.integers(10, 255), st.binary(max_size=9)),
)


@given(st.lists(FRAMES, max_size=8), st.data())
def test_any_cut_gives_the_same_frames(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(*pieces) == read(whole)
    assert len(read(whole)) == sum(part[3] < 10 for part in parts)


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_no_bytes_do_worse_than_a_peer_error(parts: list[bytes]) -> None:
    with contextlib.suppress(PeerError):
        read(*parts)
    with contextlib.suppress(PeerError):
        FrameReader().feed(b"".join(parts))


@given(st.integers(0, 9), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=40))
def test_no_frame_does_worse_than_a_peer_error(kind: int, flags: int, stream: int, payload: bytes) -> None:
    with contextlib.suppress(PeerError):
        for got in read(frame(kind, flags, stream, payload)):
            assert len(got.payload) <= got.size == len(payload)


def test_padding_and_priority_go_and_count() -> None:
    (data,) = read(frame(DATA, PADDED, 1, b"\x03body\0\0\0"))
    assert (data.payload, data.size) == (b"body", 8)
    (headers,) = read(frame(HEADERS, PADDED | HAS_PRIORITY | END_HEADERS, 1, b"\x01\0\0\0\0\x10block\0"))
    assert headers.payload == b"block"


def test_a_block_in_pieces_is_one() -> None:
    (got,) = read(
        frame(HEADERS, END_STREAM, 5, b"a"), frame(CONTINUATION, 0, 5, b"b"), frame(CONTINUATION, END_HEADERS, 5, b"c")
    )
    assert (got.payload, got.stream, bool(got.flags & END_STREAM)) == (b"abc", 5, True)


@pytest.mark.parametrize(("code", "bad"), [
    (frames.FRAME_SIZE_ERROR, b"\x00\x40\x01\x00\x00\x00\x00\x00\x01"),             # a larger frame than we take
    (frames.FRAME_SIZE_ERROR, frame(PING, 0, 0, b"short")),
    (frames.FRAME_SIZE_ERROR, frame(RST_STREAM, 0, 1, b"abc")),
    (frames.FRAME_SIZE_ERROR, frame(WINDOW_UPDATE, 0, 0, b"abc")),
    (frames.FRAME_SIZE_ERROR, frame(PRIORITY, 0, 1, b"abc")),
    (frames.FRAME_SIZE_ERROR, frame(SETTINGS, 0, 0, b"abc")),
    (frames.FRAME_SIZE_ERROR, frame(SETTINGS, ACK, 0, b"abcdef")),
    (frames.FRAME_SIZE_ERROR, frame(GOAWAY, 0, 0, b"abc")),
    (frames.FRAME_SIZE_ERROR, frame(HEADERS, HAS_PRIORITY | END_HEADERS, 1, b"abc")),
    (frames.PROTOCOL_ERROR, frame(PUSH_PROMISE, END_HEADERS, 1, b"abcd")),
    (frames.PROTOCOL_ERROR, frame(DATA, 0, 0, b"a")),
    (frames.PROTOCOL_ERROR, frame(HEADERS, END_HEADERS, 0, b"a")),
    (frames.PROTOCOL_ERROR, frame(RST_STREAM, 0, 0, b"abcd")),
    (frames.PROTOCOL_ERROR, frame(SETTINGS, 0, 1, b"")),
    (frames.PROTOCOL_ERROR, frame(PING, 0, 1, b"12345678")),
    (frames.PROTOCOL_ERROR, frame(GOAWAY, 0, 1, b"12345678")),
    (frames.PROTOCOL_ERROR, frame(DATA, PADDED, 1, b"\x05abc")),
    (frames.PROTOCOL_ERROR, frame(DATA, PADDED, 1, b"")),
    (frames.PROTOCOL_ERROR, frame(CONTINUATION, END_HEADERS, 1, b"")),
    (frames.PROTOCOL_ERROR, frame(HEADERS, 0, 1, b"a") + frame(DATA, 0, 1, b"a")),
    (frames.PROTOCOL_ERROR, frame(HEADERS, 0, 1, b"a") + frame(CONTINUATION, END_HEADERS, 3, b"a")),
    (frames.ENHANCE_YOUR_CALM, frame(HEADERS, 0, 1, b"a") + frame(CONTINUATION, 0, 1, b"")),
    (frames.ENHANCE_YOUR_CALM, frame(HEADERS, 0, 1, b"a") + 5 * frame(CONTINUATION, 0, 1, bytes(16_000))),
])
def test_what_a_peer_must_not_say(code: int, bad: bytes) -> None:
    with pytest.raises(PeerError) as refused:
        read(bad)
    assert refused.value.code == code


def test_it_begins_with_its_settings() -> None:
    with pytest.raises(PeerError, match="no HTTP/2"):
        FrameReader().feed(frame(PING, 0, 0, b"12345678"))
    with pytest.raises(PeerError):
        FrameReader().feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
