"""A fuzz of the records: anything under any key, while a cluster works; production nodes in virtual time (world.py).

    python -m tests.simulation.fuzz --examples 5000         or: make fuzz EXAMPLES=5000

What must hold, whatever is written: no process ends or stands still, what was not touched ends as if nothing had been,
what was touched has ended or lies in the failed set and can be retried, every view answers, and then there is quiet.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rota.client.calls.graphs import FlowPart, pack
from rota.client.errors import InvalidJob, JobUnknown, Overloaded
from rota.client.ids import bundle_id, new_session
from rota.client.model import Enqueue, FlowTerms, Header, Level, Receipt, Step, Terms, Upstream
from rota.client.options.timetable import timetable
from rota.client.wire.codec import encode_body
from rota.client.wire.views import FailedFilter
from rota.cluster.admin.strays import strays
from rota.cluster.ledger.ledger import Put, Record, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.state.keys import Keys
from rota.cluster.state.outboxes import OutboxRecord
from rota.cluster.state.records import (
    Awaiting,
    BoundRecord,
    Claim,
    FailedRecord,
    FinishedRecord,
    FlowRecord,
    LogRecord,
    Member,
    OperationRecord,
    ProgressRecord,
    QueueRecord,
    RateRecord,
    ReceiptRecord,
    RunningJob,
    RunningRecord,
    SectionRecord,
    TaskRecord,
    Token,
    claim_in,
    decode,
    operation_in,
    waiting_at,
)
from rota.cluster.state.schedules import ScheduleRecord
from rota.cluster.state.steps import StepRecord
from rota.cluster.state.uniques import UniqueRecord

from .loop import run_virtual
from .plans import BOUNDED, CLUSTER, NARROW, QUIET, SERIAL, TASKS
from .process import Process
from .world import World

KEYS = Keys(CLUSTER)
SESSION = new_session(lambda count: bytes(range(count)))
BUNDLES = [bundle_id(SESSION, number) for number in range(18)]
FLOW = bundle_id(SESSION, 99)
FLOWING = BUNDLES[12], BUNDLES[13]
"""The jobs of a flow: the second wait for the first."""
DEPENDS: dict[str, tuple[str, ...]] = {
    BUNDLES[10]: (BUNDLES[0], BUNDLES[3]), BUNDLES[14]: (BUNDLES[9],), FLOWING[1]: FLOWING[:1],
}
"""What was written for those concerns these."""
UNIQUE = "only"
CANCELLED = f"{BUNDLES[6]}/3"
DEEDS = 40
QUIET_S = 10.0
REQUESTS_MAX = 1_500
"""Of two nodes in ten quiet seconds: keep-alives, looks at the store, progress."""

RECORDS: tuple[msgspec.Struct, ...] = (
    Token("m:sync", "q1", 0, 5, 3, "sync", 1_000),
    Claim("m:sync", "q1", 0, 5, 3, "sync", 1_000, fence=3, started=True),
    Member("http://x", ["*"], {"m:sync": "sync", "m:async": "async"}, {"sync": 50, "async": 50}, "3.11", "0", 1.0),
    TaskRecord("sync"), QueueRecord(max_concurrency=3), ReceiptRecord("00", 5),
    FailedRecord(f"{BUNDLES[0]}/0", "m:sync", "q1", "no", 1, "n", 1.0),
    FinishedRecord(BUNDLES[0], [0, 1], "m:sync", "q1", 1, "n", 1.0),
    RunningRecord([RunningJob(BUNDLES[0], 0, 1_000, 1, "m:sync", "q1")]),
    OperationRecord("delete", FailedFilter(queue="nobody's"), 1.0),
    ScheduleRecord("m:sync", "q1", "sync", timetable(every=60.0, start_ms=0), 0, 0),
    Awaiting(
        "m:sync", "q1", 0, 5, 3, "sync", 1_000, upstream=(Upstream(BUNDLES[0], "3", "1"),), flow=FLOW, section=FLOW
    ),
    UniqueRecord(BUNDLES[11], f"jobs/q1/100/{5:016d}/{BUNDLES[11]}", 1_000), RateRecord(2_000), BoundRecord(3),
    FlowRecord("import", 1.0, jobs=2), SectionRecord(2), OutboxRecord("relay", 1_000), ProgressRecord(1.0, 2.0),
    LogRecord([]), StepRecord(Step("one", b"x")),
)


class Deed(msgspec.Struct, frozen=True):
    """A value written under a key; or, if `over` is not None, over one of those that are there."""

    key: bytes
    value: bytes
    over: int | None = None
    keep_lease: bool = False


# -- what is written -------------------------------------------------------------------------------------------------

MONSTERS = (
    b"[" * 5_000, b'{"task":' * 2_000, b'{"order":' + b"9" * 5_000 + b"}", b"\x91" * 5_000, b"\x00\x00\x00\x05abcde",
    b"9" * 5_000, "²".encode(), b"\xff" * 5_000, b"",
)
ODD = ("²", "٣", "-1", "007", "5", "", "..", "a b", "x\n", "9" * 30, "\x1b[31m", "\u202e")
WORDS = ("zz", "²", "\x1b[31m", "../..", "q1", "9" * 400, "\u202e", "f" * 120, "1", "sync", "m:sync", "")
NUMBERS = (0, 1, -1, 2, 3, 59, 60, 479, 480, 10**15, 10**16, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.5, 1e300)

NAMES = (*BUNDLES, f"{BUNDLES[0]}.01", f"{BUNDLES[0]}.x100", "x", "x-²")
QUEUES = ("q1", "q2", SERIAL, NARROW, BOUNDED, "other")
ORDERS = ("0" * 16, "0" * 15 + "9", "9" * 16)
FLOWS = (FLOW, BUNDLES[0], "x")
JOBS = tuple(f"{name}-{index}" for name in NAMES for index in ("0", "1", "01", "59", "479", "480", "²"))
LAYOUT: dict[bytes, tuple[tuple[str, ...], ...]] = {
    KEYS.jobs: (QUEUES, ("100", "100", "050", "000", "201", "50"), ORDERS, NAMES),
    KEYS.scheduled: (ORDERS, QUEUES, NAMES), KEYS.claims: (("ghost", "n0-000000"), NAMES), KEYS.failed: (QUEUES, JOBS),
    KEYS.finished: (QUEUES, JOBS), KEYS.cancels: (JOBS,), KEYS.nodes: (("ghost", "phantom"),),
    KEYS.master: (("0", "7abc", "f" * 16),), KEYS.tasks: (("m:new",),), KEYS.queues: (QUEUES,), KEYS.tails: (QUEUES,),
    KEYS.bodies: (NAMES,), KEYS.results: ((SESSION,), NAMES, ORDERS), KEYS.receipts: (NAMES,), KEYS.functions: (NAMES,),
    KEYS.failures: (JOBS,), KEYS.finished_bodies: (JOBS,), KEYS.running: (("ghost", "n0-000000"),),
    KEYS.operations: (("0" * 12, "x"),), KEYS.operations_ended: (("0" * 12, "x"),), KEYS.schedules: (("nightly",),),
    KEYS.templates: (("nightly",),),
    KEYS.awaiting: (QUEUES, NAMES), KEYS.inputs: (NAMES, NAMES, ("1", "!1", "ff", "0", "f" * 120)),
    KEYS.uniques: (("m:sync", "m:async"), (UNIQUE, "x")), KEYS.bounds: (QUEUES,),
    KEYS.rates: (("task", "queue", "key"), ("m:paced", "m:sync", "q1")), KEYS.outboxes: (("shop",),),
    KEYS.flows: (FLOWS,), KEYS.flow_sections: (FLOWS, FLOWS), KEYS.flows_open: (FLOWS,), KEYS.flows_ended: (FLOWS,),
    KEYS.graphs: (FLOWS, FLOWS), KEYS.steps: (JOBS, ("0000", "0001", "1")), KEYS.progress: (JOBS,), KEYS.logs: (JOBS,),
    KEYS.seen_history: (("1", "x"),), KEYS.seen_nodes: (("ghost", "n0-000000"),),
}


class Vandal:
    """Makes deeds; a seed decides which."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)

    def deed(self) -> Deed:
        rng = self._rng
        over = rng.randrange(200) if rng.random() < 0.4 else None
        return Deed(self._key(), self._content(), over, rng.random() < 0.5)

    def _key(self) -> bytes:
        rng = self._rng
        prefix = rng.choice(list(LAYOUT))
        if rng.random() < 0.1:
            return rng.choice((prefix, KEYS.root, KEYS.data)) + rng.randbytes(rng.randrange(20))
        parts = [rng.choice(ODD if rng.random() < 0.08 else usual) for usual in LAYOUT[prefix]]
        return prefix + "/".join(parts).encode()

    def _content(self) -> bytes:
        rng = self._rng
        match rng.randrange(8):
            case 0:
                return rng.randbytes(rng.randrange(40))
            case 1:
                return as_json(self._value(3))
            case 2:
                return as_msgpack(self._value(3))
            case 3:
                return rng.choice(MONSTERS)
        return self._nonsense()

    def _nonsense(self) -> bytes:
        """A record of ours, in which some fields are something else."""
        rng = self._rng
        record = rng.choice(RECORDS)
        fields = {name: msgspec.to_builtins(getattr(record, name)) for name in record.__struct_fields__}
        for name in rng.sample(sorted(fields), rng.choice((0, 1, 1, 2))):
            fields[name] = self._value(2)
        if "queue" in fields and rng.random() < 0.2:
            fields["queue"] = rng.choice((*QUEUES, "elsewhere"))
        return rng.choice((as_json, as_json, as_msgpack))(fields)

    def _value(self, depth: int) -> Any:
        rng = self._rng
        match rng.randrange(8 if depth else 6):
            case 0:
                return rng.choice((None, True, False, float("nan"), float("inf")))
            case 1 | 2:
                return rng.choice(NUMBERS)
            case 3 | 4:
                return rng.choice(WORDS)
            case 5:
                return "".join(chr(rng.randrange(0x3000)) for _ in range(rng.randrange(6)))
            case 6:
                return [self._value(depth - 1) for _ in range(rng.randrange(4))]
        return {rng.choice(("task", "queue", "v", "x")): self._value(depth - 1) for _ in range(rng.randrange(4))}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()       # NaN and all


def as_msgpack(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except OverflowError:
        return as_json(value)


def deeds_of(seed: int, kept: Iterable[int]) -> list[Deed]:
    """Each is drawn by itself, so that an example can be made smaller by leaving some out."""
    return [Vandal(f"{seed} {number}").deed() for number in sorted(kept)]


# -- the cluster meanwhile -------------------------------------------------------------------------------------------


class Fuzz:
    """One example."""

    def __init__(self, deeds: list[Deed]) -> None:
        self.world = World(1, QUIET)
        self.deeds = deeds
        self.touched: set[str] = set()      # bundles that a key with their name was written for
        self.requests = 0
        for name in ("read", "commit"):
            self._count(name)

    def _count(self, name: str) -> None:
        original = getattr(self.world.store, name)

        def counted(*arguments: Any) -> Any:
            self.requests += 1
            return original(*arguments)

        setattr(self.world.store, name, counted)

    async def run(self) -> None:
        world = self.world
        async with asyncio.TaskGroup() as world.group:
            world.prepare()
            for _ in range(2):
                world.add_process()
            await world.until(self._all_ready, 10.0, "they join")
            await self._work()
            half = len(self.deeds) // 2
            await self._do(self.deeds[:half])
            await self._look()
            await world.nemesis.kill(self._master())         # another looks at all of it afresh
            await self._do(self.deeds[half:])
            for process in [process for process in world.processes if process.alive]:
                await world.nemesis.kill(process)           # whoever stood for election before the deeds is gone
            await self._tidy()
            await self._enqueue(8, "m:sync", SERIAL, 2)
            await self._enqueue(9, "m:async", "q2", 3)
            await self._enqueue(14, "m:sync", "q1", 2, terms=Terms(after=(Upstream(BUNDLES[9], "7", "7"),)))
            await self._enqueue(15, "m:async", "q2", 1, terms=Terms(unique="another"))
            await self._enqueue(16, "m:paced", "q1", 2)
            await self._enqueue(17, "m:sync", BOUNDED, 2)
            helper = world.group.create_task(self._help_heads())
            await world.until(lambda: not self._unfinished(self.touched), 60.0, "what was not touched has ended")
            helper.cancel()
            await self._look()
            await self._retry()
            await self._rest()
            self._check_flow()
            await asyncio.gather(*(process.leave() for process in world.processes if process.alive))

    def _all_ready(self) -> bool:
        return all(process.node.why_not_ready() is None for process in self.world.processes)

    async def _work(self) -> None:
        world = self.world
        for index in range(3):
            world.script(f"{BUNDLES[1]}/{index}", 1.0)
        await self._enqueue(0, "m:sync", "q1", 3)
        await self._enqueue(1, "m:async", "q2", 3)
        await self._enqueue(2, "m:sync", SERIAL, 1)
        await self._enqueue(3, "m:sync", SERIAL, 2)
        await self._enqueue(4, "m:sync", "q1", 2, delay_s=1.5)
        await self._enqueue(5, "m:async", "q2", 2, level="delayed")
        await self._enqueue(6, "m:limited", NARROW, 4)
        await self._enqueue(7, "m:once", "q1", 1)
        after = Upstream(BUNDLES[0], "7", "1"), Upstream(BUNDLES[3], "3")
        await self._enqueue(10, "m:async", "q2", 2, terms=Terms(after=after))
        await self._enqueue(11, "m:sync", "q1", 1, delay_s=1.0, terms=Terms(unique=UNIQUE))
        parts = [
            FlowPart(FLOWING[0], "m:sync", "q1", 2), FlowPart(FLOWING[1], "m:async", "q2", 1, ((FLOWING[0], "3"),))
        ]
        await self._enqueue(12, "m:sync", "q1", 2, delay_s=0.6, terms=Terms(flow=FlowTerms(FLOW, FLOW, "first")))
        flow = FlowTerms(FLOW, FLOW, "last", "import", jobs=3, graph=pack(parts))
        own = (Upstream(FLOWING[0], "3", own=True),)
        await self._enqueue(13, "m:async", "q2", 1, terms=Terms(after=own, flow=flow))
        await asyncio.sleep(0.02)

    async def _enqueue(
        self, number: int, task: str, queue: str, count: int, *, delay_s: float = 0.0, level: Level = "durable",
        terms: Terms | None = None,
    ) -> None:
        bundle = BUNDLES[number]
        header = Header(bundle, task, queue, TASKS[task].mode, list(range(count)), [1] * count, 0.0)
        order = Enqueue(
            bundle, task, queue, count, header.mode, encode_body(header, [b"x"] * count), delay_s=delay_s, level=level,
            terms=terms,
        )
        for _ in range(100):
            try:
                (answer,) = await self._living().node.enqueue([order], 0)
            except Overloaded as error:
                answer = error
            if not isinstance(answer, Overloaded):
                break
            await asyncio.sleep(0.1)
        if isinstance(answer, Receipt):
            self.world.invoked[bundle] = {f"{bundle}/{index}" for index in range(count)}
        else:
            assert bundle in self.touched or level != "durable", answer

    def _living(self) -> Process:
        return next(process for process in reversed(self.world.processes) if process.alive)

    def _master(self) -> Process:
        living = [process for process in self.world.processes if process.alive]
        return next((process for process in living if process.is_master), living[0])

    async def _do(self, deeds: list[Deed]) -> None:
        for deed in deeds:
            there = self._all_records()
            target = there[deed.over % len(there)] if deed.over is not None else None
            key = target.key if target is not None else deed.key
            if len(key) <= 1_000 and self._may_be_written(key, deed.value):
                self._touch(key)
                lease = target.lease if target is not None and deed.keep_lease else 0
                self.world.store.commit(Txn((), (Put(key, deed.value, lease),)), "vandal")
            await asyncio.sleep(0.03)

    def _touch(self, key: bytes) -> None:
        self.touched.update(bundle for bundle in BUNDLES if bundle.encode() in key)
        if FLOW.encode() in key:
            self.touched.update((FLOW, *FLOWING))
        for bundle, upstream in DEPENDS.items():
            if not self.touched.isdisjoint(upstream):
                self.touched.add(bundle)
        if not self.touched.isdisjoint(FLOWING):
            self.touched.add(FLOW)

    def _check_flow(self) -> None:
        records = self.world.records(KEYS.flow(FLOW), 1)
        assert FLOW in self.touched or not records, "a flow that was not touched is over when its jobs are"

    def _all_records(self) -> tuple[Record, ...]:
        roots = b"/rota", b"/rotb"
        return self.world.store.read(*roots, 0, 0, False, 0).records

    @staticmethod
    def _may_be_written(key: bytes, value: bytes) -> bool:
        """What a record may say is nobody's fault: that a task's jobs wait for a year, or that all shall be deleted."""
        return not (
            (key.startswith(KEYS.tasks) and decode(TaskRecord, value) is not None)
            or (key.startswith(KEYS.operations) and operation_in(value) is not None)
        )

    # -- people ------------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Every view answers, or says what is unknown."""
        node = self._living().node
        await self.world.until(lambda: node.why_not_ready() is None, 20.0, "it is a member again")
        queues = node.queue_part("", 1_000)
        for view in (node.nodes(), queues, node.stats(), node.failed(None, 100), node.finished(None, 9)):
            await view
        for view in (node.jobs("", "", "", 100, ""), node.operations(), node.schedules.list("", 100)):
            await view
        for view in (node.flows.page("", 10, ""), node.outboxes.list()):
            await view
        async for _ in strays(MemoryLedger(self.world.store), KEYS):
            pass
        for bundle in BUNDLES:
            for index in (0, 1):
                job = f"{bundle}/{index}"
                await node.job(job)
                await self._unless_refused(lambda job=job: node.body(job))
        await self._unless_refused(lambda: node.cancel(CANCELLED))

    async def _unless_refused(self, ask: Callable[[], Any]) -> Any:
        try:
            return await ask()
        except (InvalidJob, JobUnknown, Overloaded):
            return None

    async def _tidy(self) -> None:
        """What a person does who has read `rota doctor`: settings that somebody wrote are set right."""
        node = self._living().node
        await self.world.until(lambda: node.why_not_ready() is None, 20.0, "it is a member")
        for queue, serial, most in (("q1", False, None), ("q2", False, None), (SERIAL, True, None), (NARROW, False, 2)):
            await node.set_queue(queue, {"paused": False, "serial": serial, "max_concurrency": most})

    async def _help_heads(self) -> None:
        """A head that fails for good holds up its serial queue until a person says what to do, whatever made it fail.
        So one that was touched is tried again, and then left out. (No other may fail; nor may one hold up its queue
        and not say that it has failed.)"""
        tried: set[bytes] = set()
        while True:
            await asyncio.sleep(1.0)
            head = self._head()
            if head is not None and head[1].blocked and any(name.encode() in head[0] for name in self.touched):
                verb = "skip" if head[0] in tried else "retry"
                tried.add(head[0])
                await self._unless_refused(lambda verb=verb: self._living().node.queue_head(SERIAL, verb))

    def _head(self) -> tuple[bytes, Token] | None:
        for record in self.world.records(KEYS.queue_jobs(SERIAL)):
            if (token := waiting_at(KEYS, record)) is not None:
                return record.key, token
        return None

    async def _retry(self) -> None:
        """What was set aside can be run again, unless its arguments are gone."""
        world, node = self.world, self._living().node
        for _ in range(3):
            for verb in ("retry", "skip"):
                await self._unless_refused(lambda verb=verb: node.queue_head(SERIAL, verb))
            await asyncio.sleep(3.0)
        name = await node.begin("retry", FailedFilter(all=True))
        async with asyncio.timeout(30.0):
            while (await node.operation(name, 1.0)).state not in ("done", "refused"):
                pass
        await asyncio.sleep(20.0)
        lost = [job for job in self._unfinished() if not self._accounted(job)]
        assert not lost, f"lost: {lost}; {world._describe()}"

    def _unfinished(self, but: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        ended = {run.job for run in self.world.runs if run.what == "end"}
        jobs = [job for bundle in self.world.invoked if bundle not in but for job in self.world.invoked[bundle]]
        return [job for job in jobs if job not in (*ended, CANCELLED) and not self._failed(job)]

    def _failed(self, job: str) -> bool:
        """In the failed set, or told to who waits that it will not run."""
        suffix = f"/{job.replace('/', '-')}".encode()
        return any(record.key.endswith(suffix) for record in self.world.records(KEYS.failed))

    def _accounted(self, job: str) -> bool:
        """A readable record of its bundle says of it that it waits, is done or is cancelled: whoever wrote that."""
        bundle = job.partition("/")[0]
        places = [
            record for prefix in (KEYS.jobs, KEYS.scheduled, KEYS.awaiting, KEYS.claims, KEYS.cancels)
            for record in self.world.records(prefix)
        ]
        return bundle in self.touched and (
            any(bundle.encode() in record.key and self._is_readable(record) for record in places)
            or self._was_overwritten(bundle)
        )

    @staticmethod
    def _is_readable(record: Record) -> bool:
        if record.key.startswith(KEYS.cancels):
            return KEYS.parse_cancel(record.key) is not None
        if record.key.startswith(KEYS.claims):
            return KEYS.parse_claim(record.key) is not None and claim_in(record.value) is not None
        return waiting_at(KEYS, record) is not None

    def _was_overwritten(self, bundle: str) -> bool:
        """By something that can be read: it may say that all is done, or that it is another's."""
        assert self.world.store.journal is not None
        for entry in self.world.store.journal:
            if entry.writer == "vandal":
                for change in entry.changes:
                    record = change.event.record
                    named = bundle.encode() in record.key
                    if named and (decode(Token, record.value) or record.key.startswith((KEYS.bodies, KEYS.failures))):
                        return True
        return False

    async def _rest(self) -> None:
        """Nothing goes round in circles."""
        self.requests = 0
        before = self.world.store.revision
        await asyncio.sleep(QUIET_S)
        written = self.world.store.revision - before
        assert self.requests < REQUESTS_MAX and written < 100, f"{self.requests} requests, {written} writes at rest"
        assert not self.world.broken, self.world.broken


def check(seed: int, kept: set[int]) -> None:
    async def main() -> None:
        await Fuzz(deeds_of(seed, kept)).run()

    run_virtual(main())


def fuzz(examples: int, *, derandomize: bool = False) -> None:
    """Raises what the smallest example raises, and prints that example."""
    options = settings(
        max_examples=examples, deadline=None, derandomize=derandomize, database=None, print_blob=False,
        phases=[phase for phase in Phase if phase is not Phase.explain], suppress_health_check=list(HealthCheck),
    )
    kept = st.sets(st.integers(0, DEEDS - 1), min_size=1, max_size=DEEDS)
    options(given(seed=st.integers(0, 2**64 - 1), kept=kept)(check))()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500)
    logging.disable(logging.CRITICAL)
    examples = parser.parse_args().examples
    fuzz(examples)
    print(f"{examples:,} examples, all well")


if __name__ == "__main__":
    main()
