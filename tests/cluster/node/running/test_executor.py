"""Claims that come and go, as the watch shows them; and those that begin before they are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from rota.client.errors import LedgerUnavailable
from rota.client.model import Outcome, TaskInfo
from rota.cluster.ledger.commits import Verdict
from rota.cluster.ledger.ledger import Record
from rota.cluster.node.bodies.cache import BodyCache
from rota.cluster.node.outcomes.settle import Keep
from rota.cluster.node.running.executor import Executor
from rota.cluster.state.records import claim_of, encode

from ..bench import BUNDLE, KEYS, NODE, OTHER, Bench, a_moment, body, header, play, token

CLAIM = claim_of(token(), 0)
BODY = body(), header(), [(0, b"x"), (1, b"x")]


def act(deed: Callable[[Bench, Executor], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        bench.runners.tasks["m:f"] = TaskInfo("m:f", "async", keep_result_s=0.0)
        executor = Executor(
            bench.context, bench.runners, BodyCache(), may_start=lambda: True, keep=Keep(0.0, 0.0)
        )
        operand = bench.context.member.operand
        assert isinstance(operand, int)
        running = asyncio.create_task(executor.run(operand), name="executor")
        await a_moment()
        await deed(bench, executor)
        running.cancel()
        await asyncio.wait([running])

    play(main)


def given(bench: Bench) -> list[str]:
    return [work.bundle for work in bench.runners.given]


def end(bench: Bench, executor: Executor) -> None:
    """All that the runners were given last has ended well."""
    work = bench.runners.given[-1]
    executor.on_outcomes([(work.key, Outcome(index, "ok")) for index, _ in work.jobs])


def test_a_claim_comes_is_run_and_ends() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        await bench.claim()
        await a_moment()
        assert given(bench) == [BUNDLE] and executor.held == 1
        end(bench, executor)
        await a_moment()
        assert executor.held == 0 and executor.finished == 2 and given(bench) == [BUNDLE]
        await executor.until_idle()

    act(deed)


def test_what_is_taken_away_is_withdrawn() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        await bench.claim()
        await a_moment()
        await bench.delete(KEYS.claim(NODE, BUNDLE))
        await a_moment()
        assert executor.held == 0 and bench.runners.withdrawn == [bench.runners.given[0].key]

    act(deed)


def test_what_comes_again_runs_again() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        await bench.claim()
        await a_moment()
        end(bench, executor)
        await a_moment()
        await bench.claim()
        await a_moment()
        assert given(bench) == [BUNDLE, BUNDLE]

    act(deed)


def test_an_update_of_its_claim_is_no_new_one() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        await bench.claim()
        await a_moment()
        await bench.put((KEYS.claim(NODE, BUNDLE), encode(claim_of(token(done="1"), 5))))
        await a_moment()
        assert given(bench) == [BUNDLE] and executor.held == 1

    act(deed)


def test_after_a_compaction_it_compares() -> None:
    """One has gone, one has come, one has left and come again."""
    async def deed(bench: Bench, executor: Executor) -> None:
        await bench.claim(BUNDLE)
        await bench.claim(OTHER)
        await a_moment()
        await bench.delete(KEYS.claim(NODE, BUNDLE), KEYS.claim(NODE, OTHER))
        await bench.claim(OTHER)
        new = "0s8sf4s75de1-00000009"
        await bench.claim(new)
        await bench.ledger.compact((await bench.ledger.read(b"x")).revision)
        await a_moment()
        assert executor.held == 2 and given(bench) == [BUNDLE, OTHER, OTHER, new]

    act(deed)


def test_keys_that_are_not_ours_and_claims_that_are_none() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        await bench.put((KEYS.claims_of(NODE) + b"not/ours", b"x"), (KEYS.claim(NODE, BUNDLE), b"garbage"))
        await a_moment()
        assert executor.held == 0 and await bench.names(KEYS.failed)
        assert await bench.names(KEYS.claims) == [f"{NODE}/not/ours"]

    act(deed)


def test_a_request_to_cancel_reaches_the_runners() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        await bench.claim()
        await a_moment()
        await bench.put(*[(KEYS.cancel(*job), b"{}") for job in ((BUNDLE, 1), (BUNDLE, 7), (OTHER, 0))])
        await a_moment()
        assert bench.runners.cancelled == [(bench.runners.given[0].key, 1)]

    act(deed)


# -- level `delayed` -------------------------------------------------------------------------------------------------


async def stored(bench: Bench) -> Verdict:
    """The claim is written, as the intake does."""
    revision = await bench.put((KEYS.claim(NODE, BUNDLE), encode(CLAIM)), (KEYS.body(BUNDLE), BODY[0]))
    return Verdict(True, revision)


def begin(executor: Executor) -> asyncio.Future[Verdict]:
    future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    executor.begin(BUNDLE, CLAIM, BODY, future)
    return future


def test_it_begins_at_once_and_its_outcomes_wait_for_the_claim() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        future = begin(executor)
        assert given(bench) == [BUNDLE]
        end(bench, executor)
        await a_moment(1.0)
        assert executor.finished == 0
        future.set_result(await stored(bench))
        await a_moment()
        assert executor.finished == 2 and executor.held == 0 and given(bench) == [BUNDLE]
        assert not await bench.names(KEYS.claims)

    act(deed)


def test_a_repeat_begins_nothing() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        first = begin(executor)
        begin(executor)
        first.set_result(await stored(bench))
        begin(executor)
        await a_moment()
        assert given(bench) == [BUNDLE] and executor.held == 1

    act(deed)


def test_a_claim_that_was_stored_by_an_earlier_try_is_ours() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        future = begin(executor)
        revision = (await stored(bench)).revision
        receipt = Record(KEYS.receipt(BUNDLE), b"", revision, revision, 1)
        future.set_result(Verdict(False, revision, None, receipt, repeated=True))
        end(bench, executor)
        await a_moment()
        assert executor.finished == 2 and not await bench.names(KEYS.claims)

    act(deed)


def test_what_could_not_be_stored_counts_for_nothing_and_may_be_asked_for_again() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        begin(executor).set_exception(LedgerUnavailable("not now"))
        await a_moment()
        assert executor.held == 0 and bench.runners.withdrawn == [bench.runners.given[0].key]
        begin(executor)
        assert given(bench) == [BUNDLE, BUNDLE]

    act(deed)


def test_what_lies_there_instead_came_from_the_master() -> None:
    """The bundle had been enqueued before: the watch showed its claim, which was taken for our own."""
    async def deed(bench: Bench, executor: Executor) -> None:
        future = begin(executor)
        claim = await bench.claim()
        await a_moment()
        assert executor.held == 1
        receipt = Record(KEYS.receipt(BUNDLE), b"", 1, 1, 1)      # of a first enqueue
        future.set_result(Verdict(False, 99, None, receipt))
        await a_moment()
        assert executor.held == 1 and bench.runners.given[-1].fence == claim.create_revision

    act(deed)


def test_its_own_claim_begins_when_it_is_seen_behind_what_was_given_before() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        assert executor.is_idle()
        executor.expect(BUNDLE)
        assert not executor.is_idle()
        await bench.claim(OTHER, 1)
        await bench.claim(BUNDLE, 1)
        await a_moment()
        assert given(bench) == [OTHER, BUNDLE] and not executor.is_idle()
        executor.expect("never")
        executor.expect_no_more("never")
        for work in list(bench.runners.given):
            executor.on_outcomes([(work.key, Outcome(index, "ok")) for index, _ in work.jobs])
        await a_moment()
        assert executor.is_idle()

    act(deed)


def test_its_own_claim_goes_back_where_what_was_given_in_that_moment_has_the_slots() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        executor.expect(BUNDLE)
        await bench.claim(OTHER, 10)
        await bench.claim(BUNDLE, 1)
        await a_moment()
        assert given(bench) == [OTHER] and executor.held == 1
        (back,) = await bench.names(KEYS.jobs)
        assert back.endswith(BUNDLE) and await bench.names(KEYS.nonempty) == ["q"]

    act(deed)


def test_what_is_expected_may_have_gone_unseen() -> None:
    async def deed(bench: Bench, executor: Executor) -> None:
        executor.expect(BUNDLE)
        await bench.claim(BUNDLE)
        await bench.delete(KEYS.claim(NODE, BUNDLE))
        await bench.ledger.compact((await bench.ledger.read(b"x")).revision)
        await a_moment()
        assert executor.held == 0 and executor.is_idle()

    act(deed)


def test_what_takes_several_slots_goes_back_where_this_node_has_just_taken_some_itself() -> None:
    """The master knows of that when it has come back. What he has given himself stays: he knows what he does."""
    async def deed(bench: Bench, executor: Executor) -> None:
        heavy = claim_of(replace(token(1), weight=10), 5)
        executor.expect(BUNDLE)
        await bench.claim(BUNDLE, 1, claim=claim_of(token(1), 0))
        await bench.claim(OTHER, 1, claim=heavy)
        await a_moment()
        assert given(bench) == [BUNDLE] and executor.held == 1
        (back,) = await bench.names(KEYS.jobs)
        assert back.endswith(OTHER)
        end(bench, executor)
        await a_moment()
        await bench.claim("0s8sf4s75de1-00000009", 1)
        await bench.claim(OTHER, 1, claim=heavy)
        await a_moment()
        assert given(bench)[1:] == ["0s8sf4s75de1-00000009", OTHER]

    act(deed)
