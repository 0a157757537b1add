"""A node as a whole: it becomes a member as its settings say, and leaves."""

from __future__ import annotations

import asyncio

import pytest

from rota.client.errors import ConfigError
from rota.cluster.events.records import JobSetAside
from rota.cluster.state.records import Member, decode
from rota.worker.pool.interface import NodeSide

from .bench import BUNDLE, KEYS, a_moment
from .whole import Whole, WholeRunners, live


def test_it_is_a_member_as_its_settings_say_until_it_is_told_to_leave() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        (name,) = await whole.bench.names(KEYS.nodes)
        record = await whole.bench.record(KEYS.node(name))
        member = decode(Member, record.value)
        assert member is not None and name.startswith("n-") and record.lease
        assert (member.address, member.queues, member.labels, member.capacity) == (
            "there:4100", ["mail", "q"], ["gpu"], {"async": 10, "sync": 2}
        )
        whole.node.drain()
        await whole.running
        assert await whole.bench.names(KEYS.nodes) == [] and whole.runners.stopped == 1

    live(deed, queues=("mail", "q"), labels=("gpu",))


def test_told_to_leave_while_its_runners_start_it_never_joins() -> None:
    class Slow(WholeRunners):
        async def start(self, node: NodeSide) -> None:
            await asyncio.sleep(1e6)

    async def deed(whole: Whole) -> None:
        await a_moment(1.0)
        assert "its runners are starting" in (whole.node.service.why_not_ready() or "")
        whole.node.drain()
        await whole.running
        assert await whole.bench.names(KEYS.nodes) == [] and whole.runners.stopped == 1

    live(deed, Slow())


def test_what_makes_it_impossible_comes_out_and_its_runners_are_stopped() -> None:
    class Broken(WholeRunners):
        async def start(self, node: NodeSide) -> None:
            raise ConfigError("the app cannot be imported")

    async def deed(whole: Whole) -> None:
        with pytest.raises(ConfigError, match="cannot be imported"):
            await whole.running
        assert whole.runners.stopped == 1

    live(deed, Broken())


def test_runners_hear_of_failures_that_none_of_them_has_seen() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        whole.node.events.emit(JobSetAside(BUNDLE, 1, "m:f", "q", 1, "bad signature"))
        assert whole.runners.reported == [(BUNDLE, 1, "bad signature")]

    live(deed)
