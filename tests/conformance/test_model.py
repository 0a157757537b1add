"""Memory against etcd, step by step: Hypothesis thinks up what happens, both must answer alike.

Nobody else writes to this etcd, so even the revisions are equal: the store in memory starts at the one etcd is at.
`ROTA_MODEL_EXAMPLES` and `ROTA_MODEL_STEPS` make it look longer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rota.client import errors
from rota.cluster.ledger import memory
from rota.cluster.ledger.ledger import (
    OPS_MAX,
    Condition,
    Delete,
    Event,
    Get,
    Ledger,
    Op,
    Put,
    Record,
    Target,
    Txn,
    Watch,
    is_empty,
    prefix_end,
)
from rota.cluster.ledger.memory import MemoryLedger, MemoryStore

from .backends import ETCDS, TTL_MIN_S, Backend, start_backend

EXAMPLES = int(os.environ.get("ROTA_MODEL_EXAMPLES", "8"))
STEPS = int(os.environ.get("ROTA_MODEL_STEPS", "40"))
PATIENCE_S = 20.0
LONG_S = 86_400
KEYS = (b"/m/a", b"/m/b", b"/m/ba", b"/m/c", b"/m/d\xff", b"/m/e", b"/n")
T = TypeVar("T")

_leases = itertools.count(1000)


class Seen(msgspec.Struct, frozen=True):
    """An operand taken from the store at the time of the step: a number of a key, or the store's revision (key -1)."""

    key: int
    number: Literal["create_revision", "mod_revision", "version", "lease"]
    delta: int


class GuardPlan(msgspec.Struct, frozen=True):
    key: bytes
    range_end: bytes
    target: Target
    is_: str
    operand: int | bytes | Seen


class PutPlan(msgspec.Struct, frozen=True):
    key: bytes
    value: bytes
    lease: int      # 0: none; else the number of a lease of this example, granted or not


OpPlan = PutPlan | Delete | Get

keys = st.sampled_from(KEYS)
values = st.sampled_from([b"", b"1", b"2", b"\xff\0"])
range_ends = st.one_of(
    st.just(b""), st.just(b""), keys, st.just(b"\0"), st.sampled_from([prefix_end(b"/m/"), prefix_end(b"/m/b")])
)
deltas = st.sampled_from([0, 0, 0, -1, 1])
seen_numbers = st.builds(
    Seen,
    st.integers(-1, len(KEYS) - 1),
    st.sampled_from(["create_revision", "mod_revision", "version", "lease"]),
    deltas,
)
conditions = st.one_of(
    st.builds(
        GuardPlan, keys, range_ends, st.sampled_from([Target.CREATE, Target.MOD, Target.VERSION, Target.LEASE]),
        st.sampled_from(["==", "==", "!=", "<", ">"]), st.one_of(st.just(0), st.integers(1, 3), seen_numbers),
    ),
    st.builds(
        GuardPlan, keys, range_ends, st.just(Target.VALUE), st.sampled_from(["==", "!=", "<", ">"]), values
    ),
)
ops: st.SearchStrategy[OpPlan] = st.one_of(
    st.builds(PutPlan, keys, values, st.sampled_from([0, 0, 1, 1, 2, 3])),
    st.builds(PutPlan, keys, values, st.sampled_from([0, 1])),
    st.builds(Delete, keys, st.one_of(st.just(b""), range_ends)),
    st.builds(Get, keys, range_ends, st.booleans(), st.integers(0, 3)),
)
branches = st.lists(ops, max_size=4)
revisions = st.one_of(st.just(0), st.integers(-12, 1))
"""0: the newest; else how far from the newest (1: a future one)."""


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def wall(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s


class Pair:
    """The same watch on both sides, and what came of it."""

    def __init__(self, key: bytes, range_end: bytes, from_revision: int, ours: Watch, theirs: Watch) -> None:
        self.name = f"watch {key!r} .. {range_end!r} from {from_revision}"
        self.from_revision = from_revision
        self.ours, self.theirs = ours, theirs
        self.our_events: list[Event] = []
        self.their_events: list[Event] = []


class LedgerMachine(RuleBasedStateMachine):
    etcd: ClassVar[Ledger]
    loop: ClassVar[asyncio.AbstractEventLoop]
    steps: ClassVar[dict[str, int]]

    @initialize()
    def start(self) -> None:
        self.pairs: list[Pair] = []
        self.expired = False
        self.leases = [next(_leases) for _ in range(3)]
        self.clock = ManualClock()
        self.run(self._start())

    async def _start(self) -> None:
        await self.etcd.commit(Txn((), (Put(b"/x", b""),)))
        base = (await self.etcd.commit(Txn((), (Delete(b"\0", b"\0"),)))).revision
        await self.etcd.compact(base)
        self.base = base
        self.store = MemoryStore(self.clock, revision=base, lease_ttl_min_s=TTL_MIN_S)
        self.store.compact(base)
        self.memory = MemoryLedger(self.store)
        fill = Txn((), tuple(Put(key, b"0") for key in KEYS))
        for ledger in (self.memory, self.etcd):
            await ledger.commit(fill)
            for number in (0, 1):
                await ledger.grant(LONG_S + number, self.leases[number])

    @rule(conditions=st.lists(conditions, max_size=3), then=branches, orelse=branches)
    def transact(self, conditions: list[GuardPlan], then: list[OpPlan], orelse: list[OpPlan]) -> None:
        txn = Txn(
            tuple(self._guard(plan) for plan in conditions),
            tuple(self._op(plan) for plan in then),
            tuple(self._op(plan) for plan in orelse),
        )
        self.both("transact", lambda ledger: ledger.commit(txn))

    transact_more = transact        # rules are drawn with equal chances, and this is the one that matters

    @rule(plans=st.lists(st.builds(PutPlan, keys, values, st.sampled_from([0, 0, 1, 2])), min_size=1, max_size=3))
    def put(self, plans: list[PutPlan]) -> None:
        txn = Txn((), tuple(self._op(plan) for plan in {plan.key: plan for plan in plans}.values()))
        self.both("put", lambda ledger: ledger.commit(txn))

    @rule(
        kind=st.sampled_from(["put", "delete", "get", "condition"]), count=st.integers(OPS_MAX - 1, OPS_MAX + 1),
        elsewhere=st.booleans(),
    )
    def fill(self, kind: str, count: int, elsewhere: bool) -> None:
        names = [b"/m/fill/%03d" % i for i in range(count)]
        conditions = tuple(Condition(name, Target.CREATE, "==", 0) for name in names) if kind == "condition" else ()
        makers: dict[str, Callable[[bytes], Op]] = {"put": lambda name: Put(name, b""), "delete": Delete, "get": Get}
        many = tuple(makers[kind](name) for name in names) if kind in makers else ()
        txn = Txn(conditions, (), many) if elsewhere else Txn(conditions, many)
        self.both("fill", lambda ledger: ledger.commit(txn))

    @rule(
        key=keys, range_end=range_ends, limit=st.integers(0, 4), ago=revisions, keys_only=st.booleans(),
        serializable=st.booleans(), since=st.integers(0, 6),
    )
    def look(
        self, key: bytes, range_end: bytes, limit: int, ago: int, keys_only: bool, serializable: bool, since: int
    ) -> None:
        revision = self._revision(ago)
        min_mod_revision = max(self.store.revision + 1 - since, 0) if since else 0
        self.both(
            "read",
            lambda ledger: ledger.read(
                key, range_end, limit=limit, revision=revision, keys_only=keys_only, serializable=serializable,
                min_mod_revision=min_mod_revision,
            ),
        )

    @rule(limit=st.integers(1, 5), ago=st.integers(-12, 0))
    def pages(self, limit: int, ago: int) -> None:
        revision = max(self._revision(ago), self.store.keyspace.compacted) or self.store.revision

        async def all_pages(ledger: Ledger) -> list[Record]:
            found: list[Record] = []
            key = b"/m/"
            while True:
                page = await ledger.read(key, prefix_end(b"/m/"), limit=limit, revision=revision)
                found += page.records
                if not page.more:
                    return found
                key = page.records[-1].key + b"\0"

        self.both("pages", all_pages)

    @rule(number=st.integers(0, 2))
    def grant(self, number: int) -> None:
        self.both("grant", lambda ledger: ledger.grant(LONG_S + number, self.leases[number]))

    @rule(number=st.integers(0, 2))
    def keep_alive(self, number: int) -> None:
        self.both("keep_alive", lambda ledger: ledger.keep_alive(self.leases[number]))

    @rule(number=st.integers(0, 2), chance=st.integers(0, 2))
    def revoke(self, number: int, chance: int) -> None:
        if chance:
            return
        self.both("revoke", lambda ledger: ledger.revoke(self.leases[number]))
        self.both("what is left", lambda ledger: ledger.read(b"\0", b"\0"))
        self.both("grant", lambda ledger: ledger.grant(LONG_S, self.leases[number]))

    @precondition(lambda self: not self.expired)
    @rule(some=st.lists(keys, min_size=1, max_size=3, unique=True), chance=st.integers(0, 9))
    def expire(self, some: list[bytes], chance: int) -> None:
        """A lease of its own runs out. It takes a second, so that it is seldom done."""
        if chance:
            return
        self.expired = True
        lease = next(_leases)
        self.both("grant", lambda ledger: ledger.grant(TTL_MIN_S, lease))
        attach = Txn((), tuple(Put(key, b"leased", lease) for key in some))
        self.both("transact", lambda ledger: ledger.commit(attach))
        self.run(self._until_etcd_is_at(self.store.revision + 1))
        self.clock.now_s += 2 * TTL_MIN_S
        self.both("expire", lambda ledger: ledger.read(b"\0", b"\0"))

    @rule(key=keys, range_end=range_ends, ago=st.integers(-12, 1))
    def open_watch(self, key: bytes, range_end: bytes, ago: int) -> None:
        self._count("watch")
        revision = self.store.revision + ago
        compacted = self.store.keyspace.compacted
        if revision == compacted:
            revision += 1       # releases differ in whether a delete at this very revision is still told
        if revision < 1:
            return
        if revision < compacted or is_empty(key, range_end):
            self.both("watch refused", lambda ledger: self._first(ledger, key, range_end, revision))
        else:
            self.pairs.append(self.run(self._open(key, range_end, revision)))

    @precondition(lambda self: self.pairs)
    @rule(number=st.integers(0, 9))
    def close_watch(self, number: int) -> None:
        pair = self.pairs.pop(number % len(self.pairs))
        self.run(self._settle(pair))

    @rule(ago=st.integers(-8, 1), chance=st.integers(0, 2))
    def compact(self, ago: int, chance: int) -> None:
        """Not past what an open watch still needs (that race is etcd's own)."""
        if chance:
            return
        revision = self.store.revision + ago
        revision = min([revision, *(pair.from_revision - 1 for pair in self.pairs)])
        if revision >= 1:
            self.both("compact", lambda ledger: ledger.compact(revision))

    @rule()
    def look_at_the_revision(self) -> None:
        self.both("revision", lambda ledger: ledger.read(b"/nothing"))

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        self.look_at_the_revision()
        for pair in self.pairs:
            self.run(self._settle(pair))
        for lease in self.leases:
            self.run(self.etcd.revoke(lease))

    def run(self, action: Awaitable[T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(PATIENCE_S):
                return await action

        return self.loop.run_until_complete(limited())

    def both(self, name: str, action: Callable[[Ledger], Awaitable[Any]]) -> tuple[str, Any]:
        """Do the same on both sides and compare what came of it."""
        self._count(name)
        ours, theirs = self.run(outcome(action(self.memory))), self.run(outcome(action(self.etcd)))
        assert ours == theirs, f"{name}: in memory {ours}, etcd {theirs}"
        return ours

    def _count(self, name: str) -> None:
        self.steps[name] = self.steps.get(name, 0) + 1

    def _guard(self, plan: GuardPlan) -> Condition:
        operand = plan.operand
        if isinstance(operand, Seen):
            record = self.store.keyspace.get(KEYS[operand.key]) if operand.key >= 0 else None
            number = getattr(record, operand.number) if record else self.store.revision if operand.key < 0 else 0
            operand = int(number) + operand.delta
        return Condition(plan.key, plan.target, plan.is_, operand, plan.range_end)

    def _op(self, plan: OpPlan) -> Op:
        if isinstance(plan, PutPlan):
            return Put(plan.key, plan.value, self.leases[plan.lease - 1] if plan.lease else 0)
        return plan

    def _revision(self, ago: int) -> int:
        return 0 if ago == 0 else max(self.store.revision + ago, 1)

    async def _until_etcd_is_at(self, revision: int) -> None:
        while (await self.etcd.read(b"/nothing")).revision < revision:      # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)

    @staticmethod
    async def _first(ledger: Ledger, key: bytes, range_end: bytes, revision: int) -> Any:
        async with ledger.watch(key, range_end, from_revision=revision) as watch:
            return await anext(aiter(watch))

    async def _open(self, key: bytes, range_end: bytes, revision: int) -> Pair:
        ours = self.memory.watch(key, range_end, from_revision=revision)
        theirs = self.etcd.watch(key, range_end, from_revision=revision)
        await ours.__aenter__()
        await theirs.__aenter__()
        return Pair(key, range_end, revision, ours, theirs)

    async def _settle(self, pair: Pair) -> None:
        """Read both watches as far as the store has come, and compare."""
        reached = pair.from_revision - 1
        while reached < self.store.revision:
            changes = await anext(aiter(pair.ours))
            pair.our_events += changes.events
            reached = changes.revision
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S / 2):
                while len(pair.their_events) < len(pair.our_events):
                    pair.their_events += (await anext(aiter(pair.theirs))).events
        await pair.ours.__aexit__(None, None, None)
        await pair.theirs.__aexit__(None, None, None)
        assert pair.our_events == pair.their_events, pair.name


async def outcome(action: Awaitable[Any]) -> tuple[str, Any]:
    """What an action returned, or which error of ours it raised."""
    try:
        return "returned", await action
    except errors.LedgerError as error:
        kind = next(cls for cls in type(error).__mro__ if cls.__module__ == errors.__name__)
        return "raised", kind.__name__


@pytest.fixture
def dedicated(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with start_backend(request.param, tmp_path) as backend:
        yield backend


@pytest.mark.parametrize("dedicated", ETCDS, indirect=True)
def test_memory_answers_like_etcd(dedicated: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROGRESS_PERIOD_S", 0.001)

    async def open_etcd() -> Any:
        opened = dedicated.ledger()
        return opened, await opened.__aenter__()

    with asyncio.Runner() as runner:
        opened, ledger = runner.run(open_etcd())
        steps: dict[str, int] = {}
        machine = type("Machine", (LedgerMachine,), {"etcd": ledger, "loop": runner.get_loop(), "steps": steps})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, print_blob=True,
                    suppress_health_check=list(HealthCheck), verbosity=Verbosity.normal,
                ),
            )
        finally:
            runner.run(opened.__aexit__(None, None, None))
    print(f"{EXAMPLES} examples:", dict(sorted(steps.items())))
