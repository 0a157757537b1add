"""Bulk operations: each ends, whatever becomes of its master, beside others, and does what it says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from rota.client.errors import NoSpace, OperationUnknown, Overloaded
from rota.client.model import Header
from rota.client.wire.codec import encode_body
from rota.client.wire.views import FailedFilter, OperationView, Verb
from rota.cluster.admin import bulk as asked
from rota.cluster.clock import SystemClock
from rota.cluster.ledger.commits import Commits, Verdict, Write, created
from rota.cluster.ledger.ledger import Condition, Put, Txn, TxnResult, prefix_end
from rota.cluster.ledger.memory import MemoryLedger, MemoryStore
from rota.cluster.master.duties import bulk, operation
from rota.cluster.master.election.authority import Authority
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, FailedRecord, Failure, OperationRecord, QueueRecord, Token, encode

from ..terms import term

KEYS, CLOCK, RNG = Keys("t"), SystemClock(), random.Random(7)
SESSION = "0s8sf4s75de1"


class Store(MemoryLedger):
    """A store that can be full for some commits."""

    full = 0

    async def commit(self, txn: Txn) -> TxnResult:
        if self.full and any(isinstance(op, Put) for op in txn.then):
            self.full -= 1
            raise NoSpace("quota used up")
        return await super().commit(txn)


class Stage:
    """A store with jobs in it, and somebody who asks for operations."""

    def __init__(self, ledger: Store, commits: Commits) -> None:
        self.ledger = ledger
        self.commits = commits
        self.terms = 0

    async def put(self, *puts: Put) -> None:
        for start in range(0, len(puts), 100):
            assert (await self.ledger.commit(Txn((), puts[start : start + 100]))).succeeded

    async def failed(self, count: int, first: int = 0, queue: str = "q", error: str = "ValueError: x") -> None:
        puts = []
        for number in range(first, first + count):
            bundle = f"{SESSION}-{number:08x}"
            record = FailedRecord(f"{bundle}/0", "m:f", queue, error, 5, "n", 0.0)
            failure = Failure(_body(bundle), "trace", encode(Token("m:f", queue, 0, 1, 1, "async", 0)))
            puts.append(Put(KEYS.failed_job(queue, bundle, 0), encode(record)))
            puts.append(Put(KEYS.failure(bundle, 0), msgspec.msgpack.encode(failure)))
        await self.put(*puts)

    async def waiting(self, number: int, queue: str = "q", **changes: object) -> Token:
        bundle = f"{SESSION}-{number:08x}"
        token = Token("m:f", queue, 0, number, 1, "async", 0, **changes)  # type: ignore[arg-type]
        await self.put(Put(KEYS.job(queue, 0, number, bundle), encode(token)), Put(KEYS.body(bundle), _body(bundle)))
        return token

    async def begin(self, verb: Verb, which: FailedFilter, expected: int | None = None) -> str:
        member = created(b"member", 0)
        return await asked.begin(self.ledger, self.commits, KEYS, CLOCK, RNG, member, verb, which, expected)

    async def end(self, name: str) -> OperationView:
        view = await asked.until_over(self.ledger, KEYS, name, 20.0)
        assert view.is_over
        return view

    async def do(self, verb: Verb, which: FailedFilter, expected: int | None = None) -> OperationView:
        async with self.master():
            return await self.end(await self.begin(verb, which, expected))

    async def count(self, prefix: bytes) -> int:
        return len((await self.ledger.read(prefix, prefix_end(prefix), keys_only=True)).records)

    @asynccontextmanager
    async def master(self) -> AsyncIterator[bulk.Bulk]:
        """A term: its operations are carried out until it is left, wherever they are then."""
        self.terms += 1
        key = KEYS.candidate(self.terms)
        fence = (await self.ledger.commit(Txn((), (Put(key, b"n"),)))).revision
        fenced: Condition = created(key, fence)
        context = term(self.ledger, self.commits, KEYS, CLOCK, fence=fenced, node=f"n{self.terms}")
        duty = bulk.Bulk(context, Authority(), lambda queue: queue == "line")

        async def watch() -> None:
            async with self.ledger.watch(KEYS.root, prefix_end(KEYS.root), from_revision=fence) as changes:
                async for seen in changes:
                    duty.see(seen)

        tasks = [asyncio.create_task(duty.run()), asyncio.create_task(watch())]
        try:
            yield duty
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


def _body(bundle: str) -> bytes:
    return encode_body(Header(bundle, "m:f", "q", "async", [0], [1], 0.0), [b"x"])


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    ledger = Store(MemoryStore(CLOCK))
    async with Commits(ledger) as commits:
        yield Stage(ledger, commits)
    await ledger.close()


ALL = FailedFilter(all=True)
NAMED = encode(OperationRecord("delete", FailedFilter(ids=["no id at all"]), 0.0))


async def test_two_at_once_end_and_each_job_is_taken_by_one_of_them() -> None:
    async with staged() as stage:
        await stage.failed(300)
        async with stage.master():
            retry, delete = await stage.begin("retry", ALL), await stage.begin("delete", ALL)
            views = [await stage.end(retry), await stage.end(delete)]
        assert await stage.count(KEYS.failed) == await stage.count(KEYS.failures) == 0
        assert await stage.count(KEYS.jobs) == await stage.count(KEYS.bodies) == views[0].count
        assert sum(view.count for view in views) == 300 and all(view.left == 0 for view in views)
        assert not await stage.count(KEYS.operations)


async def test_another_master_goes_on_where_the_one_before_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        await stage.failed(200)
        monkeypatch.setattr(operation, "SAVE_S", 0.0)
        async with stage.master():
            name = await stage.begin("retry", ALL)
            while not 0 < (view := await asked.look(stage.ledger, KEYS, name)).count < 200:     # noqa: ASYNC110
                await asyncio.sleep(0)
        assert (view.state, view.node, view.total) == ("running", "n1", 200)
        await asyncio.sleep(0)
        async with stage.master():
            over = await stage.end(name)
        assert (over.state, over.node, over.count, over.total, over.left) == ("done", "n2", 200, 200, 0)
        assert await stage.count(KEYS.jobs) == 200 and not await stage.count(KEYS.failed)


async def test_what_fails_again_meanwhile_is_not_its_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that fails at once would be retried for ever."""
    async with staged() as stage:
        await stage.failed(50)
        submit = operation.Writer.submit

        async def fail_again(writer: operation.Writer, writes: list[Write]) -> list[Verdict | BaseException]:
            verdicts = await submit(writer, writes)
            if any(op.key.startswith(KEYS.jobs) for write in writes for op in write.ops):
                await stage.failed(50)
            return verdicts

        monkeypatch.setattr(operation.Writer, "submit", fail_again)
        view = await stage.do("retry", ALL)
        assert view.count <= 50 and await stage.count(KEYS.failed) == 50


async def test_what_is_chosen() -> None:
    async with staged() as stage:
        await stage.failed(3, queue="mail", error="OSError: disk")
        await stage.failed(2, first=10, queue="q")
        names = [f"{SESSION}_{number:08x}_0" for number in (0, 10)]
        assert (await stage.do("retry", FailedFilter(ids=names))).count == 2
        assert (await stage.do("delete", FailedFilter(queue="mail", error="disk"))).count == 2
        assert (await stage.do("delete", FailedFilter(task="m:f"))).count == 1
        assert (await stage.do("delete", ALL)).count == 0
        for which, why in (
            (FailedFilter(queue="mail"), "no failed job fits queue 'mail': nothing was done"),
            (FailedFilter(ids=names[:1]), f"not in the failed set: {names[0]}"),
        ):
            view = await stage.do("retry", which)
            assert (view.state, view.why) == ("refused", why)


async def test_the_head_that_blocks_a_serial_queue_is_retried_at_its_place() -> None:
    async with staged() as stage:
        await stage.put(Put(KEYS.queue("line"), encode(QueueRecord(serial=True))))
        await stage.waiting(1, "line", blocked=True, attempt=5, error="ValueError: x")
        await stage.waiting(2, "line")
        assert (await stage.do("delete", ALL)).count == 0 and await stage.count(KEYS.jobs) == 2
        view = await stage.do("retry", FailedFilter(ids=[f"{SESSION}_00000001_0"]))
        assert (view.state, view.count) == ("done", 1)
        head = (await stage.ledger.read(KEYS.queue_jobs("line"), prefix_end(KEYS.jobs), limit=1)).records[0]
        assert b"blocked" not in head.value and b'"attempt"' not in head.value


async def test_what_is_retried_into_a_serial_queue_is_its_new_end() -> None:
    """Else a node that had seen less of the store would append before it, and it would not be the head any more when it
    is tried again."""
    async with staged() as stage:
        tail = 1_000_000        # further than this master has seen
        await stage.failed(3, queue="line")
        await stage.put(Put(KEYS.tail("line"), str(tail).encode()))
        for number in range(3):
            bundle = f"{SESSION}-{number:08x}"
            body = encode_body(Header(bundle, "m:f", "line", "async", [0], [1], 0.0), [b"x"])
            kept = Failure(body, "trace", encode(Token("m:f", "line", 0, 1, 1, "async", 0)))
            await stage.put(Put(KEYS.failure(bundle, 0), msgspec.msgpack.encode(kept)))
        assert (await stage.do("retry", ALL)).count == 3
        waiting = (await stage.ledger.read(KEYS.queue_jobs("line"), prefix_end(KEYS.queue_jobs("line")))).records
        places = [KEYS.parse_job(record.key) for record in waiting]
        assert [place.order for place in places if place is not None] == [tail + 1, tail + 2, tail + 3]
        assert (await stage.ledger.read(KEYS.tail("line"))).records[0].value == str(tail + 3).encode()


async def test_a_queue_is_emptied_if_there_are_as_many_jobs_as_its_owner_believes() -> None:
    async with staged() as stage:
        for number in range(1, 6):
            await stage.waiting(number)
        await stage.waiting(7, "other")
        view = await stage.do("empty", FailedFilter(queue="q"), 4)
        assert (view.state, view.why) == (
            "refused", "queue q has 5 waiting jobs, not 4: look again before it is emptied"
        )
        view = await stage.do("empty", FailedFilter(queue="q"), 5)
        assert (view.state, view.count) == ("done", 5)
        assert await stage.count(KEYS.jobs) == 1 and await stage.count(KEYS.results) == 5
        assert (await stage.do("empty", FailedFilter(queue="q"), None)).count == 0


async def test_many_are_cancelled_wherever_they_are() -> None:
    async with staged() as stage:
        token = await stage.waiting(1)
        scheduled, claimed = f"{SESSION}-00000002", f"{SESSION}-00000003"
        await stage.put(
            Put(KEYS.due(9, "q", scheduled), encode(token)), Put(KEYS.body(scheduled), _body(scheduled)),
            Put(KEYS.claim("n9", claimed), encode(Claim("m:f", "q", 0, 1, 1, "async", 0, fence=1))),
            Put(KEYS.body(claimed), _body(claimed)),
        )
        await stage.waiting(4, "other")
        view = await stage.do("cancel", FailedFilter(queue="q"))
        assert (view.state, view.count, view.total, view.left) == ("done", 3, 3, 0)
        assert await stage.count(KEYS.jobs) == 1 and await stage.count(KEYS.scheduled) == 0
        assert await stage.count(KEYS.claims) == await stage.count(KEYS.cancels) == 1
        assert (await stage.do("cancel", FailedFilter(task="m:g"))).why == "no job fits task 'm:g': nothing was done"


async def test_a_job_is_not_retried_over_its_siblings() -> None:
    """They were in one piece of a bundle, and still lie under the name that it would get."""
    async with staged() as stage:
        await stage.failed(1)
        bundle, piece = f"{SESSION}-00000000", f"{SESSION}-00000000.00"
        siblings = encode_body(Header(bundle, "m:f", "q", "async", [1, 2], [1, 1], 0.0), [b"x", b"x"])
        token = Token("m:f", "q", 0, 1, 2, "async", 0)
        await stage.put(Put(KEYS.body(piece), siblings), Put(KEYS.due(9, "q", piece), encode(token)))
        view = await stage.do("retry", ALL)
        assert (view.state, view.count, view.left) == ("done", 0, 1)
        assert (await stage.ledger.read(KEYS.body(piece))).records[0].value == siblings
        assert await stage.count(KEYS.failed) == 1 and not await stage.count(KEYS.jobs)


async def test_a_full_store_delays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        monkeypatch.setattr(bulk, "AGAIN_S", 0.01)
        await stage.failed(100)
        async with stage.master():
            name = await stage.begin("retry", ALL)
            stage.ledger.full = 5
            view = await stage.end(name)
        assert (view.state, view.count) == ("done", 100) and not stage.ledger.full
        assert await stage.count(KEYS.jobs) == 100


async def test_there_is_a_bound_and_what_is_unknown_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        monkeypatch.setattr(asked, "UNENDED_MAX", 2)
        await stage.begin("delete", ALL)
        await stage.put(Put(KEYS.operation("garbage"), b"\xff"), Put(KEYS.operation("named"), NAMED))
        with pytest.raises(Overloaded, match="2 bulk operations have not ended"):
            await stage.begin("delete", ALL)
        assert [view.state for view in await asked.listed(stage.ledger, KEYS)] == ["waiting"]
        with pytest.raises(OperationUnknown, match="there is no operation nothing"):
            await asked.look(stage.ledger, KEYS, "nothing")
        async with stage.master():
            while await stage.count(KEYS.operations):       # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [view.state for view in await asked.listed(stage.ledger, KEYS)] == ["done"]
