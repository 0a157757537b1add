"""Keys, stores that stall, and hands on records: one trouble at a time, with production nodes in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from rota.client.errors import LedgerDenied, LedgerUnavailable
from rota.client.ids import bundle_id, new_session
from rota.client.model import HEADER_SCHEMA, Enqueue, Header, Level, Receipt, ResultEntry, Results
from rota.client.wire.codec import decode_header, encode_body, encode_results, function_digest, payloads
from rota.client.wire.keyring import UNSIGNED, Keyring
from rota.client.wire.views import FailedFilter
from rota.cluster.ledger.ledger import Delete, Get, Page, Put, Txn, TxnResult
from rota.cluster.node.bodies.cache import BodyCache
from rota.cluster.state.quarantine import ADVICE
from rota.cluster.state.records import FailedRecord, Failure, Member, Token, decode, encode, failure_in
from rota.cluster.state.words import NOT_OURS

from .damage import exorcise, phantom
from .loop import run_virtual
from .plans import CLUSTER, QUIET, SERIAL, TASKS
from .process import Process
from .trust import HAND, KeyringBefore
from .world import World

SESSION = new_session(lambda count: bytes(range(count)))
BUNDLE = bundle_id(SESSION, 0)
CODE = b"code"
OLD, NEW = {"old": b"o" * 32}, {"new": b"n" * 32}
OTHER_OLD = {"old": b"x" * 32}


def order(
    keyring: Keyring, bundle: str = BUNDLE, count: int = 2, queue: str = "q2", task: str = "m:async", *,
    level: Level = "durable", code: bytes = b"", whole: bool = False,
) -> Enqueue:
    header = Header(
        bundle, task, queue, TASKS[task].mode, list(range(count)), [1] * count, 0.0,
        function=function_digest(code) if code else "", python="3.11" if code else "", v=HEADER_SCHEMA,
    )
    body = encode_body(keyring.sign(header, [b"x"] * count, CLUSTER, whole=whole), [b"x"] * count)
    return Enqueue(
        bundle, task, queue, count, header.mode, body, level=level, function=header.function, python=header.python
    )


Deed = Callable[..., Awaitable[None]]


def play(keyrings: list[Keyring], deed: Deed) -> tuple[World, list[tuple[str, str]]]:
    """Do something to a cluster; returns which jobs were started, and by whom, once nothing runs or waits."""
    async def main() -> tuple[World, list[tuple[str, str]]]:
        world = World(1, QUIET)
        async with asyncio.TaskGroup() as world.group:
            world.prepare()
            processes = [world.add_process(keyring) for keyring in keyrings]
            await world.until(world.all_are_ready, 10.0, "they join")
            await deed(world, *processes)
            await world.until(world.is_empty, 30.0, "all has ended")
            await asyncio.gather(*(process.leave() for process in world.processes))
        return world, sorted((run.job, run.node.partition("-")[0]) for run in world.runs if run.what == "start")

    return run_virtual(main())


async def take(process: Process, *bundles: Enqueue) -> None:
    for answer in await process.node.enqueue(list(bundles), 0):
        assert isinstance(answer, Receipt), answer


async def retry(process: Process, which: FailedFilter) -> int:
    """How many failed jobs were put back."""
    operation = await process.node.begin("retry", which)
    return (await process.node.operation(operation, 10.0)).count


def failed(world: World) -> dict[str, FailedRecord]:
    records = [decode(FailedRecord, record.value) for record in world.records(world.keys.failed)]
    return {record.id: record for record in records if record is not None}


def left_over(world: World) -> list[bytes]:
    """Bytes of jobs that no token and no failed record stands for."""
    return [record.key for record in world.records(world.keys.bodies)]


def test_jobs_wait_for_a_node_with_their_key() -> None:
    async def deed(world: World, new: Process, old: Process) -> None:
        names = [bundle_id(SESSION, number) for number in range(20)]
        await take(new, *(order(Keyring(NEW), name) for name in names))

    world, runs = play([Keyring(OLD | NEW), Keyring(OLD)], deed)
    assert len(runs) == 40 and {node for _, node in runs} == {"n0"}
    assert not failed(world) and not left_over(world)


def test_a_job_that_nobody_can_verify_waits_and_says_so() -> None:
    async def deed(world: World, old: Process) -> None:
        await take(old, order(Keyring(OLD), queue="q1"))
        await old.leave()
        new = world.add_process(Keyring(NEW))
        await world.until(lambda: new.node.why_not_ready() is None, 20.0, "it joins")
        await asyncio.sleep(2.0)
        view = await new.node.job(f"{BUNDLE}/0")
        assert view.place == "waiting" and "old#" in view.why and not failed(world)
        back = world.add_process(Keyring(OLD))
        await world.until(lambda: back.node.why_not_ready() is None, 20.0, "it joins")

    _, runs = play([Keyring(OLD)], deed)
    assert {node for _, node in runs} == {"n2"}


@pytest.mark.parametrize("other", [Keyring(NEW), Keyring(OTHER_OLD), UNSIGNED])
def test_a_claim_that_a_node_cannot_verify_goes_back(other: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """A master of the release before does not look at keys."""
    monkeypatch.setattr("rota.cluster.state.records.Member.can_verify", lambda self, signed: True)

    async def deed(world: World, right: Process, wrong: Process) -> None:
        await take(right, *(order(Keyring(OLD), bundle_id(SESSION, number)) for number in range(6)))

    world, runs = play([Keyring(OLD), other], deed)
    assert len(runs) == 12 and {node for _, node in runs} == {"n0"}
    assert not failed(world) and not left_over(world)


def test_what_the_release_before_enqueued_finds_its_node() -> None:
    """Its tokens say nothing of keys: the node that cannot verify one says it for them, and is not asked again."""
    async def deed(world: World, before: Process, new: Process) -> None:
        await take(before, *(order(Keyring(OLD), bundle_id(SESSION, number)) for number in range(4)))
        await before.leave()
        old = world.add_process(Keyring(OLD))
        await world.until(lambda: old.node.why_not_ready() is None, 20.0, "it joins")

    world, runs = play([KeyringBefore(OLD), Keyring(NEW)], deed)
    assert not failed(world) and not left_over(world)
    claims = [
        change.event.record.key for entry in world.store.journal or () for change in entry.changes
        if change.event.record.key.startswith(world.keys.claims + b"n1-") and change.previous is None
    ]
    assert 1 <= len(claims) <= 4 and {node for _, node in runs} <= {"n0", "n2"}


def test_unsigned_jobs_do_not_end_where_jobs_are_signed() -> None:
    async def deed(world: World, keyless: Process, signed: Process) -> None:
        await keyless.node.set_queue("q2", {"paused": True})
        await take(keyless, order(UNSIGNED))
        await keyless.node.set_queue("q2", {"paused": False})

    world, runs = play([UNSIGNED, Keyring(OLD)], deed)
    assert {node for _, node in runs} == {"n0"} and not failed(world)


# -- stores that stall -----------------------------------------------------------------------------------------------


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that read every body from the store."""
    monkeypatch.setattr(BodyCache, "put", lambda self, bundle, body: None)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("fault", [LedgerUnavailable, LedgerDenied])
@pytest.mark.parametrize("what", ["bodies", "functions"])
def test_a_store_that_stalls_says_nothing_about_a_job(
    what: str, fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = 0

    async def deed(world: World, process: Process) -> None:
        inner, until, prefix = process.ledger.inner, world.clock.monotonic() + 10.0, getattr(world.keys, what)
        read, commit = inner.read, inner.commit

        def stall(key: bytes) -> None:
            nonlocal stalled
            if key.startswith(prefix) and world.clock.monotonic() < until:
                stalled += 1
                raise fault("simulated: it stalls")

        async def slow_read(key: bytes, *bounds: bytes, **options: Any) -> Page:
            stall(key)
            return await read(key, *bounds, **options)

        async def slow_commit(txn: Txn) -> TxnResult:
            for op in txn.then:
                if isinstance(op, Get):
                    stall(op.key)
            return await commit(txn)

        monkeypatch.setattr(inner, "read", slow_read)
        monkeypatch.setattr(inner, "commit", slow_commit)
        await process.node.put_function(function_digest(CODE), Keyring(OLD).sign_function(CODE, CLUSTER, "3.11"))
        await take(process, order(Keyring(OLD), code=CODE))

    world, runs = play([Keyring(OLD)], deed)
    assert stalled > 1 and not failed(world)
    assert [job for job, _ in runs] == [f"{BUNDLE}/0", f"{BUNDLE}/1"]


# -- hands on records ------------------------------------------------------------------------------------------------


def told(world: World, bundle: str) -> dict[int, str]:
    """What is signed about a bundle, by index: its error, or its status."""
    found: dict[int, str] = {}
    for record in world.records(world.keys.bundle_results(bundle)):
        results = Keyring(OLD).verify_results(record.value, CLUSTER)
        assert results.bundle == bundle
        found |= {entry.index: entry.error or entry.status for entry in results.entries}
    return found


async def lay_hand(world: World, process: Process, change: Callable[[], None], *bundles: Enqueue) -> None:
    """Enqueue, and have somebody change records before the jobs are given out."""
    await process.node.set_queue("q2", {"paused": True})
    await take(process, *bundles)
    change()
    await process.node.set_queue("q2", {"paused": False})


def put(world: World, key: bytes, value: bytes) -> None:
    world.store.commit(Txn((), (Put(key, value),)), HAND)


@pytest.mark.usefixtures("forgetful")
def test_a_body_under_another_name_is_not_run() -> None:
    """Its signature is good. Nothing is signed under the victim's name but that it could not be run."""
    first, second = order(Keyring(OLD)), order(Keyring(OLD), bundle_id(SESSION, 1))

    async def deed(world: World, process: Process) -> None:
        def change() -> None:
            put(world, world.keys.body(first.bundle), second.body)

        await lay_hand(world, process, change, first, second)

    world, runs = play([Keyring(OLD)], deed)
    assert [job for job, _ in runs] == [f"{second.bundle}/0", f"{second.bundle}/1"]
    assert {id: (record.reason, record.queue) for id, record in failed(world).items()} == {
        f"{BUNDLE}/{index}": ("another's body", "q2") for index in (0, 1)
    }
    assert told(world, BUNDLE) == dict.fromkeys((0, 1), ADVICE["another's body"])
    assert told(world, second.bundle) == {0: "ok", 1: "ok"} and not left_over(world)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("changes", [
    {"task": "m:sync"}, {"function": "f" * 64}, {"python": "3.12"}, {"count": 1}, {"priority": 5}, {"key": "ann"},
])
def test_a_token_that_says_something_else_than_its_body_is_not_run(
    changes: dict[str, Any], cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cached:
        monkeypatch.setattr(BodyCache, "put", lambda self, bundle, body: None)

    async def deed(world: World, process: Process) -> None:
        def change() -> None:
            (record,) = world.records(world.keys.queue_jobs("q2"))
            token = decode(Token, record.value)
            assert token is not None
            put(world, record.key, encode(msgspec.structs.replace(token, **changes)))

        monkeypatch.setattr(Member, "mode_of", lambda self, lane: "async")      # else nobody might be given it
        await lay_hand(world, process, change, order(Keyring(OLD)))

    world, runs = play([Keyring(OLD)], deed)
    assert not runs
    assert {record.reason for record in failed(world).values()} == {"another's body"}
    assert 0 in told(world, BUNDLE) and not left_over(world)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("changes", "why"), [({"function": "f" * 64}, ""), ({"python": "3.12"}, "3.12")])
def test_a_token_of_code_that_nobody_has_waits_and_says_why(
    changes: dict[str, Any], why: str, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does without anybody's hand on it: it is neither run nor set aside, and goes on once it says what is so."""
    if not cached:
        monkeypatch.setattr(BodyCache, "put", lambda self, bundle, body: None)

    async def deed(world: World, process: Process) -> None:
        await process.node.set_queue("q2", {"paused": True})
        await take(process, order(Keyring(OLD)))
        (record,) = world.records(world.keys.queue_jobs("q2"))
        token = decode(Token, record.value)
        assert token is not None
        put(world, record.key, encode(msgspec.structs.replace(token, **changes)))
        await process.node.set_queue("q2", {"paused": False})
        await asyncio.sleep(2.0)
        view = await process.node.job(f"{BUNDLE}/0")
        assert view.place == "waiting" and f"Python {why}" in view.why, view
        assert not failed(world) and not world.runs
        put(world, record.key, record.value)

    world, runs = play([Keyring(OLD)], deed)
    assert [job for job, _ in runs] == [f"{BUNDLE}/0", f"{BUNDLE}/1"] and not failed(world)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(("body", "reason"), [
    (b"garbage", "body unreadable"), (None, "body missing"), (b"tampered", "bad signature"),
])
def test_a_damaged_body_is_set_aside_and_who_waits_is_told(body: bytes | None, reason: str) -> None:
    wish = order(Keyring(OLD))

    async def deed(world: World, process: Process) -> None:
        def change() -> None:
            key = world.keys.body(BUNDLE)
            value = wish.body[:-1] + b"y" if body == b"tampered" else body
            world.store.commit(Txn((), (Delete(key) if value is None else Put(key, value),)), HAND)

        await lay_hand(world, process, change, wish)

    world, runs = play([Keyring(OLD)], deed)
    assert not runs and not left_over(world)
    assert {(id, record.reason, record.queue) for id, record in failed(world).items()} == {
        (f"{BUNDLE}/{index}", reason, "q2") for index in (0, 1)
    }
    assert told(world, BUNDLE) == dict.fromkeys((0, 1), ADVICE[reason])


def test_of_what_was_signed_together_nothing_runs_if_one_is_changed() -> None:
    """Each is set aside, with its arguments as they are; nobody can tell which of them it was, so a retry of any of
    them finds what this one found. Made whole, they run."""
    wish = order(Keyring(OLD), count=3, whole=True)

    async def deed(world: World, process: Process) -> None:
        await process.node.set_queue("q2", {"paused": True})
        await take(process, wish)
        put(world, world.keys.body(BUNDLE), wish.body[:-1] + b"y")
        process.engine._parts.cache.take(BUNDLE)
        await process.node.set_queue("q2", {"paused": False})
        for number in range(2):
            await world.until(lambda: bool(world.runs) or len(failed(world)) == 3, 20.0, "it is set aside")
            assert not world.runs, "what nobody has signed has run"
            assert {record.reason for record in failed(world).values()} == {"bad signature"} and not left_over(world)
            assert told(world, BUNDLE) == dict.fromkeys((0, 1, 2), ADVICE["bad signature"])
            bodies = [failure_in(record.value).body for record in world.records(world.keys.failures)]
            assert [payloads(body) for body in bodies] == [[b"x"], [b"x"], [b"y"]]
            if not number:
                assert await retry(process, FailedFilter(ids=[f"{BUNDLE}/0"])) == 1
        for record in world.records(world.keys.failures):
            failure = failure_in(record.value)
            (index,) = decode_header(failure.body)[0].indexes
            good = Keyring(OLD).slices(wish.body, [[index]], CLUSTER)[0]
            put(world, record.key, msgspec.msgpack.encode(msgspec.structs.replace(failure, body=good)))
        assert await retry(process, FailedFilter(all=True)) == 3

    world, runs = play([Keyring(OLD)], deed)
    assert [job for job, _ in runs] == [f"{BUNDLE}/{index}" for index in range(3)] and not failed(world)


def test_a_master_without_its_key_takes_a_bundle_apart_and_others_run_it() -> None:
    """The jobs of a node that is lost go back one by one; who has lost it left them, and none is lost."""
    async def deed(world: World, old: Process, new: Process) -> None:
        for index in range(3):
            world.script(f"{BUNDLE}/{index}", 5.0)
        await take(new, order(Keyring(NEW), count=3, whole=True))
        await world.until(lambda: len(world.runs) == 3, 20.0, "they run")
        await new.die(guard=True)
        again = world.add_process(Keyring(OLD | NEW))
        await world.until(lambda: again.node.why_not_ready() is None, 20.0, "it joins")
        await world.until(lambda: len(world.records(world.keys.bodies)) == 3, 20.0, "they are taken apart")
        headers = [decode_header(record.value)[0] for record in world.records(world.keys.bodies)]
        assert sorted((header.indexes, header.only) for header in headers) == [([job], [job]) for job in range(3)]

    world, runs = play([Keyring(OLD), Keyring(NEW)], deed)
    assert {job for job, node in runs if node == "n2"} == {f"{BUNDLE}/{index}" for index in range(3)}
    assert not failed(world) and not left_over(world)


@pytest.mark.parametrize("place", ["jobs", "scheduled", "claims"])
def test_a_token_that_cannot_be_read_is_set_aside_and_can_be_retried_job_by_job(place: str) -> None:
    async def deed(world: World, process: Process) -> None:
        keys = world.keys

        def change() -> None:
            (record,) = world.records(keys.queue_jobs("q2"))
            where = {
                "jobs": record.key, "scheduled": keys.due(1, "q2", BUNDLE),
                "claims": keys.claim(process.node.node, BUNDLE),
            }[place]
            world.store.commit(Txn((), tuple({
                record.key: Delete(record.key), where: Put(where, b"\xff no token")
            }.values())), HAND)

        await lay_hand(world, process, change, order(Keyring(OLD)))
        await world.until(lambda: len(failed(world)) == 2, 20.0, "it is set aside")
        assert {record.queue for record in failed(world).values()} == {"q2"} and not left_over(world)
        assert told(world, BUNDLE) == dict.fromkeys((0, 1), ADVICE["unreadable"])
        assert await retry(process, FailedFilter(ids=[f"{BUNDLE}/1"])) == 1
        await world.until(world.is_empty, 20.0, "it has run")
        assert [run.job for run in world.runs if run.what == "start"] == [f"{BUNDLE}/1"]
        assert await retry(process, FailedFilter(all=True)) == 1

    world, runs = play([Keyring(OLD)], deed)
    assert [job for job, _ in runs] == [f"{BUNDLE}/0", f"{BUNDLE}/1"] and not failed(world)


def test_code_that_is_gone_can_be_shipped_again() -> None:
    async def deed(world: World, process: Process) -> None:
        await take(process, order(Keyring(OLD), code=CODE))
        await world.until(lambda: len(failed(world)) == 2, 20.0, "it is set aside")
        assert {record.reason for record in failed(world).values()} == {"code missing"}
        put(world, world.keys.function(function_digest(CODE)), Keyring(OLD).sign_function(b"evil", CLUSTER, "3.11"))
        assert await retry(process, FailedFilter(all=True)) == 2
        await world.until(lambda: len(failed(world)) == 2, 20.0, "it is set aside again: that is other code")
        await process.node.put_function(function_digest(CODE), Keyring(OLD).sign_function(CODE, CLUSTER, "3.11"))
        assert await retry(process, FailedFilter(all=True)) == 2

    world, runs = play([Keyring(OLD)], deed)
    assert [job for job, _ in runs] == [f"{BUNDLE}/0", f"{BUNDLE}/1"] and not failed(world)


def test_code_may_have_been_shipped_by_who_has_another_key() -> None:
    """The signature of the body covers what code is meant."""
    async def deed(world: World, both: Process, old: Process) -> None:
        await both.node.put_function(function_digest(CODE), Keyring(NEW).sign_function(CODE, CLUSTER, "3.11"))
        await both.node.set_queue("q2", {"paused": True})
        await take(both, order(Keyring(OLD), code=CODE))
        await both.leave()
        await old.node.set_queue("q2", {"paused": False})

    world, runs = play([Keyring(OLD | NEW), Keyring(OLD)], deed)
    assert [node for _, node in runs] == ["n1", "n1"] and not failed(world)


def test_a_serial_queue_waits_for_who_looks_at_a_damaged_head() -> None:
    first, second = (order(Keyring(OLD), bundle_id(SESSION, n), 1, SERIAL, "m:sync") for n in (0, 1))

    async def deed(world: World, process: Process) -> None:
        await process.node.set_queue(SERIAL, {"paused": True})
        await take(process, first, second)
        put(world, world.keys.body(first.bundle), first.body[:-1] + b"y")
        process.engine._parts.cache.take(first.bundle)
        await process.node.set_queue(SERIAL, {"paused": False})
        await world.until(lambda: world.is_blocked(SERIAL), 20.0, "its head blocks")
        assert not world.runs
        await process.node.queue_head(SERIAL, "skip")

    world, runs = play([Keyring(OLD)], deed)
    assert [job for job, _ in runs] == [f"{second.bundle}/0"] and list(failed(world)) == [f"{first.bundle}/0"]


def test_a_damaged_step_holds_up_a_serial_queue_until_a_person_decides() -> None:
    """What it has remembered is not done twice, nor is it forgotten: it blocks, and says why. Made whole, it runs."""
    first, second = (order(Keyring(OLD), bundle_id(SESSION, n), 1, SERIAL, "m:sync") for n in (0, 1))

    async def deed(world: World, process: Process) -> None:
        await process.node.set_queue(SERIAL, {"paused": True})
        await take(process, first, second)
        (head, *_) = world.records(world.keys.queue_jobs(SERIAL))
        token = decode(Token, head.value)
        assert token is not None
        put(world, head.key, encode(msgspec.structs.replace(token, steps=True)))
        step = world.keys.step(first.bundle, 0, 0)
        put(world, step, b"\xff no step")
        await process.node.set_queue(SERIAL, {"paused": False})
        for verb in ("retry", "skip"):
            await world.until(lambda: world.is_blocked(SERIAL), 20.0, "its head blocks")
            assert not world.runs
            rows, _ = await process.node.queue_part("", 1_000)
            (row,) = [row for row in rows if row.queue == SERIAL]
            assert row.blocked and ADVICE["steps invalid"] in str(row.why)
            await process.node.queue_head(SERIAL, verb)
        await world.until(lambda: bool(world.runs), 20.0, "the next one goes on")
        world.store.commit(Txn((), (Delete(step),)), HAND)
        assert await retry(process, FailedFilter(all=True)) == 1

    world, runs = play([Keyring(OLD)], deed)
    assert sorted(job for job, _ in runs) == [f"{first.bundle}/0", f"{second.bundle}/0"] and not failed(world)


# -- what is said of jobs --------------------------------------------------------------------------------------------


def test_nobody_puts_words_into_a_jobs_mouth() -> None:
    """Errors, tracebacks and results that no node has signed are shown as such, or not at all."""
    names = [bundle_id(SESSION, number) for number in range(4)]

    async def deed(world: World, process: Process) -> None:
        node, keys = process.node, world.keys
        for name in names:
            world.script(f"{name}/0", 0.01, failed="no")
        await take(process, *(order(Keyring(OLD), name, 1) for name in names))
        await world.until(lambda: len(failed(world)) == 4, 20.0, "they have failed")
        view = await node.job(f"{names[0]}/0")
        assert (view.error, view.traceback) == ("no", "trace")
        honest, _ = await node.failed("q2", 10, "")
        assert {view.error for view in honest} == {"no"}

        (record,) = (r for r in world.records(keys.failed) if names[1].encode() in r.key)
        forged = decode(FailedRecord, record.value)
        assert forged is not None
        put(world, record.key, encode(msgspec.structs.replace(forged, error="send your password to …")))
        (record,) = (r for r in world.records(keys.failures) if names[1].encode() in r.key)
        kept = msgspec.msgpack.decode(record.value, type=Failure)
        put(world, record.key, msgspec.msgpack.encode(msgspec.structs.replace(kept, traceback="password, please")))
        view = await node.job(f"{names[1]}/0")
        assert view.error.startswith(NOT_OURS) and view.traceback.startswith(NOT_OURS)
        listed, _ = await node.failed("q2", 10, "")
        assert [view.error.startswith(NOT_OURS) for view in listed] == [False, True, False, False]
        page = await node.jobs("failed", "q2", "", 10, "")
        assert [view.error.startswith(NOT_OURS) for view in page.jobs] == [False, True, False, False]

    play([Keyring(OLD)], deed)


def test_results_of_another_bundle_are_no_answer() -> None:
    first, second = order(Keyring(OLD), count=1), order(Keyring(OLD), bundle_id(SESSION, 1), count=1)

    async def deed(world: World, process: Process) -> None:
        keys = world.keys
        await take(process, first, second)
        await world.until(world.is_empty, 20.0, "both have ended")
        (theirs,) = world.records(keys.bundle_results(second.bundle))
        (ours,) = world.records(keys.bundle_results(first.bundle))
        put(world, ours.key, theirs.value)
        view = await process.node.job(f"{first.bundle}/0")
        assert (view.place, view.why) == ("finished", "it has ended, and left no result")
        entries = [ResultEntry(0, "failed", error="it failed, says nobody")]
        put(world, ours.key, encode_results(Results(first.bundle, entries)))
        view = await process.node.job(f"{first.bundle}/0")
        assert (view.place, view.error) == ("finished", "")

    play([Keyring(OLD)], deed)


def test_what_is_told_of_attempts_is_signed_and_nobody_elses_words_are() -> None:
    keyring = Keyring(OLD)

    async def deed(world: World, process: Process) -> None:
        world.script(f"{BUNDLE}/0", 0.01, retry_s=5.0)
        world.script(f"{BUNDLE}/0", 1.0, 2, retry_s=5.0)
        await take(process, order(keyring, count=1))
        await world.until(lambda: bool(world.records(world.keys.scheduled)), 20.0, "it is tried again")
        view = await process.node.job(f"{BUNDLE}/0")
        assert view.error == "not yet" and len(view.history) == 1
        (record,) = world.records(world.keys.scheduled)
        token = decode(Token, record.value)
        assert token is not None
        put(world, record.key, encode(msgspec.structs.replace(token, error="it is all your fault")))
        view = await process.node.job(f"{BUNDLE}/0")
        assert view.error == NOT_OURS + "it is all your fault" and view.history == []
        await world.until(lambda: not world.records(world.keys.scheduled), 20.0, "it runs again")
        await world.until(lambda: bool(world.records(world.keys.scheduled)), 20.0, "it is tried once more")
        view = await process.node.job(f"{BUNDLE}/0")
        assert view.error == "not yet" and len(view.history) == 1       # the node has not signed what it was told

    play([keyring], deed)


def test_a_member_without_a_lease_is_nobody() -> None:
    """Somebody wrote its key by hand: it is given nothing, so that nothing waits for what will never come."""
    seen: list[object] = []

    async def deed(world: World, process: Process) -> None:
        phantom(world)
        await asyncio.sleep(0.1)
        await take(process, *(order(UNSIGNED, bundle_id(SESSION, number)) for number in range(20)))
        await asyncio.sleep(20.0)
        seen.extend([world.is_empty(), [node.node.partition("-")[0] for node in await process.node.nodes()]])
        exorcise(world)

    _, runs = play([UNSIGNED], deed)
    assert seen == [True, ["n0"]] and len(runs) == 40
