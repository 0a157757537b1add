"""What a bulk operation is about."""

from __future__ import annotations

import pytest

from rota.client.ids import job_id
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.client.wire.views import FailedFilter
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master.duties.targets import Targets
from rota.cluster.state.keys import Keys, record_id
from rota.cluster.state.records import FailedRecord, OperationRecord, Token, claim_of, encode
from rota.cluster.state.words import Words

KEYS = Keys("t")
ONE, TWO, LATE = (f"0s8sf4s75de1-0000000{number}" for number in (1, 2, 3))


def token(task: str = "m:f", queue: str = "q", order: int = 1) -> Token:
    return Token(task, queue, 0, order, 1, "sync", 0)


async def store() -> tuple[MemoryLedger, int]:
    """Jobs of two queues, in all places; and the revision after which one more came."""
    ledger = MemoryLedger()
    failed = FailedRecord(record_id(ONE, 0), "m:f", "q", "ValueError: x", 1, "n", 0.0)
    revision = (await ledger.commit(Txn((), (
        Put(KEYS.failed_job("q", ONE, 0), encode(failed)), Put(KEYS.job("q", 0, 1, ONE), encode(token())),
        Put(KEYS.job("r", 0, 1, TWO), encode(token("m:g", "r"))), Put(KEYS.due(9, "q", TWO), encode(token())),
        Put(KEYS.claim("n", TWO), encode(claim_of(token(), 5))),
    )))).revision
    late = token(order=revision + 1)
    await ledger.commit(Txn((), (Put(KEYS.job("q", 0, late.order, LATE), encode(late)),)))
    return ledger, revision


async def of(verb: str, asked_at: int = 0, **which: object) -> list[str]:
    ledger, revision = await store()
    operation = OperationRecord(verb, FailedFilter(**which), 0.0, since=revision)  # type: ignore[arg-type]
    targets = Targets(ledger, KEYS, Words(Seal(UNSIGNED, "t")), operation)
    return [
        target.record.key.removeprefix(KEYS.root).decode().partition("/")[0]
        async for target in targets.of(operation, asked_at)
    ]


@pytest.mark.parametrize(("verb", "which", "found"), [
    ("empty", {"queue": "q"}, ["jobs"]),                    # (what came later is not its affair)
    ("cancel", {}, ["jobs", "jobs", "scheduled", "claims"]),
    ("cancel", {"queue": "r"}, ["jobs"]),
    ("cancel", {"task": "m:g"}, ["jobs"]),
    ("delete", {}, ["failed"]),
    ("retry", {"error": "ValueError"}, ["failed"]),
    ("delete", {"error": "KeyError"}, []),
    ("delete", {"task": "m:g"}, []),
    ("delete", {"ids": [job_id(TWO, 0)]}, []),
])
async def test_it_is_about_what_fits_and_was_there(verb: str, which: dict[str, object], found: list[str]) -> None:
    assert await of(verb, **which) == found


async def test_a_claim_whose_node_was_asked_before_is_not_asked_again() -> None:
    assert "claims" not in await of("cancel", asked_at=10_000)
