"""What jobs remember, between their node and the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rota.client.errors import RotaError
from rota.client.model import Outcome, Step
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.ledger.commits import Verdict, Write, unmodified
from rota.cluster.ledger.ledger import Condition
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.memory import Memory
from rota.cluster.node.claims.table import Claims
from rota.cluster.node.outcomes import reporter
from rota.cluster.node.outcomes.reporter import Reporter
from rota.cluster.node.outcomes.settle import Keep
from rota.cluster.node.running.remembering import Remembering
from rota.cluster.state import moves
from rota.cluster.state.records import Claim, Token, claim_in, claim_of, decode

from ..bench import BUNDLE, KEYS, Bench, a_moment, body, header, play, token

SEAL = Seal(UNSIGNED, "c")
JOBS = 3
AT = "0s8sf4s75de1-00000004-0/0000"


class Running(Remembering):
    def __init__(self, bench: Bench, reporter_: Reporter, held: Held) -> None:
        super().__init__(bench.context, lambda key: held, reporter_.advance)
        self.bench, self.reporter, self.held = bench, reporter_, held

    async def ends(self, index: int) -> Claim:
        """This job does, and others of its bundle go on; the claim after that."""
        self.reporter.take(self.held, [Outcome(index, "ok")], self.bench.clock.monotonic())
        await a_moment(reporter.PARTIAL_S)
        self.reporter.flush_due()
        await a_moment()
        claim = claim_in((await self.bench.record(self.held.record.key)).value)
        assert claim is not None
        return claim


def run(deed: Callable[[Bench, Running], Awaitable[None]]) -> None:
    """Jobs of a bundle of which another one has remembered something already."""
    async def main(bench: Bench) -> None:
        wrong: list[AssertionError] = []
        async with asyncio.TaskGroup() as group:
            outcomes = Reporter(bench.context, bench.runners, Keep(0.0, 0.0), lambda held: None)
            outcomes.open(group)
            bench.runners.tasks.clear()
            claim = claim_of(token(JOBS, steps=True), 5)
            record = await bench.claim(count=JOBS, claim=claim)
            held = Claims().add(
                BUNDLE, record, claim, mod_revision=record.mod_revision, header=header(count=JOBS),
                body=body(count=JOBS), jobs=[(index, b"x") for index in range(JOBS)], memory=Memory({}),
            )
            try:
                await deed(bench, Running(bench, outcomes, held))
            except AssertionError as error:
                wrong.append(error)         # (as it is, not in a group)
            outcomes.close()
        for error in wrong:
            raise error

    play(main)


async def ended_while_a_step_was_under_way(bench: Bench, running: Running) -> None:
    """Job 0 (its runner was killed, say), and its step is stored after that. Then their node is lost."""
    submit, gate = bench.commits.submit, asyncio.Event()

    def slowly(write: Write, **patience: float) -> asyncio.Future[Verdict]:
        if not any(op.key.startswith(KEYS.steps) and op.key.endswith(b"/0000") for op in write.ops):
            return submit(write)

        async def later() -> Verdict:
            await gate.wait()
            return await submit(write)

        return asyncio.ensure_future(later())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.commits, "submit", slowly)
        stores = asyncio.ensure_future(running.store(running.held.key, 0, Step("one")))
        await a_moment()
        claim = await running.ends(0)
        assert (claim.done, claim.late) == ("1", "1") and not await bench.names(KEYS.steps)
        gate.set()
        await stores
    assert await bench.names(KEYS.steps) == [AT]
    running.held.end()
    record = await bench.record(running.held.record.key)
    at = unmodified(record.key, record.mod_revision)
    await bench.commits.submit(moves.take_over(KEYS, (), at, BUNDLE, claim, lost=0))


async def waiting(bench: Bench) -> tuple[Token, Condition]:
    key = KEYS.job("q", 0, 7, BUNDLE)
    record = await bench.record(key)
    found = decode(Token, record.value)
    assert found is not None
    return found, unmodified(key, record.mod_revision)


def test_a_step_that_came_after_the_end_of_its_job_goes_when_the_bundle_is_split() -> None:
    async def deed(bench: Bench, running: Running) -> None:
        await ended_while_a_step_was_under_way(bench, running)
        found, at = await waiting(bench)
        whole = await bench.record(KEYS.body(BUNDLE))
        await bench.commits.submit(moves.split(KEYS, SEAL, (), at, BUNDLE, found, whole, 1))
        assert not await bench.names(KEYS.steps)
        names = await bench.names(KEYS.jobs)
        assert len(names) == JOBS - 1
        for name in names:
            piece = decode(Token, (await bench.record(KEYS.jobs + name.encode())).value)
            assert piece is not None and not piece.late and piece.steps

    run(deed)


def test_and_when_it_is_cancelled() -> None:
    async def deed(bench: Bench, running: Running) -> None:
        await ended_while_a_step_was_under_way(bench, running)
        found, at = await waiting(bench)
        await bench.commits.submit(moves.cancel(KEYS, (), at, BUNDLE, found))
        assert not await bench.names(KEYS.steps)

    run(deed)


def test_and_when_it_is_set_aside() -> None:
    async def deed(bench: Bench, running: Running) -> None:
        await ended_while_a_step_was_under_way(bench, running)
        found, at = await waiting(bench)
        await bench.commits.submit(moves.set_aside(KEYS, (), at, BUNDLE, found, ()))
        assert not await bench.names(KEYS.steps)

    run(deed)


def test_and_when_it_ends_on_another_node() -> None:
    async def deed(bench: Bench, running: Running) -> None:
        await ended_while_a_step_was_under_way(bench, running)
        found, at = await waiting(bench)
        await bench.commits.submit(moves.claim(KEYS, (), at, BUNDLE, found, "n1", fence=6, serial=False))
        record = await bench.record(KEYS.claim("n1", BUNDLE))
        claim = claim_in(record.value)
        assert claim is not None and claim.late_indexes == [0]
        held = Claims().add(
            BUNDLE, record, claim, mod_revision=record.mod_revision, header=header(count=JOBS), done=claim.done_bits,
            body=body(count=JOBS), jobs=[(index, b"x") for index in range(JOBS)],
            memory=Memory({}, claim.late_indexes),
        )
        running.reporter.take(held, [Outcome(1, "ok"), Outcome(2, "retry", delay_s=5.0)], 0.0)
        await a_moment()
        assert not await bench.names(KEYS.steps)
        (name,) = await bench.names(KEYS.scheduled)
        again = decode(Token, (await bench.record(KEYS.scheduled + name.encode())).value)
        assert again is not None and (again.done, again.late) == ("3", "")

    run(deed)


def test_a_job_whose_step_was_written_twice_is_told_of_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin of that write may apply once more when the step is deleted, as long as the claim lies there."""
    async def deed(bench: Bench, running: Running) -> None:
        submit = bench.commits.submit

        def repeated(write: Write) -> asyncio.Future[Verdict]:
            async def twice() -> Verdict:
                verdict = await submit(write)
                return Verdict(verdict.applied, verdict.revision, repeated=True)

            return asyncio.ensure_future(twice())

        monkeypatch.setattr(bench.commits, "submit", repeated)
        await running.store(running.held.key, 0, Step("one"))
        monkeypatch.setattr(bench.commits, "submit", submit)
        await running.store(running.held.key, 1, Step("one"))
        assert (await running.ends(0)).late == "1"
        assert (await running.ends(1)).late == "1"
        assert not await bench.names(KEYS.steps)

    run(deed)


def test_a_job_that_has_ended_remembers_nothing_more() -> None:
    async def deed(bench: Bench, running: Running) -> None:
        await running.ends(0)
        with pytest.raises(RotaError, match="this run of the job is void"):
            await running.store(running.held.key, 0, Step("one"))
        assert not await bench.names(KEYS.steps)

    run(deed)
