"""From a claim to its outcome, with runners that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from rota.client.model import Outcome, TaskInfo
from rota.client.wire.keyring import UNSIGNED, Keyring
from rota.cluster.node.claims.cancels import Cancels
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.table import Claims
from rota.cluster.node.outcomes.reporter import AGAIN_S
from rota.cluster.node.outcomes.settle import Keep
from rota.cluster.node.running.leaving import Leaving
from rota.cluster.node.running.running import ELSEWHERE_S, Running
from rota.cluster.state.records import Claim, Token, claim_of, decode
from rota.cluster.state.throughput import SLICE_S

from ..bench import BUNDLE, KEYS, NODE, OTHER, Bench, a_moment, body, header, play, token


class Stage:
    """A bench with `Running` on it. `may_start` is what the membership says."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.runners = bench.runners
        self.runners.tasks["m:f"] = TaskInfo("m:f", "async", keep_result_s=0.0)
        self.runners.tasks["m:once"] = TaskInfo("m:once", "async", on_orphan="fail", keep_result_s=0.0)
        self.claims = Claims()
        self.cancels = Cancels(bench.ledger, KEYS)
        self.may_start = True
        self.running = Running(
            bench.context, self.claims, self.cancels, bench.runners, may_start=lambda: self.may_start,
            keep=Keep(0.0, 0.0), is_limited=lambda task, queue: False,
        )
        self.leaving = Leaving(self.claims, bench.runners, self.running)

    async def take(self, bundle: str = BUNDLE, count: int = 2, task: str = "m:f", **claim: object) -> Held:
        """A claim has come."""
        made = replace(claim_of(token(count, task), 5), **claim)
        record = await self.bench.claim(bundle, count, task, claim=made)
        held = self.claims.add(bundle, record, made, mod_revision=record.mod_revision, done=made.done_bits)
        self.running.take(held, None)
        return held

    def end(self, held: Held, *indexes: int) -> None:
        self.running.on_outcomes([(held.key, Outcome(index, "ok")) for index in indexes])

    @property
    def given(self) -> list[tuple[str, list[int]]]:
        """(bundle, indexes) of what the runners were given."""
        return [(work.bundle, [index for index, _ in work.jobs]) for work in self.runners.given]

    async def claim(self, bundle: str = BUNDLE) -> Claim:
        claim = decode(Claim, (await self.bench.record(KEYS.claim(NODE, bundle))).value)
        assert claim is not None
        return claim

    async def waiting(self, bundle: str = BUNDLE) -> Token:
        token_ = decode(Token, (await self.bench.record(KEYS.job("q", 0, 7, bundle))).value)
        assert token_ is not None
        return token_


def act(deed: Callable[[Stage], Awaitable[None]], keyring: Keyring = UNSIGNED) -> None:
    async def main(bench: Bench) -> None:
        stage = Stage(bench)
        async with asyncio.TaskGroup() as group:
            stage.running.open(group)
            work = group.create_task(stage.running.work(), name="work")
            await deed(stage)
            stage.running.close()
            work.cancel()

    play(main, keyring)


def test_from_the_claim_to_its_end() -> None:
    async def deed(stage: Stage) -> None:
        held = await stage.take()
        await a_moment()
        assert stage.given == [(BUNDLE, [0, 1])]
        assert stage.runners.given[0].fence == held.record.create_revision
        stage.end(held, 0, 1)
        await a_moment()
        assert stage.running.finished == 2 and len(stage.claims) == 0
        assert not await stage.bench.names(KEYS.claims) and not await stage.bench.names(KEYS.bodies)

    act(deed)


def test_what_this_node_took_in_need_not_be_read() -> None:
    async def deed(stage: Stage) -> None:
        record = await stage.bench.claim(stored=b"")        # it would not be found
        held = stage.claims.add(BUNDLE, record, claim_of(token(), 5), mod_revision=record.mod_revision)
        stage.running.take(held, (body(), header(), [(0, b"x"), (1, b"x")]))
        assert stage.given == [(BUNDLE, [0, 1])]

    act(deed)


def test_what_is_done_is_not_run_again() -> None:
    async def deed(stage: Stage) -> None:
        await stage.take(count=3, done="2")
        await a_moment()
        assert stage.given == [(BUNDLE, [0, 2])]

    act(deed)


def test_nothing_begins_while_the_lease_is_not_renewed() -> None:
    async def deed(stage: Stage) -> None:
        stage.may_start = False
        await stage.take()
        await a_moment(AGAIN_S * 2)
        assert stage.given == []
        stage.may_start = True
        await a_moment(AGAIN_S)
        assert stage.given == [(BUNDLE, [0, 1])]

    act(deed)


def test_what_is_cancelled_is_not_given_to_runners() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((KEYS.cancel(BUNDLE, 1), b"{}"))
        requests = stage.cancels.requests()
        await anext(requests)
        held = await stage.take()
        await a_moment()
        assert stage.given == [(BUNDLE, [0])] and held.pending == 1
        stage.end(held, 0)
        await a_moment()
        assert len(stage.claims) == 0
        await requests.aclose()  # type: ignore[attr-defined]

    act(deed)


def test_outcomes_of_what_is_not_here_count_for_nothing() -> None:
    async def deed(stage: Stage) -> None:
        stage.running.on_outcomes([(99, Outcome(0, "ok"))])
        await a_moment()
        assert stage.running.finished == 0

    act(deed)


# -- suspects, and what must not run twice ---------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "claim"), [("m:f", {"orphanings": 1}), ("m:once", {})])
def test_a_start_is_recorded_before_it_happens(task: str, claim: dict[str, object]) -> None:
    async def deed(stage: Stage) -> None:
        await stage.take(count=1, task=task, **claim)
        await a_moment()
        assert (await stage.claim()).started and stage.given == [(BUNDLE, [0])]

    act(deed)


def test_what_was_lost_while_it_ran_runs_alone() -> None:
    async def deed(stage: Stage) -> None:
        first = await stage.take(count=1, orphanings=1, lost=1)
        await a_moment()
        await stage.take(OTHER, 1, orphanings=1, lost=1)
        await a_moment()
        assert stage.given == [(BUNDLE, [0])] and not (await stage.claim(OTHER)).started
        stage.end(first, 0)
        await a_moment()
        assert stage.given == [(BUNDLE, [0]), (OTHER, [0])]

    act(deed)


def test_a_claim_that_was_lost_meanwhile_is_not_begun() -> None:
    async def deed(stage: Stage) -> None:
        await stage.take(count=1, task="m:once")
        await stage.bench.delete(KEYS.claim(NODE, BUNDLE))
        await a_moment()
        assert stage.given == [] and len(stage.claims) == 0

    act(deed)


# -- what must not be run, or not here -------------------------------------------------------------------------------


def test_what_is_refused_goes_to_the_failed_set() -> None:
    async def deed(stage: Stage) -> None:
        record = await stage.bench.claim(stored=b"garbage", count=1)
        held = stage.claims.add(BUNDLE, record, claim_of(token(1), 5), mod_revision=record.mod_revision)
        stage.running.take(held, None)
        await a_moment()
        assert await stage.bench.names(KEYS.failed) == [f"q/{BUNDLE}-0"] and len(stage.claims) == 0

    act(deed)


def test_what_others_have_to_verify_goes_back_with_the_name_of_its_key() -> None:
    async def deed(stage: Stage) -> None:
        signed = Keyring({"k2": b"2" * 32}).sign_body(body(), "c")
        for took_s in (0.0, ELSEWHERE_S):           # the second time it says so already: not too fast
            record = await stage.bench.claim(
                stored=signed, claim=claim_of(token(signed="k2" if took_s else None), 5)
            )
            claim = await stage.claim()
            held = stage.claims.add(BUNDLE, record, claim, mod_revision=record.mod_revision)
            stage.running.take(held, None)
            await a_moment(max(took_s - 0.1, 0.001))
            assert bool(await stage.bench.names(KEYS.claims)) == bool(took_s)
            await a_moment(took_s and 0.2)
            assert (await stage.waiting()).signed == "k2"

    act(deed, Keyring({"k1": b"1" * 32}))


# -- slow bundles ----------------------------------------------------------------------------------------------------


def test_what_waits_behind_slow_jobs_goes_to_others() -> None:
    async def deed(stage: Stage) -> None:
        await stage.take(count=10)
        await a_moment()
        stage.runners.begin(stage.runners.given[0], 0)
        await a_moment(SLICE_S + 0.01)
        assert stage.given[1] == (BUNDLE, [1])          # what this node gets through in a slice
        assert len(await stage.bench.names(KEYS.jobs)) == 8
        claim = await stage.claim()
        assert claim.back == 8 and claim.done_bits == 0b1111111100

    act(deed)


def test_what_cannot_begin_at_all_goes_back_whole_and_is_given_more_time() -> None:
    async def deed(stage: Stage) -> None:
        stage.runners.is_busy = True
        for patience_s in (SLICE_S, 2 * SLICE_S):
            await stage.take()
            await a_moment(patience_s - 0.01)
            assert await stage.bench.names(KEYS.claims)
            await a_moment(0.02)
            assert not await stage.bench.names(KEYS.claims) and (await stage.waiting()).pending == 2

    act(deed)


@pytest.mark.parametrize("gone", [False, True])
def test_what_was_taken_back_from_the_runners_runs_as_the_code_is_by_now(gone: bool) -> None:
    """The code of this node has changed since it was first given to them: its task is another, or is not there."""
    async def deed(stage: Stage) -> None:
        await stage.take(count=10)
        await a_moment()
        stage.runners.begin(stage.runners.given[0], 0)
        stage.runners.tasks = {} if gone else {"m:f": TaskInfo("m:f", "sync")}
        await a_moment(SLICE_S + 0.01)
        if gone:
            assert len(stage.given) == 1 and (await stage.claim()).back == 9
        else:
            assert stage.runners.given[1].mode == "sync" and stage.given[1] == (BUNDLE, [1])

    act(deed)


def test_what_is_soon_over_stays() -> None:
    async def deed(stage: Stage) -> None:
        held = await stage.take(count=10)
        await a_moment()
        stage.runners.begin(stage.runners.given[0], 0, 1, 2)
        stage.end(held, 0, 1, 2)
        await a_moment(SLICE_S + 0.01)
        assert len(stage.given) == 1 and not await stage.bench.names(KEYS.jobs)

    act(deed)


# -- handing back ----------------------------------------------------------------------------------------------------


def test_a_node_that_leaves_keeps_what_has_begun_only() -> None:
    async def deed(stage: Stage) -> None:
        begun = await stage.take()
        await stage.take(OTHER)
        await a_moment()
        stage.runners.begin(stage.runners.given[0], 0)
        stage.leaving.drain()
        assert await stage.leaving.release_unstarted() == 1
        assert (await stage.waiting(OTHER)).pending == 2
        assert stage.given[2:] == [(BUNDLE, [1])]       # it ends here, with the rest of its bundle
        late = await stage.take("0s8sf4s75de1-00000009")
        await a_moment()
        assert late.over and (await stage.waiting("0s8sf4s75de1-00000009")).pending == 2
        stage.end(begun, 0, 1)
        await a_moment()
        assert len(stage.claims) == 0

    act(deed)


def test_a_node_that_leaves_hands_nothing_back_before_its_record_says_so() -> None:
    """It would be given the same at once, over and over, for as long as the store is slow (seed 4014, L8)."""
    async def deed(stage: Stage) -> None:
        stage.leaving.drain()
        early = await stage.take()
        await a_moment()
        assert not early.over and not stage.given
        assert await stage.leaving.release_unstarted() == 1         # behind the record
        assert early.over and (await stage.waiting()).pending == 2

    act(deed)


def test_a_node_that_leaves_waits_for_what_it_marks_and_hands_back_no_key_that_is_given_up() -> None:
    """Its unique key is held until it begins. The write that gives the key up was under way when the node let go of the
    bundle: it went back as what has the key still, and nobody held that for it (seed 379, U2)."""
    async def deed(stage: Stage) -> None:
        held = await stage.take(count=1, unique="a", until_begun=True)
        while not held.marking:         # noqa: ASYNC110 - no one says so
            await asyncio.sleep(0)
        stage.leaving.drain()
        assert await stage.leaving.release_unstarted() == 0
        await a_moment()
        assert held.over and not stage.given and not (await stage.waiting()).unique

    act(deed)


def test_after_an_outage_all_goes_back_less_what_has_ended() -> None:
    async def deed(stage: Stage) -> None:
        held = await stage.take()
        await a_moment()
        stage.end(held, 1)
        assert await stage.leaving.release_all() >= 1
        await a_moment(1.0)
        assert (await stage.waiting()).done_bits == 0b10 and len(stage.claims) == 0

    act(deed)
