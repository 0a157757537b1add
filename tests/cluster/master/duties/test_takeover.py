"""The claims of a node that is gone go back to their places."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rota.cluster.ledger.commits import Write, created
from rota.cluster.ledger.ledger import Put, Txn, prefix_end
from rota.cluster.master.duties import takeover
from rota.cluster.master.duties.takeover import LOSSES_ALONE_MAX, LOSSES_MAX, take_over
from rota.cluster.state.quarantine import SetAside
from rota.cluster.state.records import TaskRecord, Token, claim_of, decode
from tests.cluster.node.bench import BUNDLE, KEYS, OTHER, Bench, body, play, token

DEAD = "n9"
FENCE = KEYS.candidate(7)
TASKS = {
    "m:f": TaskRecord("async"), "m:once": TaskRecord("async", on_orphan="fail"),
    "m:patient": TaskRecord("async", requeue_delay_s=5.0),
}


async def orphan(bench: Bench, bundle: str = BUNDLE, task: str = "m:f", count: int = 2, **claim: object) -> None:
    """A claim that lies under the dead node."""
    made = replace(claim_of(token(count, task), 5), **claim)
    record = await bench.claim(bundle, count, task, claim=made)
    await bench.delete(record.key)
    await bench.put((KEYS.claim(DEAD, bundle), record.value))


async def taken(bench: Bench) -> int | None:
    context = bench.context
    revision = (await bench.ledger.read(FENCE)).records
    fence = created(FENCE, revision[0].create_revision if revision else await bench.put((FENCE, b"n1")))
    aside = SetAside(context.ledger, KEYS, context.clock, context.seal, context.buckets)
    return await take_over(bench.term(fence), DEAD, tasks=TASKS, aside=aside)


async def waiting(bench: Bench, bundle: str = BUNDLE) -> Token:
    token_ = decode(Token, (await bench.record(KEYS.job("q", 0, 7, bundle))).value)
    assert token_ is not None
    return token_


def test_each_goes_back_to_its_place_and_is_a_suspect() -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench, done="1")
        await orphan(bench, OTHER)
        assert await taken(bench) == 2 and not await bench.names(KEYS.claims)
        token_ = await waiting(bench)
        assert (token_.done_bits, token_.orphanings, token_.lost, token_.attempt) == (0b1, 1, 0, 1)
        assert await waiting(bench, OTHER)

    play(deed)


def test_what_had_ended_is_deleted() -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench, done="3")
        assert await taken(bench) == 1
        assert not await bench.names(KEYS.jobs) and not await bench.names(KEYS.bodies)

    play(deed)


@pytest.mark.parametrize(("lost", "started", "company", "ends"), [
    (LOSSES_MAX - 1, True, {}, True), (LOSSES_MAX - 1, False, {}, False),
    (LOSSES_ALONE_MAX - 1, True, {}, True), (LOSSES_ALONE_MAX - 2, True, {}, False),
    (LOSSES_ALONE_MAX - 1, True, {"orphanings": 1}, True),                      # that had not begun
    (LOSSES_ALONE_MAX - 1, True, {"done": "3"}, True),                          # that had ended
    (LOSSES_ALONE_MAX - 1, True, {"count": 1}, False),                          # that may have run
    (LOSSES_ALONE_MAX - 1, True, {"count": 1, "orphanings": 1, "started": True}, False),
    (LOSSES_MAX - 1, True, {"count": 1}, True),
])
@pytest.mark.parametrize("serial", [False, True])
def test_the_second_loss_ends_what_ran_alone_the_third_what_ran(
    lost: int, started: bool, company: dict[str, object], ends: bool, serial: bool,
) -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench, count=1, orphanings=lost + 1, lost=lost, started=started, serial=serial)
        if company:
            await orphan(bench, OTHER, **company)
        assert await taken(bench) == 1 + bool(company)
        assert await bench.names(KEYS.failed) == ([f"q/{BUNDLE}-0"] if ends else [])
        if not ends:
            assert (await waiting(bench)).lost == lost + started

    play(deed)


def test_company_counts_though_the_master_ends_half_way() -> None:
    """Those that were lost before go first: if another master goes on, they do not look as if they had been alone."""
    async def deed(bench: Bench) -> None:
        for number in range(5):
            await orphan(bench, f"0s8sf4s75de1-0000000{number}", count=1)
        last = "0s8sf4s75de1-00000009"
        await orphan(bench, last, count=1, orphanings=2, lost=1, started=True)
        commits, seen = bench.context.commits, list[str]()
        submit = commits.submit

        def note(write: Write) -> object:
            seen.extend(key.decode() for key in (condition.key for condition in write.conditions) if b"/claims/" in key)
            return submit(write)

        commits.submit = note  # type: ignore[method-assign, assignment]
        assert await taken(bench) == 6
        assert seen[0].endswith(last)

    play(deed)


@pytest.mark.parametrize("started", [True, False])
def test_what_may_have_begun_and_must_not_run_twice_has_failed(started: bool) -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench, task="m:once", started=started)
        await taken(bench)
        assert bool(await bench.names(KEYS.failed)) is started
        assert bool(await bench.names(KEYS.jobs)) is not started

    play(deed)


def test_a_task_may_want_its_orphans_to_wait() -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench, task="m:patient")
        await orphan(bench, OTHER, "m:patient", 1, serial=True)
        await taken(bench)
        due_ms = int((bench.clock.wall() + 5.0) * 1000)
        assert await bench.names(KEYS.scheduled) == [KEYS.due(due_ms, "q", BUNDLE)[len(KEYS.scheduled):].decode()]
        assert (await waiting(bench, OTHER)).not_before == due_ms           # it keeps its place

    play(deed)


def test_what_cannot_be_read_is_set_aside_and_what_is_not_ours_left_alone() -> None:
    async def deed(bench: Bench) -> None:
        await bench.put(
            (KEYS.claim(DEAD, BUNDLE), b"garbage"), (KEYS.body(BUNDLE), body()),
            (KEYS.claims_of(DEAD) + b"not/ours", b""),
        )
        assert await taken(bench) == 1
        assert await bench.names(KEYS.failed) == [f"q/{BUNDLE}-0", f"q/{BUNDLE}-1"]
        assert await bench.names(KEYS.claims) == [f"{DEAD}/not/ours"]

    play(deed)


def test_more_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(bench: Bench) -> None:
        monkeypatch.setattr(takeover, "PAGE", 2)
        for number in range(5):
            await orphan(bench, f"0s8sf4s75de1-0000000{number}")
        assert await taken(bench) == 5 and not await bench.names(KEYS.claims)

    play(deed)


def test_a_node_that_is_a_member_keeps_its_claims() -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench)
        await bench.ledger.grant(10, 77)
        await bench.ledger.commit(Txn((), (Put(KEYS.node(DEAD), b"{}", 77),)))
        assert await taken(bench) == 0 and await bench.names(KEYS.claims)

    play(deed)


def test_a_master_that_was_succeeded_moves_nothing() -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench)
        context = bench.context
        aside = SetAside(context.ledger, KEYS, context.clock, context.seal, context.buckets)
        assert await take_over(bench.term(created(FENCE, 3)), DEAD, tasks=TASKS, aside=aside) is None
        assert await bench.names(KEYS.claims)

    play(deed)


@pytest.mark.parametrize("task", ["m:f", "m:patient"])
def test_what_slept_does_not_expire_any_more_and_its_siblings_do(task: str) -> None:
    """It lay with them in one token: in the midst of what it did, it ended as expired."""
    async def deed(bench: Bench) -> None:
        await orphan(bench, count=4, task=task, expires=9_000, slept="6", done="2", steps=True, late="2")
        await bench.put((KEYS.step(BUNDLE, 1, 3), b"x"))
        assert await taken(bench) == 1
        area = KEYS.jobs if task == "m:f" else KEYS.scheduled
        page = await bench.ledger.read(area, prefix_end(area))
        tokens = {
            record.key.rpartition(b"/")[2].decode(): decode(Token, record.value) for record in page.records
        }
        assert {name: (made.count, made.done, made.expires) for name, made in tokens.items() if made is not None} == {
            f"{BUNDLE}.00": (2, "", 9_000), f"{BUNDLE}.02": (1, "", 0),
        }
        assert await bench.names(KEYS.bodies) == [f"{BUNDLE}.00", f"{BUNDLE}.02"]
        assert not await bench.names(KEYS.steps)            # what came late of the one that has ended

    play(deed)


def test_where_all_that_is_left_has_slept_the_bundle_stays_whole() -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench, expires=9_000, slept="2", done="1")
        assert await taken(bench) == 1
        assert ((await waiting(bench)).done_bits, (await waiting(bench)).expires) == (0b1, 0)

    play(deed)


def test_what_cannot_be_cut_stays_whole() -> None:
    """Whoever gets it next sets it aside."""
    async def deed(bench: Bench) -> None:
        await orphan(bench, expires=9_000, slept="2")
        await bench.put((KEYS.body(BUNDLE), b"\xff"))
        assert await taken(bench) == 1
        assert ((await waiting(bench)).pending, (await waiting(bench)).expires) == (2, 9_000)

    play(deed)


def test_of_a_wide_bundle_that_may_not_run_twice_all_is_set_aside() -> None:
    async def deed(bench: Bench) -> None:
        await orphan(bench, task="m:once", count=300, started=True, done="1")
        await taken(bench)
        assert len(await bench.names(KEYS.failed)) == 299 and not await bench.names(KEYS.claims)

    play(deed)
