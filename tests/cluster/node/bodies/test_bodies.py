"""A body before a runner sees a byte of it: read, verified, compared with its claim."""

from __future__ import annotations

from typing import Any

import pytest

from rota.client.errors import LedgerUnavailable
from rota.client.wire.keyring import UNSIGNED, Keyring
from rota.cluster.events.records import BundleRefused
from rota.cluster.ledger.ledger import Txn, TxnResult
from rota.cluster.node.bodies.loading import FETCH_MAX, Bodies, Found
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.table import Claims
from rota.cluster.state.records import claim_of

from ..bench import BUNDLE, KEYS, OTHER, Bench, body, header, play, token

KEYRING = Keyring({"k1": b"1" * 32})


async def held_at(bench: Bench, table: Claims, stored: bytes | None = None, bundle: str = BUNDLE) -> Held:
    record = await bench.claim(bundle, stored=stored)
    return table.add(bundle, record, claim_of(token(), 5), mod_revision=record.mod_revision)


async def look(bench: Bench, stored: bytes) -> Found:
    bodies = Bodies(bench.context)
    bodies.want(await held_at(bench, Claims(), stored))
    (batch,) = bodies.batches()
    (found,) = [found async for found in bodies.fetch(batch)]
    return found


def test_what_is_as_its_claim_says_may_run() -> None:
    async def deed(bench: Bench) -> None:
        found = await look(bench, body())
        assert found == Found(found.held)
        assert found.held.header == header() and found.held.jobs == [(0, b"x"), (1, b"x")]

    play(deed)


@pytest.mark.parametrize(("stored", "reason"), [
    (b"", "body missing"), (b"garbage", "body unreadable"), (body(OTHER), "another's body"),
    (body(task="m:g"), "another's body"), (body(count=3), "another's body"),
])
def test_what_is_not_is_refused_and_said(stored: bytes, reason: str) -> None:
    async def deed(bench: Bench) -> None:
        said: list[Any] = []
        bench.context.events.listen(said.append, [BundleRefused])
        found = await look(bench, stored)
        assert found.refused == reason and found.elsewhere is None and len(said) == 1

    play(deed)


def test_what_was_changed_is_refused() -> None:
    async def deed(bench: Bench) -> None:
        signed = KEYRING.sign_body(body(), "c")
        assert (await look(bench, signed)).refused == ""
        assert (await look(bench, signed[:-1] + b"y")).refused == "bad signature"
        assert (await look(bench, KEYRING.sign_body(body(), "another cluster"))).refused == "bad signature"

    play(deed, KEYRING)


def test_what_is_signed_with_a_key_that_is_not_here_is_for_others() -> None:
    async def deed(bench: Bench) -> None:
        found = await look(bench, Keyring({"k2": b"2" * 32}).sign_body(body(), "c"))
        assert found.elsewhere == "k2" and not found.refused

    play(deed, KEYRING)


def test_a_body_that_is_known_is_compared_too() -> None:
    async def deed(bench: Bench) -> None:
        bodies, held = Bodies(bench.context), await held_at(bench, Claims())
        held.header = header()
        assert bodies.compare(held) == Found(held)
        held.header = header(OTHER)
        assert bodies.compare(held).refused == "another's body"

    play(deed)


def test_batches() -> None:
    async def deed(bench: Bench) -> None:
        bodies, table = Bodies(bench.context), Claims()
        record = await bench.claim()
        for number in range(FETCH_MAX + 1):
            bodies.want(table.add(f"b{number}", record, claim_of(token(), 5)))
        assert [len(batch) for batch in bodies.batches()] == [FETCH_MAX, 1] and not list(bodies.batches())

    play(deed)


def test_what_left_while_its_body_was_read_is_not_told() -> None:
    async def deed(bench: Bench) -> None:
        bodies, table = Bodies(bench.context), Claims()
        held = await held_at(bench, table)
        table.forget(held)
        assert [found async for found in bodies.fetch([held])] == []

    play(deed)


def test_a_store_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(bench: Bench) -> None:
        held, commit, faults = await held_at(bench, Claims()), bench.ledger.commit, [1, 2]

        async def faulty(txn: Txn) -> TxnResult:
            if faults:
                faults.pop()
                raise LedgerUnavailable("not now")
            return await commit(txn)

        monkeypatch.setattr(bench.ledger, "commit", faulty)
        (found,) = [found async for found in Bodies(bench.context).fetch([held])]
        assert not found.refused and not faults

    play(deed)


def test_code_that_was_shipped_by_value() -> None:
    async def deed(bench: Bench) -> None:
        from hashlib import sha256

        from rota.client.wire.keyring import Seal

        code = b"code"
        digest = sha256(code).hexdigest()
        bodies, held = Bodies(bench.context), await held_at(bench, Claims())
        held.header = header()
        held.header = type(held.header)(**{
            name: getattr(held.header, name) for name in held.header.__struct_fields__
        } | {"function": digest})
        missing = await bodies.fetch_function(held)
        assert missing is not None and missing.refused == "code missing"
        await bench.put((KEYS.function(digest), Seal(UNSIGNED, "c").function(code)))
        found = await bodies.fetch_function(held)
        assert found == Found(held) and bodies.function(held.header) == code

    play(deed)


