"""A member of etcd: connecting, failing to, and going on to the next connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aetcd import rpc
from grpc import StatusCode

from rota.client import errors
from rota.cluster.ledger.channels import EtcdConfig
from rota.cluster.ledger.http2 import member as module
from rota.cluster.ledger.http2.frames import GOAWAY, frame, u32
from rota.cluster.ledger.http2.member import Http2Member
from rota.cluster.ledger.members import RpcFailed

from .peer import Peer, listening

ANSWER = rpc.StatusResponse(version="3.5.16").SerializeToString()


def of(target: str) -> Http2Member:
    return Http2Member(f"http://{target}", EtcdConfig((target,)))


async def ask(member: Http2Member) -> str:
    return str((await member.call("status", rpc.StatusRequest(), 5.0, (("hasleader", "true"),))).version)


async def serve(peer: Peer) -> None:
    await peer.greet()
    while True:
        stream, _ = await peer.request()
        peer.say(peer.answer(stream, ANSWER))


async def until(it_is: Callable[[], bool]) -> None:
    while not it_is():      # noqa: ASYNC110 -- nothing tells when
        await asyncio.sleep(0.001)


async def unused_target() -> str:
    async with listening(serve) as target:
        return target


async def test_a_farewell_leads_to_another_connection_and_the_old_one_ends_its_calls() -> None:
    go = asyncio.Event()

    async def leaving(peer: Peer) -> None:
        await peer.greet()
        stream, _ = await peer.request()
        peer.say(frame(GOAWAY, 0, 0, u32(stream) + u32(0)))
        await go.wait()
        peer.say(peer.answer(stream, ANSWER))
        await peer.hangs_up()

    async with listening(leaving, serve) as target:
        member = of(target)
        first = asyncio.ensure_future(ask(member))
        await until(lambda: member._connection is not None and not member._connection.usable)
        assert await ask(member) == "3.5.16" and not first.done()
        go.set()
        assert await first == "3.5.16"
        await member.close()


async def test_a_port_that_nobody_listens_on() -> None:
    target = await unused_target()
    member = of(target)
    for _ in range(2):
        assert await member.ready(5.0)
        with pytest.raises(RpcFailed, match="failed to connect") as failed:
            await ask(member)
        assert not failed.value.sent
    await member.close()


async def test_it_connects_again_when_there_is_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_MIN_S", 0.01)

    async def hang_up(peer: Peer) -> None:
        peer.close()

    async with listening(hang_up, serve) as target:
        member = of(target)
        with pytest.raises(RpcFailed) as failed:
            await ask(member)
        assert not failed.value.sent
        await asyncio.sleep(0.02)
        assert await ask(member) == "3.5.16"
        await member.close()


async def test_who_accepts_and_says_nothing_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT_S", 0.3)

    async def silent(peer: Peer) -> None:
        await peer.hangs_up()

    async with listening(silent) as target:
        member = of(target)
        assert not await member.ready(0.05)
        with pytest.raises(RpcFailed, match="no answer within") as failed:
            await ask(member)
        assert not failed.value.sent
        await member.close()


async def test_who_speaks_another_protocol_is_said_to() -> None:
    async def web(peer: Peer) -> None:
        peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.hangs_up()

    async with listening(web) as target:
        member = of(target)
        with pytest.raises(RpcFailed, match="no HTTP/2") as failed:
            await ask(member)
        assert not failed.value.sent
        await member.close()


async def test_a_reset_ends_what_is_under_way_and_the_next_call_connects() -> None:
    async def mute(peer: Peer) -> None:
        await peer.greet()
        await peer.hangs_up()

    async with listening(mute, serve) as target:
        member = of(target)
        call = asyncio.ensure_future(ask(member))
        await until(lambda: member._connection is not None and bool(member._connection._calls))
        await member.reset()
        with pytest.raises(RpcFailed) as failed:
            await call
        assert failed.value.sent and failed.value.code is StatusCode.UNKNOWN
        assert await ask(member) == "3.5.16"
        await member.close()
        await member.close()
        with pytest.raises(errors.LedgerUnavailable, match="closed"):
            await ask(member)


@pytest.mark.parametrize("target", ["127.0.0.1:99999", "a..b:1"])
async def test_an_address_that_is_none(target: str) -> None:
    member = of(target)
    with pytest.raises(RpcFailed, match="failed to connect"):
        await ask(member)
    await member.close()
