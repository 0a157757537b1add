"""Header blocks, held against the library's own encoder and decoder."""

from __future__ import annotations

import contextlib

import hpack
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from rota.cluster.ledger.http2.frames import PeerError
from rota.cluster.ledger.http2.headers import HeaderReader, request_block, status_in, time_limit


def test_a_request_reads_as_grpc_wants_it() -> None:
    block = request_block("etcd:2379", "/etcdserverpb.KV/Txn", tls=True, metadata=[("token", "t" * 700)])
    assert hpack.Decoder().decode(block + time_limit(2.5)) == [
        (":method", "POST"), (":scheme", "https"), (":path", "/etcdserverpb.KV/Txn"), (":authority", "etcd:2379"),
        ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "rota"), ("token", "t" * 700),
        ("grpc-timeout", "2500m"),
    ]
    assert hpack.Decoder().decode(request_block("x", "/", tls=False))[1] == (":scheme", "http")


@given(st.floats(0, 1e9))
def test_a_time_limit_is_one_that_grpc_takes(timeout_s: float) -> None:
    ((_, value),) = hpack.Decoder().decode(time_limit(timeout_s))
    assert value[-1] == "m" and 1 <= int(value[:-1]) <= 99_999_999


NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@given(st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=6), max_size=5))
def test_what_an_encoder_without_memory_writes_is_read(lists: list[list[tuple[str, str]]]) -> None:
    encoder, reader = hpack.Encoder(), HeaderReader()
    encoder.header_table_size = 0
    for fields in [*lists, *lists]:
        block = encoder.encode(fields)
        if block:
            assert reader.read(block) == dict(fields)


@given(st.binary(max_size=60))
def test_no_block_does_worse_than_a_peer_error(block: bytes) -> None:
    with contextlib.suppress(PeerError):
        HeaderReader().read(block)


def test_a_peer_that_remembers_is_refused() -> None:
    with pytest.raises(PeerError):
        HeaderReader().read(b"\x3f\xe1\x1f\x88")        # a table of 4096 bytes


def test_blocks_that_are_known_are_few() -> None:
    reader = HeaderReader()
    reader.read(b"\x20\x88")
    for number in range(1000):
        reader.read(b"\x00\x01n\x04" + b"%04d" % number)
    assert len(reader._known) <= 256


@pytest.mark.parametrize(("fields", "code", "words"), [
    ({"grpc-status": "0"}, StatusCode.OK, ""),
    ({":status": "200", "grpc-status": "8", "grpc-message": "a%20b%25"}, StatusCode.RESOURCE_EXHAUSTED, "a b%"),
    ({"grpc-status": "99"}, StatusCode.UNKNOWN, ""),
    ({"grpc-status": "-1"}, StatusCode.UNKNOWN, ""),
    ({"grpc-status": "²"}, StatusCode.UNKNOWN, ""),
    ({":status": "503"}, StatusCode.UNAVAILABLE, "no answer of gRPC (HTTP status 503)"),
    ({":status": "404"}, StatusCode.UNIMPLEMENTED, "no answer of gRPC (HTTP status 404)"),
    ({}, StatusCode.UNKNOWN, "no answer of gRPC (HTTP status 200)"),
])
def test_how_a_call_ended(fields: dict[str, str], code: StatusCode, words: str) -> None:
    assert status_in(fields) == (code, words)
