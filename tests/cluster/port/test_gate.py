"""Strangers at the port: however many, and whatever they send or do not send, the owner gets in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest

from rota.cluster.port import gate

from ...client.fake_service import KEYRING, TOKEN, FakeService, until
from .test_http import BEARER, HttpPort

ROOT = Path(__file__).parents[3]
HEAD = b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\n"


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch, **settings: float) -> AsyncIterator[HttpPort]:
    for name, value in settings.items():
        monkeypatch.setattr(gate, name, value)
    async with HttpPort(FakeService(), token=TOKEN, keyring=KEYRING) as port:
        yield port


@asynccontextmanager
async def stranger(port: HttpPort, said: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port.url.rpartition(":")[2]))
    writer.write(said)
    try:
        yield reader
    finally:
        writer.close()


async def owner_gets_in(port: HttpPort) -> None:
    async with aiohttp.ClientSession(headers=BEARER) as session, session.get(f"{port.url}/v1/nodes") as answer:
        assert answer.status == 200


async def is_closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000):
                pass


async def test_silent_strangers_make_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(monkeypatch, STRANGERS_MAX=8) as port, contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(stranger(port, HEAD)) for _ in range(60)]
        await is_closed(readers[0])
        await owner_gets_in(port)
        assert len(port._gate._strangers) <= 8
    lines = [record.getMessage() for record in caplog.records if "made room" in record.getMessage()]
    assert len(lines) == 1


@pytest.mark.parametrize("said", [b"", b"G", HEAD, HEAD + b"X: y\r\n"])
async def test_who_does_not_come_to_the_point_is_closed(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    async with opened(monkeypatch, STRANGER_S=0.2, LOOK_S=0.05) as port, stranger(port, said) as reader:
        await is_closed(reader)


async def test_a_byte_now_and_then_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch, STRANGER_S=0.3, LOOK_S=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port.url.rpartition(":")[2]))
        closed = asyncio.ensure_future(is_closed(reader))
        with contextlib.suppress(ConnectionError):
            while not closed.done():
                writer.write(b"G")
                await asyncio.sleep(0.02)
        await closed
        writer.close()


async def test_a_head_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as port, stranger(port, HEAD + b"X-Y: z\r\n" * 20_000) as reader:
        await is_closed(reader)


async def test_who_has_shown_the_token_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch, STRANGER_S=0.2, LOOK_S=0.05, STRANGERS_MAX=2) as port:
        async with aiohttp.ClientSession(headers=BEARER) as session, session.ws_connect(port.url + "/v1/ws") as socket:
            await socket.receive_bytes()
            async with contextlib.AsyncExitStack() as stack:
                readers = [await stack.enter_async_context(stranger(port)) for _ in range(9)]
                for reader in readers:
                    await is_closed(reader)
            assert not socket.closed and len(port._gate._trusted) == 1
        await until(lambda: not port._gate._trusted)


async def test_a_first_request_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        opened(monkeypatch) as port, aiohttp.ClientSession(headers=BEARER) as session,
        session.post(port.url + "/v1/jobs", data=b" " * 1_000_000 + b"{}") as answer,
    ):
        assert answer.status == 400


async def test_what_is_no_http_is_one_line_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with opened(monkeypatch) as port:
            for _ in range(20):
                async with stranger(port, b"GET / HTTP/1.1\r\nno \x1b[31m header\r\n\r\n") as reader:
                    await is_closed(reader)
    assert [record.getMessage() for record in caplog.records] == ["the port: a request is no HTTP"]
    assert not any(record.exc_info for record in caplog.records)


SERVER = """
import asyncio, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))
from tests.client.fake_service import KEYRING, TOKEN, FakeService
from rota.cluster.port.http import HttpPort
async def main():
    async with HttpPort(FakeService(), token=TOKEN, keyring=KEYRING) as port:
        print(port.url, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@contextmanager
def server() -> Iterator[str]:
    """With few descriptors."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


async def test_more_connections_than_descriptors() -> None:
    with server() as url:
        port = int(url.rpartition(":")[2])
        writers = []
        for _ in range(300):
            with contextlib.suppress(ConnectionError):
                writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
                writers[-1].write(HEAD)
        async with (
            asyncio.timeout(20), aiohttp.ClientSession(headers=BEARER) as session,
            session.get(f"{url}/v1/nodes") as answer,
        ):
            assert answer.status == 200
        for writer in writers:
            writer.close()
