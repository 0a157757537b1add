"""A lease: joining, keeping it, and knowing when nothing may be done under it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rota.client.errors import LedgerUnavailable
from rota.cluster.events.records import JoinFailed, KeepaliveFailed, KeepaliveResumed
from rota.cluster.node.membership.membership import START_FRACTION, IdentityLost, Membership
from rota.cluster.state.records import Member

from ..bench import KEYS, Bench, a_moment, play

TTL_S = 9
MEMBER = Member("here", ["*"], {}, {}, "3.11", "0", 0.0)


class Lease:
    """A membership, and what it told; as to the store's reach, it is as this says."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.told: list[str] = []
        self.deadlines: list[float] = []
        self.shut_out = False
        self.away = False
        self.membership = Membership(bench.node, self, self, name="n", ttl_s=TTL_S)  # type: ignore[arg-type]

    def on_renewed(self, lease: int, deadline: float) -> None:
        self.deadlines.append(deadline)

    def on_suspended(self) -> None:
        self.told.append("suspended")

    def on_resumed(self) -> None:
        self.told.append("resumed")


def act(deed: Callable[[Lease], Awaitable[None]], monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """With `monkeypatch` the store does not answer while `away`."""
    async def main(bench: Bench) -> None:
        lease = Lease(bench)
        if monkeypatch is not None:
            for name in ("keep_alive", "grant"):
                monkeypatch.setattr(bench.ledger, name, _answering(lease, getattr(bench.ledger, name)))
        await deed(lease)

    play(main)


def _answering(lease: Lease, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def maybe(*arguments: Any) -> Any:
        if lease.away:
            raise LedgerUnavailable("not now")
        return await call(*arguments)

    return maybe


async def kept(lease: Lease) -> asyncio.Task[None]:
    await lease.membership.join(MEMBER)
    return asyncio.create_task(lease.membership.keep(), name="keep")


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def test_joining_puts_the_member_on_its_lease() -> None:
    async def deed(lease: Lease) -> None:
        identity = await lease.membership.join(MEMBER)
        record = await lease.bench.record(KEYS.node(identity.node))
        assert identity.node.startswith("n-") and record.lease == identity.lease
        assert record.create_revision == identity.create_revision
        assert lease.deadlines == [lease.bench.clock.monotonic() + TTL_S]
        assert lease.membership.is_sure and lease.membership.may_start()
        await lease.membership.leave()
        assert not (await lease.bench.ledger.read(KEYS.node(identity.node))).records and not lease.membership.is_sure

    act(deed)


def test_no_name_is_used_twice() -> None:
    async def deed(lease: Lease) -> None:
        assert (await lease.membership.join(MEMBER)).node != (await lease.membership.join(MEMBER)).node

    act(deed)


def test_joining_waits_for_the_store_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(lease: Lease) -> None:
        said: list[Any] = []
        lease.bench.context.events.listen(said.append, [JoinFailed])
        lease.away = True
        joining = asyncio.create_task(lease.membership.join(MEMBER), name="join")
        await a_moment(5.0)
        assert len(said) == 1 and lease.membership.joining and not joining.done()
        lease.away = False
        await joining

    act(deed, monkeypatch)


def test_it_is_renewed_in_time() -> None:
    async def deed(lease: Lease) -> None:
        keeping = await kept(lease)
        await a_moment(5 * TTL_S)
        assert lease.membership.is_sure and lease.membership.may_start() and lease.told == []
        assert len(lease.deadlines) >= 15 and lease.deadlines == sorted(lease.deadlines)
        await end(keeping)

    act(deed)


def test_an_answer_that_came_late_is_renewed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease runs since it was asked for: a third of the time later it would be in its last third."""
    async def deed(lease: Lease) -> None:
        keeping = await kept(lease)
        answer = lease.bench.ledger.keep_alive

        async def late(number: int) -> int:
            await asyncio.sleep(TTL_S / 2)
            return await answer(number)

        monkeypatch.setattr(lease.bench.ledger, "keep_alive", late)
        await a_moment(TTL_S / 3 + 0.1)
        monkeypatch.setattr(lease.bench.ledger, "keep_alive", answer)       # for the one after that which waits
        await a_moment(TTL_S / 2)
        assert lease.deadlines[-1] > lease.bench.clock.monotonic() + TTL_S - 0.5
        await end(keeping)

    act(deed)


def test_what_is_not_renewed_is_suspended_at_its_deadline_and_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(lease: Lease) -> None:
        said: list[Any] = []
        lease.bench.context.events.listen(said.append, [KeepaliveFailed, KeepaliveResumed])
        keeping = await kept(lease)
        membership, joined_s = lease.membership, lease.bench.clock.monotonic()
        lease.bench.ledger.store.extend_leases(60.0)        # the store is away, and its leases with it
        lease.away = True
        await a_moment(TTL_S * START_FRACTION - 0.1)
        assert membership.may_start()
        await a_moment(0.2)
        assert not membership.may_start() and membership.is_sure        # in its last third nothing begins
        await a_moment(TTL_S * (1 - START_FRACTION))
        assert not membership.is_sure and lease.told == ["suspended"]
        assert lease.bench.clock.monotonic() >= joined_s + TTL_S
        lease.away = False
        await a_moment(1.0)
        assert membership.is_sure and lease.told == ["suspended", "resumed"]
        assert [type(event) for event in said] == [KeepaliveFailed, KeepaliveResumed]
        await end(keeping)

    act(deed, monkeypatch)


def test_a_lease_that_is_gone_ends_the_identity() -> None:
    async def deed(lease: Lease) -> None:
        keeping = await kept(lease)
        assert lease.membership.identity is not None
        await lease.bench.ledger.revoke(lease.membership.identity.lease)
        with pytest.raises(IdentityLost):
            await keeping

    act(deed)


def test_a_node_that_is_shut_out_lets_its_lease_run_out() -> None:
    async def deed(lease: Lease) -> None:
        keeping = await kept(lease)
        lease.shut_out = True
        await a_moment(TTL_S + 1.0)
        assert lease.told == ["suspended"]
        lease.shut_out = False
        with pytest.raises(IdentityLost):
            await keeping

    act(deed)


def test_the_deadline_counts_from_when_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(lease: Lease) -> None:
        keep_alive = lease.bench.ledger.keep_alive

        async def slow(number: int) -> int:
            ttl_s = await keep_alive(number)
            await asyncio.sleep(2.0)
            return ttl_s

        monkeypatch.setattr(lease.bench.ledger, "keep_alive", slow)
        keeping = await kept(lease)
        await a_moment(TTL_S / 3 + 2.01)
        assert lease.deadlines[-1] == pytest.approx(lease.deadlines[0] + TTL_S / 3)
        await end(keeping)

    act(deed)
