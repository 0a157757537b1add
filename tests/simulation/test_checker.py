"""The checker finds what it is there to find: a small history written by hand, right first, then wrong in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest

from rota.client.model import Header, Level, ResultEntry, Results
from rota.client.wire.codec import encode_body, encode_results
from rota.cluster.ledger.commits import created, unmodified
from rota.cluster.ledger.ledger import Condition, Delete, Put, Record, Txn
from rota.cluster.ledger.memory_store import MemoryStore
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, FailedRecord, Member, ReceiptRecord, Token, claim_of, encode, token_of

from .checker import Checker
from .history import Order

CLUSTER = "c"
BUNDLE = "k3f9q2m7xa5t-00000001"
KEYS = Keys(CLUSTER)
RECEIPTS = 99


class Ran(NamedTuple):
    what: str
    at: float
    job: str
    node: str
    fence: int
    attempt: int = 1


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def wall(self) -> float:
        return 1_000_000.0 + self.now_s

    def monotonic(self) -> float:
        return self.now_s


class Script:
    """Writes a history as a cluster would, step by step. Each step returns the key it wrote."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock, journal=True)
        self.store.grant(3600, RECEIPTS)
        self.checker = Checker(CLUSTER, wall_of=lambda at: 1_000_000.0 + at, attempts_max=lambda task: 3)
        self.runs: list[Ran] = []
        self.orders: dict[str, Order] = {}

    def commit(self, conditions: tuple[Condition, ...], *ops: Put | Delete) -> int:
        result = self.store.commit(Txn(conditions, ops))
        assert result.succeeded
        return result.revision

    def get(self, key: bytes) -> Record:
        record = self.store.keyspace.get(key)
        assert record is not None, key
        return record

    def join(self, node: str, lease: int) -> None:
        self.store.grant(10, lease)
        member = Member("", ["*"], {"m:f": "sync"}, {"sync": 1}, "3.11", "0", 0.0)
        self.commit((created(KEYS.node(node), 0),), Put(KEYS.node(node), encode(member), lease))

    def stand(self, node: str, lease: int) -> None:
        self.commit((self.member(node),), Put(KEYS.candidate(lease), node.encode(), lease))

    def member(self, node: str) -> Condition:
        return created(KEYS.node(node), self.get(KEYS.node(node)).create_revision)

    def fence(self, lease: int = 1) -> Condition:
        return created(KEYS.candidate(lease), self.get(KEYS.candidate(lease)).create_revision)

    def enqueue(self, node: str = "n1", *, count: int = 2, due_ms: int = 0, receipt: bool = True) -> bytes:
        token = Token("m:f", "q", 0, 7, count, "sync", 0)
        place = KEYS.due(due_ms, "q", BUNDLE) if due_ms else KEYS.job("q", 0, 7, BUNDLE)
        ops = [Put(place, encode(token)), Put(KEYS.body(BUNDLE), body(range(count)))]
        if receipt:
            ops.append(Put(KEYS.receipt(BUNDLE), encode(ReceiptRecord("d", 7)), RECEIPTS))
        self.commit((self.member(node),), *ops)
        return place

    def begin(self, node: str = "n1", *, level: Level = "delayed") -> bytes:
        """Enqueue a bundle of one with its own claim; its job has been started before."""
        self.orders[BUNDLE] = Order(task="m:f", level=level, asked={node.partition("-")[0]: 0.0})
        self.runs.append(Ran("start", self.clock.now_s, f"{BUNDLE}/0", node, 0))
        self.clock.now_s += 1
        key = KEYS.claim(node, BUNDLE)
        token = Token("m:f", "q", 0, 7, 1, "sync", 0)
        self.commit(
            (self.member(node),), Put(key, encode(claim_of(token, 0))), Put(KEYS.body(BUNDLE), body(range(1))),
            Put(KEYS.receipt(BUNDLE), encode(ReceiptRecord("d", 7)), RECEIPTS),
        )
        return key

    def claim(self, place: bytes, node: str = "n1", *, fence: Condition | None = None, **changes: object) -> bytes:
        record = self.get(place)
        fence = fence or self.fence()
        assert isinstance(fence.operand, int)
        claim = claim_of(msgspec.json.decode(record.value, type=Token), fence.operand)
        key = KEYS.claim(node, BUNDLE)
        claim = msgspec.structs.replace(claim, **changes)
        self.commit((fence, unmodified(place, record.mod_revision)), Delete(place), Put(key, encode(claim)))
        return key

    def claimed(self, key: bytes) -> tuple[Record, Claim]:
        record = self.get(key)
        return record, msgspec.json.decode(record.value, type=Claim)

    def hold(self, key: bytes, node: str = "n1") -> tuple[Condition, Condition]:
        return self.member(node), unmodified(key, self.get(key).mod_revision)

    def update(self, key: bytes, conditions: tuple[Condition, ...] | None = None, **changes: object) -> None:
        claim = msgspec.structs.replace(self.claimed(key)[1], **changes)
        self.commit(conditions or self.hold(key), Put(key, encode(claim)))

    def run(self, key: bytes, *indexes: int, node: str = "n1") -> None:
        fence = self.get(key).create_revision
        for index in indexes:
            for what in ("start", "end"):
                attempt = self.claimed(key)[1].attempt
                self.runs.append(Ran(what, self.clock.now_s, f"{BUNDLE}/{index}", node, fence, attempt))

    def end(
        self, key: bytes, *ok: int, conditions: tuple[Condition, ...] | None = None, more: tuple[Put, ...] = ()
    ) -> None:
        self.commit(
            conditions or self.hold(key), Delete(key), Delete(KEYS.body(BUNDLE)), *([result(*ok)] if ok else []), *more
        )

    def back(self, key: bytes, conditions: tuple[Condition, ...] | None = None, **changes: object) -> bytes:
        token = msgspec.structs.replace(token_of(self.claimed(key)[1]), **changes)
        place = KEYS.job(token.queue, token.priority, token.order, BUNDLE)
        self.commit(conditions or self.hold(key), Delete(key), Put(place, encode(token)))
        return place

    def taken(self, key: bytes, node: str = "n1", **changes: object) -> bytes:
        """By the master, once the node is gone."""
        gone = (self.fence(), created(KEYS.node(node), 0), unmodified(key, self.get(key).mod_revision))
        return self.back(key, gone, **changes)

    def retry(
        self, key: bytes, attempt: int = 2, conditions: tuple[Condition, ...] | None = None, **changes: object
    ) -> bytes:
        token = msgspec.structs.replace(token_of(self.claimed(key)[1]), attempt=attempt, **changes)
        place = KEYS.due(1_000_000_000, "q", BUNDLE)
        self.commit(conditions or self.hold(key), Delete(key), Put(place, encode(token)))
        return place

    def put_off(self, key: bytes, **changes: object) -> bytes:
        """By the master, once the node is gone: the orphan waits."""
        gone = (self.fence(), created(KEYS.node("n1"), 0), unmodified(key, self.get(key).mod_revision))
        return self.retry(key, conditions=gone, **({"attempt": 1, "orphanings": 1} | changes))  # type: ignore[arg-type]

    def due(self, place: bytes) -> bytes:
        record = self.get(place)
        token = msgspec.json.decode(record.value, type=Token)
        there = KEYS.job("q", 0, token.order, BUNDLE)
        self.commit((self.fence(), unmodified(place, record.mod_revision)), Delete(place), Put(there, record.value))
        return there

    def rules(self, *, drained: bool = False, quiet: bool = False) -> set[str]:
        assert self.store.journal is not None
        self.checker.feed(self.store.journal)
        found = self.checker.finish(
            acked={BUNDLE}, invoked={BUNDLE}, runs=self.runs, drained=drained, quiet=quiet, orders=self.orders
        )
        return {violation.rule for violation in found}


def body(indexes: range) -> bytes:
    header = Header(BUNDLE, "m:f", "q", "sync", list(indexes), [1] * len(indexes), 0.0)
    return encode_body(header, [b"x"] * len(indexes))


def result(*ok: int) -> Put:
    entries = [ResultEntry(index, "ok") for index in ok]
    return Put(KEYS.result(BUNDLE, ok[0], 1), encode_results(Results(BUNDLE, entries)), RECEIPTS)


@pytest.fixture
def script() -> Script:
    """A master m, and a member n1."""
    script = Script()
    script.join("m", 1)
    script.join("n1", 2)
    script.join("n2", 3)
    script.stand("m", 1)
    return script


def test_a_life(script: Script) -> None:
    """Enqueued late, handed back, retried, orphaned, and done: nothing is wrong with it."""
    place = script.enqueue(due_ms=1_000_000_000)
    script.clock.now_s += 1
    key = script.claim(script.due(place))
    key = script.claim(script.back(key))
    script.run(key, 0, 1)
    script.update(key, done="1")
    key = script.claim(script.due(script.retry(key)))
    script.store.end_lease(2)
    place = script.taken(key, orphanings=1)
    key = script.claim(place, "n2", orphanings=1)
    script.update(key, (script.member("n2"), script.hold(key, "n2")[1]), started=True)
    script.run(key, 1, node="n2")
    script.end(key, 1, conditions=script.hold(key, "n2"))
    assert script.rules(drained=True) == set(), script.checker.violations


def test_a_quiet_life(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.run(key, 0, 1)
    script.end(key, 0, 1)
    assert script.rules(drained=True, quiet=True) == set(), script.checker.violations


def test_a_life_that_began_before_it_was_stored(script: Script) -> None:
    key = script.begin()
    script.runs.append(Ran("end", 1.0, f"{BUNDLE}/0", "n1", 0))
    script.end(key, 0)
    assert script.rules(drained=True, quiet=True) == set(), script.checker.violations


def test_a_start_that_was_never_stored_counts_for_nothing(script: Script) -> None:
    """Begun at n2, which was asked again after n1 had it; and again there, after it had said that it could not."""
    key = script.begin()
    script.orders[BUNDLE].asked["n2"] = 0.0
    script.orders[BUNDLE].overloads["n2"] = 1
    script.runs += [Ran("start", 1.0, f"{BUNDLE}/0", "n2", 0)] * 2
    script.runs.append(Ran("end", 1.0, f"{BUNDLE}/0", "n1", 0))
    script.end(key, 0)
    assert script.rules(drained=True) == set(), script.checker.violations


def test_an_orphan_that_waits(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.store.end_lease(2)
    key = script.claim(script.due(script.put_off(key)), "n2")
    script.run(key, 0, 1, node="n2")
    script.end(key, 0, 1, conditions=script.hold(key, "n2"))
    assert script.rules(drained=True) == set(), script.checker.violations


Wrong = Callable[[Script], object]


def _vanished(script: Script) -> None:
    place = script.enqueue()
    script.commit((script.fence(), unmodified(place, script.get(place).mod_revision)), Delete(place),
                  Delete(KEYS.body(BUNDLE)))


def _doubled(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.commit(script.hold(key), Put(KEYS.job("q", 0, 7, BUNDLE), encode(token_of(script.claimed(key)[1]))))


def _two_claims(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.commit((script.fence(),), Put(KEYS.claim("n2", BUNDLE), script.get(key).value))


def _bodiless(script: Script) -> None:
    script.enqueue()
    script.commit((script.member("n1"),), Delete(KEYS.body(BUNDLE)))


def _enqueued_twice(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.end(key, 0, 1)
    script.store.end_lease(RECEIPTS)
    script.store.grant(3600, RECEIPTS)
    script.enqueue()


def _foreign_fence(script: Script) -> None:
    script.stand("n2", 3)
    script.claim(script.enqueue(), fence=script.fence(3))


def _old_fence(script: Script) -> None:
    """The store would not let it pass: this entry of the journal is forged."""
    script.stand("n2", 3)
    old = script.fence()
    place = script.enqueue()
    script.commit((old,), Delete(KEYS.candidate(1)))
    place = script.back(script.claim(place, fence=script.fence(3)))
    script.claim(place, fence=script.fence(3))
    assert script.store.journal is not None
    entry = script.store.journal[-1]
    assert entry.txn is not None
    forged = msgspec.structs.replace(entry.txn, conditions=(old, *entry.txn.conditions[1:]))
    script.store.journal[-1] = msgspec.structs.replace(entry, txn=forged)


def _for_a_stranger(script: Script) -> None:
    script.claim(script.enqueue(), "n9")


def _from_the_living(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.back(key, (script.fence(), unmodified(key, script.get(key).mod_revision)), orphanings=1)


def _unguarded_outcome(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.end(key, 0, 1, conditions=(script.member("n1"),))


def _outcome_of_another(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.end(key, 0, 1, conditions=script.hold(key, "n2"))


def _back_after_its_end(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.update(key, done="1")
    script.update(key, done="")


def _second_result(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.commit(script.hold(key), Put(key, encode(msgspec.structs.replace(script.claimed(key)[1], done="1"))),
                  result(0))
    script.end(key, 0, 1)


def _failed_and_well(script: Script) -> None:
    key = script.claim(script.enqueue())
    failed = FailedRecord(f"{BUNDLE}/0", "m:f", "q", "no", 1, "n1", 0.0)
    script.end(key, 0, 1, more=(Put(KEYS.failed_job("q", BUNDLE, 0), encode(failed)),))


def _attempts_jump(script: Script) -> None:
    script.retry(script.claim(script.enqueue()), attempt=3)


def _too_many_attempts(script: Script) -> None:
    place = script.enqueue()
    for attempt in (2, 3, 4):
        place = script.due(script.retry(script.claim(place), attempt))


def _mode_changes(script: Script) -> None:
    script.claim(script.enqueue(), mode="async")


def _loss_not_counted(script: Script) -> None:
    key = script.claim(script.enqueue(count=1), started=True)
    script.store.end_lease(2)
    script.taken(key, orphanings=1)


def _ran_without_a_claim(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.runs.append(Ran("start", 0.0, f"{BUNDLE}/0", "n1", script.get(key).create_revision - 1))


def _ran_elsewhere(script: Script) -> None:
    script.run(script.claim(script.enqueue()), 0, node="n2")


def _ran_twice(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.run(key, 0)
    script.run(key, 0)


def _never_ran(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.run(key, 0)
    script.end(key, 0, 1)


def _early(script: Script) -> None:
    script.due(script.enqueue(due_ms=1_000_005_000))


def _leased(script: Script) -> None:
    script.commit((), Put(KEYS.queue("q"), b"{}", RECEIPTS))


def _unleased(script: Script) -> None:
    script.commit((), Put(KEYS.node("n7"), b"{}"))


def _elsewhere(script: Script) -> None:
    script.commit((), Put(b"/rota/other/jobs/x", b""))


def _moved_unguarded(script: Script) -> None:
    place = script.enqueue()
    record = script.get(place)
    fence = script.fence()
    assert isinstance(fence.operand, int)
    claim = claim_of(msgspec.json.decode(record.value, type=Token), fence.operand)
    script.commit((fence,), Delete(place), Put(KEYS.claim("n1", BUNDLE), encode(claim)))


def _repeatable(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.update(key, (script.member("n1"), created(key, script.get(key).create_revision)), done="1")


def _durable_began_before_its_claim(script: Script) -> None:
    script.begin(level="durable")


def _stored_though_in_memory(script: Script) -> None:
    script.enqueue()
    script.orders[BUNDLE] = Order(task="m:f", level="none")


def _began_unasked(script: Script) -> None:
    script.begin()
    script.runs.append(Ran("start", 1.0, f"{BUNDLE}/0", "n2", 0))


def _durable_began_early(script: Script) -> None:
    script.enqueue()
    script.orders[BUNDLE] = Order(task="m:f", asked={"n1": 0.0})
    script.runs.append(Ran("start", 1.0, f"{BUNDLE}/0", "n1", 0))


def _began_twice(script: Script) -> None:
    key = script.begin()
    script.runs.append(Ran("start", 1.0, f"{BUNDLE}/0", "n1", script.get(key).create_revision))


def _ended_by_another(script: Script) -> None:
    """It ran to its end at a node whose claim never came to be."""
    key = script.begin()
    script.orders[BUNDLE].asked["n2"] = 0.0
    script.runs += [Ran(what, 1.0, f"{BUNDLE}/0", "n2", 0) for what in ("start", "end")]
    script.end(key, 0)


def _refused_though_stored(script: Script) -> None:
    script.begin()
    script.orders[BUNDLE].refused_at = script.store.revision


def _wrong_attempt(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.runs.append(Ran("start", 0.0, f"{BUNDLE}/0", "n1", script.get(key).create_revision, 2))


def _orphan_pays(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.store.end_lease(2)
    script.put_off(key, attempt=2)


def _orphan_not_counted(script: Script) -> None:
    key = script.claim(script.enqueue())
    script.store.end_lease(2)
    script.put_off(key, orphanings=0)


def _cancelled_by_the_master(script: Script) -> None:
    place = script.enqueue(count=1)
    told = Put(KEYS.result(BUNDLE, 0, 1), encode_results(Results(BUNDLE, [ResultEntry(0, "cancelled")])), RECEIPTS)
    at = unmodified(place, script.get(place).mod_revision)
    script.commit((script.fence(), at), Delete(place), Delete(KEYS.body(BUNDLE)), told)


def _began_after_its_claim(script: Script) -> None:
    key = script.claim(script.enqueue(count=1))
    fence, attempt = script.get(key).create_revision, script.claimed(key)[1].attempt
    script.clock.now_s += 1
    script.back(key)
    script.runs.append(Ran("start", script.clock.now_s + 1, f"{BUNDLE}/0", "n1", fence, attempt))


def _lost_acknowledgement(script: Script) -> None:
    return


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("S1", _vanished), ("S1", _doubled), ("S1", _bodiless), ("S1", _lost_acknowledgement),
        ("S2", lambda script: script.enqueue(receipt=False)),
        ("S3", _enqueued_twice), ("S4", _two_claims), ("S5", _foreign_fence), ("S6", _old_fence),
        ("S7", _for_a_stranger), ("S8", _from_the_living), ("S9", _unguarded_outcome), ("S9", _outcome_of_another),
        ("S10", _back_after_its_end), ("S10", _second_result), ("S10", _failed_and_well), ("S11", _attempts_jump),
        ("S11", _too_many_attempts), ("S11", _loss_not_counted), ("S11", _mode_changes), ("S12", _ran_without_a_claim),
        ("S12", _ran_elsewhere), ("S13", _ran_twice), ("S14", _never_ran), ("S16", _early), ("S18", _leased),
        ("S18", _unleased), ("S19", _elsewhere), ("R2", _moved_unguarded), ("R7", _repeatable),
        ("S2", _stored_though_in_memory), ("S12", _durable_began_before_its_claim), ("S11", _wrong_attempt),
        ("S11", _orphan_pays), ("S11", _orphan_not_counted), ("S12", _began_unasked), ("S12", _durable_began_early),
        ("S13", _began_twice), ("S14", _ended_by_another), ("S21", _refused_though_stored),
        ("S20", _cancelled_by_the_master), ("S12", _began_after_its_claim),
    ],
)
def test_it_finds(script: Script, rule: str, wrong: Wrong) -> None:
    wrong(script)
    assert rule in script.rules(), script.checker.violations


def test_what_must_have_ended(script: Script) -> None:
    script.claim(script.enqueue())
    assert script.rules() == set()
    assert script.rules(drained=True) == {"S1"}


def test_an_acknowledgement_before_its_time(script: Script) -> None:
    script.enqueue()
    script.checker.feed(script.store.journal or [])
    found = script.checker.finish(acked_at={BUNDLE: script.store.revision - 1})
    assert [violation.rule for violation in found] == ["S21"]
    assert "acknowledged" in str(found[0])


def test_a_bundle_of_nobody(script: Script) -> None:
    script.enqueue()
    script.checker.feed(script.store.journal or [])
    assert [violation.rule for violation in script.checker.finish(invoked=())] == ["S2"]


def test_a_mode_may_change_where_nodes_have_different_code(script: Script) -> None:
    script.checker = Checker(CLUSTER, modes_change=True)
    _mode_changes(script)
    assert script.rules() == set(), script.checker.violations
