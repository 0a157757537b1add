"""What goes back to its queue, as if it had never been given."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rota.client.errors import NoSpace
from rota.client.model import TaskInfo
from rota.cluster.ledger.ledger import Txn, TxnResult
from rota.cluster.node.claims.table import Claims
from rota.cluster.node.outcomes.reporter import AGAIN_S, Reporter
from rota.cluster.node.outcomes.settle import Keep
from rota.cluster.node.running import handback
from rota.cluster.node.running.handback import HandBack
from rota.cluster.state.quarantine import SetAside
from rota.cluster.state.records import Token, claim_of, decode

from ..bench import BUNDLE, KEYS, NODE, OTHER, Bench, a_moment, play, token


def at(bench: Bench, table: Claims) -> HandBack:
    context = bench.context
    aside = SetAside(context.ledger, KEYS, context.clock, context.seal, context.buckets)
    return HandBack(
        context, table, bench.runners, Reporter(context, bench.runners, Keep(0.0, 0.0), table.forget), aside
    )


async def waiting(bench: Bench, bundle: str = BUNDLE) -> Token:
    token_ = decode(Token, (await bench.record(KEYS.job("q", 0, 7, bundle))).value)
    assert token_ is not None
    return token_


def test_a_bundle_goes_back_less_what_has_ended() -> None:
    async def deed(bench: Bench) -> None:
        table, record = Claims(), await bench.claim()
        held = table.add(BUNDLE, record, claim_of(token(), 5), mod_revision=record.mod_revision, done=0b1)
        assert (await at(bench, table).one(held)).applied
        assert (await waiting(bench)).done_bits == 0b1 and not await bench.names(KEYS.claims)

    play(deed)


def test_while_the_store_refuses_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(bench: Bench) -> None:
        table, record = Claims(), await bench.claim()
        held, commit, faults = table.add(BUNDLE, record, claim_of(token(), 5)), bench.ledger.commit, [1, 2]
        held.mod_revision = record.mod_revision

        async def full(txn: Txn) -> TxnResult:
            if faults:
                faults.pop()
                raise NoSpace("full")
            return await commit(txn)

        monkeypatch.setattr(bench.ledger, "commit", full)
        with pytest.raises(NoSpace):
            await at(bench, table).one(held)
        await a_moment(AGAIN_S * 2 + 0.1)
        assert await waiting(bench)

    play(deed)


def test_all_that_lies_here_goes_back_and_is_remembered_to_have_ended() -> None:
    async def deed(bench: Bench) -> None:
        table, first = Claims(), await bench.claim()
        await bench.claim(OTHER)
        await bench.put((KEYS.claims_of(NODE) + b"not/ours", b"x"))
        assert await at(bench, table).all(but_held=True) == 2
        assert await waiting(bench) and await waiting(bench, OTHER)
        assert await bench.names(KEYS.claims) == [f"{NODE}/not/ours"]
        assert table.has_ended(BUNDLE, first.create_revision)

    play(deed)


@pytest.mark.parametrize(("but_held", "left"), [(True, [f"{NODE}/{BUNDLE}"]), (False, [])])
def test_what_runs_may_stay(but_held: bool, left: list[str]) -> None:
    async def deed(bench: Bench) -> None:
        table, record = Claims(), await bench.claim()
        table.add(BUNDLE, record, claim_of(token(), 5), mod_revision=record.mod_revision)
        await bench.claim(OTHER)
        assert await at(bench, table).all(but_held=but_held) == (1 if but_held else 2)
        assert await bench.names(KEYS.claims) == left

    play(deed)


def test_more_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(bench: Bench) -> None:
        monkeypatch.setattr(handback, "PAGE", 2)
        for number in range(5):
            await bench.claim(f"0s8sf4s75de1-0000000{number}")
        assert await at(bench, Claims()).all(but_held=True) == 5
        assert len(await bench.names(KEYS.jobs)) == 5 and not await bench.names(KEYS.claims)

    play(deed)


def test_what_may_have_begun_and_must_not_run_twice_has_failed() -> None:
    async def deed(bench: Bench) -> None:
        bench.runners.tasks["m:once"] = TaskInfo("m:once", "async", on_orphan="fail")
        started = claim_of(token(1, "m:once"), 5).__class__(
            "m:once", "q", 0, 7, 1, "async", 0, fence=5, started=True
        )
        await bench.claim(count=1, task="m:once", claim=started)
        await bench.claim(OTHER, 1, "m:once")           # this one has not begun
        assert await at(bench, Claims()).all(but_held=True) == 2
        assert await bench.names(KEYS.failed) == [f"q/{BUNDLE}-0"] and await waiting(bench, OTHER)

    play(deed)


def test_what_cannot_be_read_is_set_aside() -> None:
    async def deed(bench: Bench) -> None:
        await bench.claim()
        await bench.put((KEYS.claim(NODE, BUNDLE), b"garbage"))
        assert await at(bench, Claims()).all(but_held=True) == 1
        assert await bench.names(KEYS.failed) == [f"q/{BUNDLE}-0", f"q/{BUNDLE}-1"]

    play(deed)


def test_a_node_that_is_no_member_any_more_hands_back_nothing() -> None:
    async def deed(bench: Bench) -> None:
        await bench.claim()
        await bench.delete(KEYS.node(NODE))
        assert await at(bench, Claims()).all(but_held=True) == 0
        assert await bench.names(KEYS.claims)

    play(deed)


def test_what_slept_does_not_expire_any_more() -> None:
    async def deed(bench: Bench) -> None:
        claim = replace(claim_of(token(2), 5), expires=9_000, slept="2")
        await bench.claim(claim=claim)
        assert await at(bench, Claims()).all(but_held=False) == 1
        assert [(await waiting(bench, f"{BUNDLE}.{index:02d}")).expires for index in range(2)] == [9_000, 0]

    play(deed)
