"""The blocking WebSocket of lone enqueues, against a scripted peer: strict in what it takes."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rota.client.model import Receipt
from rota.client.transports.direct import MAGIC, Address, DirectLink, Lost
from rota.client.wire import frames as wire

from ...cluster.port.test_tls import certificate

Script = Callable[[socket.socket, bytes], None]
HELLO = wire.encode(wire.Hello(wire.PROTOCOL, "test", "n1", []))


def frame(data: bytes, kind: int = 2, *, first: int = 0x80) -> bytes:
    size = len(data)
    length = struct.pack("!B", size) if size < 126 else struct.pack("!BH", 126, size)
    return bytes([first | kind]) + length + data


def reply(corr: int) -> bytes:
    return wire.encode(wire.EnqueueReply(corr, [Receipt("k3f9q2m7xa5t-00000001", 7, 7)]))


def accept_of(head: bytes) -> bytes:
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
    return base64.b64encode(hashlib.sha1(key + MAGIC).digest())


def upgraded(head: bytes) -> bytes:
    return b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept_of(
        head) + b"\r\n\r\n"


@contextmanager
def peer(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Address]:
    """Takes one connection, and its head; the rest is the script's."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        if tls is not None:
            try:
                connection = tls.wrap_socket(connection, server_side=True)
            except OSError:
                return              # who does not trust the certificate says so
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            script(connection, head)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        yield Address(url, {"Rota-Protocol": "1"}, None)
        thread.join(5)


def opened(address: Address, answer_s: float = 5.0) -> DirectLink:
    return DirectLink.open(address, "test", connect_s=5.0, answer_s=answer_s)


def asked(address: Address, answer_s: float = 5.0) -> wire.EnqueueReply | wire.ErrorFrame:
    link = opened(address, answer_s)
    try:
        return link.ask(wire.EnqueueRequest(0, 0, []))
    finally:
        link.close()


def answers(*data: bytes) -> Script:
    """Shake hands, take one request, send this."""
    def script(connection: socket.socket, head: bytes) -> None:
        connection.sendall(upgraded(head) + frame(HELLO))
        connection.recv(4096)
        for part in data:
            connection.sendall(part)

    return script


def test_a_request_and_its_answer() -> None:
    with peer(answers(frame(reply(1)))) as address:
        found = asked(address)
    assert isinstance(found, wire.EnqueueReply) and found.receipts[0] is not None
    assert found.receipts[0].revision == 7


def test_bytes_may_come_one_by_one_and_pings_between() -> None:
    whole = frame(b"are you there", 9) + frame(b"", 10) + frame(reply(1))
    with peer(answers(*(whole[at : at + 1] for at in range(len(whole))))) as address:
        assert isinstance(asked(address), wire.EnqueueReply)


def test_what_it_sends_is_masked_and_whole() -> None:
    got: list[bytes] = []

    def script(connection: socket.socket, head: bytes) -> None:
        connection.sendall(upgraded(head) + frame(HELLO))
        got.append(connection.recv(1 << 20))
        connection.sendall(frame(reply(1)))

    with peer(script) as address:
        asked(address)
    first, second = got[0][:2]
    assert (first, second & 0x80) == (0x82, 0x80)
    mask, masked = got[0][2:6], got[0][6:]
    data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
    assert isinstance(wire.decode_from_client(data), wire.EnqueueRequest)


@pytest.mark.parametrize("head", [
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", b"HTTP/1.1 401 Unauthorized\r\n\r\n",
    b"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: bm8=\r\n\r\n", b"\r\n\r\n", b"x" * 40_000, b"",
])
def test_a_handshake_that_is_none(head: bytes) -> None:
    with peer(lambda connection, _: connection.sendall(head)) as address, pytest.raises((Lost, OSError)):
        opened(address)


@pytest.mark.parametrize("hello", [
    frame(wire.encode(wire.Hello(wire.PROTOCOL, "other", "n1", []))),
    frame(wire.encode(wire.Hello(wire.PROTOCOL + 1, "test", "n1", []))), frame(reply(1)), frame(b"", 8), b"",
])
def test_who_is_no_node_of_this_cluster(hello: bytes) -> None:
    with peer(lambda connection, head: connection.sendall(upgraded(head) + hello)) as address, pytest.raises(Lost):
        opened(address)


@pytest.mark.parametrize("data", [
    frame(reply(2)), frame(HELLO), frame(b"nonsense"), frame(b"text", 1), frame(reply(1), first=0),
    frame(reply(1), first=0xC0), b"\x82\x80", b"\x82\x7f" + b"\xff" * 8, b"\x89\x7e\xff\xff", frame(b"", 8), b"\x82",
    b"",
], ids=["other request", "hello", "nonsense", "text", "fragment", "reserved", "masked", "huge", "long ping", "close",
        "cut off", "end"])  # fmt: skip
def test_whatever_else_comes_is_the_end_of_it(data: bytes) -> None:
    with peer(answers(data)) as address, pytest.raises((Lost, ConnectionError)):
        asked(address)


def test_a_peer_that_says_nothing_is_left() -> None:
    done = threading.Event()

    def script(connection: socket.socket, head: bytes) -> None:
        connection.sendall(upgraded(head) + frame(HELLO))
        done.wait(5)

    with peer(script) as address:
        with pytest.raises(TimeoutError):
            asked(address, 0.05)
        done.set()


def test_reading_is_total() -> None:
    """Whatever bytes come: a frame, or `Lost`."""
    rng = random.Random(14)
    for _ in range(400):
        data = bytearray(frame(reply(1)) if rng.random() < 0.5 else rng.randbytes(rng.randrange(40)))
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        ours, theirs = socket.socketpair()
        link = DirectLink(ours)
        theirs.sendall(data)
        theirs.close()
        try:
            while True:
                link._frame()
        except (Lost, OSError):
            pass
        finally:
            link.close()


def test_over_tls(tmp_path: Path) -> None:
    """Answers longer than a TLS record, too; what the handshake leaves behind is no news; who is not trusted is not
    asked."""
    cert, _ = certificate(tmp_path, "localhost")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "new.pem", tmp_path / "new.key")
    trusting = ssl.create_default_context(cadata=cert)
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT     # (from 3.13 on by default; the certificate is a plain one)
    long = wire.encode(wire.EnqueueReply(2, [Receipt("k3f9q2m7xa5t-00000001", 7, 7)] * 1_000))
    assert len(long) > 16 * 1024

    def script(connection: socket.socket, head: bytes) -> None:
        connection.sendall(upgraded(head) + frame(HELLO))
        for answer in (reply(1), long):
            connection.recv(4096)
            connection.sendall(frame(answer))
        connection.recv(4096)
        connection.sendall(frame(b"", 8))

    with peer(script, serving) as address:
        link = opened(address._replace(url=address.url.replace("127.0.0.1", "localhost"), tls=trusting))
        assert not link.has_news()
        for count in (1, 1_000):
            answer = link.ask(wire.EnqueueRequest(0, 0, []))
            assert isinstance(answer, wire.EnqueueReply) and len(answer.receipts) == count
            assert not link.has_news()
        with pytest.raises(Lost):
            link.ask(wire.EnqueueRequest(0, 0, []))
        link.close()
    for context in (None, ssl.create_default_context()):
        with peer(script, serving) as address, pytest.raises(ssl.SSLCertVerificationError):
            opened(address._replace(tls=context))
