"""What a node answers whoever asks it."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from rota.client.errors import NotSerializable, Overloaded, QueueFull, Unreachable
from rota.client.model import HEADER_SCHEMA, HEADER_SCHEMA_MAX, Parameter, Receipt
from rota.client.wire.keyring import Keyring
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.state.records import Member, TaskRecord, encode

from .bench import BUNDLE, KEYS, OTHER
from .whole import Whole, live


def test_a_node_that_is_no_member_sends_people_elsewhere() -> None:
    async def deed(whole: Whole) -> None:
        service = whole.node.service        # it has not joined yet
        assert service.node == "" and service.why_not_ready()
        with pytest.raises(Overloaded, match="not a member"):
            await whole.enqueue()
        with pytest.raises(Overloaded):
            _ = service.schedules
        with pytest.raises(Unreachable, match="can change nothing now"):
            await service.cancel(BUNDLE + "-0")

    live(deed)


def test_a_node_that_knows_nothing_yet_does_not_say_that_there_is_nothing() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        service, listed = whole.node.service, whole.node.directory.listed
        listed.clear()                  # as it is when a node has just started
        asked = asyncio.create_task(service.tasks())
        await asyncio.sleep(1.0)
        assert not asked.done()
        listed.set()
        assert [task.name for task in await asked] == ["m:f"]
        listed.clear()
        with pytest.raises(Unreachable, match="just started"):
            await service.nodes()

    live(deed)


def test_a_call_is_checked_against_what_the_store_says_where_the_node_has_not_heard_of_its_task() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        there = TaskRecord("sync", parameters=(Parameter("path", 1, True),))
        await whole.bench.ledger.commit(Txn((), (Put(KEYS.task("m:new"), encode(there)),)))
        assert "m:new" not in whole.node.directory.tasks       # the watch has not told of it
        assert await whole.node.service.parameters("m:new") == there.parameters

    live(deed)


def test_what_a_member_takes_in_it_shows() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        service = whole.node.service
        assert isinstance(await whole.enqueue(count=2), Receipt)
        assert whole.node.identities.counters == (2, 0)
        assert [task.name for task in await service.tasks()] == ["m:f"]
        assert [(node.node, node.master) for node in await service.nodes()] == [(service.node, True)]
        assert await service.task_mode("m:f") == "async" and await service.task_mode("m:g") is None
        assert await service.parameters("m:g") is None

    live(deed)


def test_it_takes_wide_bundles_where_every_member_can_read_them() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        assert whole.node.service.jobs_per_bundle == 480
        lease = 77
        await whole.bench.ledger.grant(60, lease)
        old = encode(Member("", [], {}, {}, "3.11", "0.1", 0.0))
        await whole.bench.ledger.commit(Txn((), (Put(KEYS.node("old"), old, lease),)))
        await asyncio.sleep(1.0)
        assert whole.node.service.jobs_per_bundle == 60
        await whole.bench.ledger.revoke(lease)
        await asyncio.sleep(1.0)
        assert whole.node.service.jobs_per_bundle == 480

    live(deed)


def test_it_takes_what_is_signed_as_a_whole_where_every_member_can_read_and_cut_it() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        service, old = whole.node.service, Member("", [], {}, {}, "3.11", "0.1", 0.0, keys=keyring.marks)
        new = replace(old, header_schema=HEADER_SCHEMA_MAX)
        for lease, (member, schema) in enumerate((
            (old, HEADER_SCHEMA), (new, HEADER_SCHEMA_MAX), (replace(new, keys=keyring.marks[:1]), HEADER_SCHEMA),
            (replace(new, keys=None), HEADER_SCHEMA), (replace(new, keys=[*keyring.marks, "c#0"]), HEADER_SCHEMA_MAX),
        ), 77):
            assert service.header_schema == HEADER_SCHEMA_MAX
            await whole.bench.ledger.grant(60, lease)
            await whole.bench.ledger.commit(Txn((), (Put(KEYS.node("other"), encode(member), lease),)))
            await asyncio.sleep(1.0)
            assert service.header_schema == schema
            await whole.bench.ledger.revoke(lease)
            await asyncio.sleep(1.0)

    keyring = Keyring({"a": b"a" * 32, "b": b"b" * 32})
    live(deed, keyring=keyring)


def test_a_change_of_a_queue_holds_for_the_enqueue_that_follows_here() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        changed = await whole.node.service.set_queue("q", {"max_waiting": 1})
        assert changed["max_waiting"] == 1 and changed["paused"] is False
        assert isinstance(await whole.enqueue(), Receipt)
        assert isinstance(await whole.enqueue(OTHER), QueueFull)

    live(deed)


def test_code_by_value_is_refused_where_the_node_takes_none() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        with pytest.raises(NotSerializable, match="--no-functions"):
            await whole.node.service.put_function("0" * 32, b"")
        assert await whole.bench.names(KEYS.functions) == []

    live(deed, functions=False)
