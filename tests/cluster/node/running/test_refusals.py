"""What must not be run is set aside, until the store has taken it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.errors import LedgerUnavailable
from rota.cluster.events.records import KeyMissing
from rota.cluster.ledger.commits import Verdict, Write
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.table import Claims
from rota.cluster.node.running import refusals
from rota.cluster.node.running.refusals import Refusals
from rota.cluster.state.quarantine import ADVICE, SetAside
from rota.cluster.state.records import FailedRecord, claim_of, decode, encode

from ..bench import BUNDLE, KEYS, NODE, Bench, body, play, token


def at(bench: Bench) -> Refusals:
    context = bench.context
    return Refusals(context, SetAside(context.ledger, KEYS, context.clock, context.seal, context.buckets))


async def held_at(bench: Bench) -> Held:
    record = await bench.claim(count=1)
    claim = claim_of(token(1), 5)
    return Claims().add(BUNDLE, record, claim, mod_revision=record.mod_revision, body=body(count=1))


async def failed(bench: Bench) -> FailedRecord:
    record = decode(FailedRecord, (await bench.record(KEYS.failed_job("q", BUNDLE, 0))).value)
    assert record is not None
    return record


def test_it_goes_to_the_failed_set_with_its_reason() -> None:
    async def deed(bench: Bench) -> None:
        await at(bench).refuse(await held_at(bench), "bad signature")
        record = await failed(bench)
        assert (record.reason, record.error, record.node) == ("bad signature", ADVICE["bad signature"], NODE)
        assert not await bench.names(KEYS.claims) and not await bench.names(KEYS.bodies)

    play(deed)


def test_also_over_what_somebody_wrote_there() -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench)
        await bench.put((held.record.key, encode(claim_of(token(1), 99))))
        await at(bench).refuse(held, "bad signature")
        assert (await failed(bench)).reason == "bad signature" and not await bench.names(KEYS.claims)

    play(deed)


def test_what_is_not_ours_any_more_is_left_alone() -> None:
    async def deed(bench: Bench) -> None:
        held = await held_at(bench)
        await bench.delete(held.record.key)
        await at(bench).refuse(held, "bad signature")
        again = await bench.claim(count=1)
        assert again.create_revision != held.record.create_revision
        await at(bench).refuse(held, "bad signature")
        assert not await bench.names(KEYS.failed) and await bench.names(KEYS.claims)

    play(deed)


def test_a_claim_that_is_none() -> None:
    async def deed(bench: Bench) -> None:
        await bench.claim(count=1)
        await bench.put((KEYS.claim(NODE, BUNDLE), b"garbage"))
        await at(bench).unreadable(await bench.record(KEYS.claim(NODE, BUNDLE)))
        assert (await failed(bench)).reason == "unreadable"

    play(deed)


def test_a_store_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(bench: Bench) -> None:
        record, read, faults = await bench.claim(count=1), bench.ledger.read, [1, 2]

        async def faulty(*arguments: Any, **options: Any) -> Any:
            if faults:
                faults.pop()
                raise LedgerUnavailable("not now")
            return await read(*arguments, **options)

        monkeypatch.setattr(bench.ledger, "read", faulty)
        await at(bench).unreadable(record)
        assert await failed(bench) and not faults

    play(deed)


def test_a_missing_key_is_said_once_and_written_into_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(bench: Bench) -> None:
        monkeypatch.setattr(refusals, "MISSING_MAX", 2)
        said: list[Any] = []
        bench.context.events.listen(said.append, [KeyMissing])
        missing, held = at(bench), await held_at(bench)
        assert missing.note_missing(held, "k2") and held.claim.signed == "k2"
        assert not missing.note_missing(held, "k2")         # the master knew, and gave it to us
        for key_id in ("k3", "k4"):
            missing.note_missing(held, key_id)
        assert said == [KeyMissing(BUNDLE, "k2"), KeyMissing(BUNDLE, "k3")]

    play(deed)


def test_of_a_wide_bundle_all_is_set_aside_also_over_what_somebody_wrote_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def deed(bench: Bench) -> None:
        record = await bench.claim(count=200)
        claim = claim_of(token(200), 5)
        held = Claims().add(BUNDLE, record, claim, mod_revision=record.mod_revision, body=body(count=200))
        refusals, writes = at(bench), list[Write]()
        submit = bench.commits.submit

        def submitted(write: Write) -> asyncio.Future[Verdict]:
            writes.append(write)
            if len(writes) == 2:        # it overtakes the second part
                return asyncio.ensure_future(after_another(write))
            return submit(write)

        async def after_another(write: Write) -> Verdict:
            await bench.put((record.key, encode(replace(claim, done="f" * 50))))
            return await submit(write)

        monkeypatch.setattr(bench.commits, "submit", submitted)
        await refusals.refuse(held, "bad signature")
        assert len(await bench.names(KEYS.failed)) == 200 and len(writes) == 5
        assert not await bench.names(KEYS.claims) and not await bench.names(KEYS.bodies)

    play(deed)
