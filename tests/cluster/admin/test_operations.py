"""What people do to a cluster, while the cluster does something else."""

from __future__ import annotations

import random

from rota.client.ids import job_id
from rota.client.model import Header
from rota.client.wire.codec import decode_header, encode_body
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.admin.operations import Operations
from rota.cluster.admin.status import Status
from rota.cluster.clock import SystemClock
from rota.cluster.context import IdentityContext
from rota.cluster.events.hub import Events
from rota.cluster.ledger.buckets import Buckets
from rota.cluster.ledger.commits import Commits, created, unmodified
from rota.cluster.ledger.ledger import Put, Txn, TxnResult
from rota.cluster.ledger.memory import MemoryLedger, MemoryStore
from rota.cluster.state import moves, revival
from rota.cluster.state.directory import Directory
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import FailedRecord, Token, decode, encode

KEYS, CLOCK = Keys("t"), SystemClock()
SEAL = Seal(UNSIGNED, "t")
BUNDLE = "0s8sf4s75de1-00000004"
PLACE = KEYS.job("q", 0, 1, f"{BUNDLE}.17")


class SplitsMeanwhile(MemoryLedger):
    """As soon as somebody has looked a body up, the master splits its bundle."""

    split_after_reads = 0

    async def commit(self, txn: Txn) -> TxnResult:
        result = await super().commit(txn)
        if not txn.then[0].key.startswith(KEYS.bodies) or not self.split_after_reads:
            return result
        self.split_after_reads -= 1
        token, body = (await self.read(PLACE)).records[0], (await self.read(KEYS.body(f"{BUNDLE}.17"))).records[0]
        at = unmodified(token.key, token.mod_revision)
        write = moves.split(KEYS, SEAL, (), at, f"{BUNDLE}.17", TOKEN, body, 1)
        assert (await super().commit(Txn(write.conditions, write.ops))).succeeded
        return result


TOKEN = Token("m:f", "q", 0, 1, 2, "async", 0)


def operations_on(ledger: MemoryLedger, commits: Commits) -> Operations:
    context = IdentityContext(
        node="n", member=created(b"member", 0), ledger=ledger, commits=commits, keys=KEYS, clock=CLOCK,
        seal=SEAL, buckets=Buckets(ledger, CLOCK, random.Random(1)), events=Events(),
    )
    return Operations(context, Status(ledger, KEYS, CLOCK, Directory(ledger, KEYS), context.seal), random.Random(1))


async def test_cancelling_a_job_of_a_bundle_that_is_just_being_split_takes_no_other_along() -> None:
    """Found by the simulation, seed 12833: after the split the old name stood for the first piece alone, and that was
    deleted instead of the job asked for."""
    ledger = SplitsMeanwhile(MemoryStore(CLOCK))
    header = Header(BUNDLE, "m:f", "q", "async", [17, 18], [1, 1], 0.0)
    body = encode_body(header, [b"x", b"y"])
    await ledger.commit(Txn((), (Put(PLACE, encode(TOKEN)), Put(KEYS.body(f"{BUNDLE}.17"), body))))
    async with Commits(ledger) as commits:
        operations = operations_on(ledger, commits)
        ledger.split_after_reads = 1
        assert await operations.cancel(f"{BUNDLE}/18") == "cancelled"
    bodies = (await ledger.read(KEYS.bodies, KEYS.bodies + b"\xff")).records
    assert [decode_header(record.value)[0].indexes for record in bodies] == [[17]]
    tokens = (await ledger.read(KEYS.jobs, KEYS.jobs + b"\xff")).records
    assert [record.key for record in tokens] == [PLACE]
    await ledger.close()


async def test_a_skipped_head_comes_back_without_the_job_that_was_cancelled_beside_it() -> None:
    """Found by the simulation: the failed set kept the body of both."""
    ledger = MemoryLedger(MemoryStore(CLOCK))
    body = encode_body(Header(BUNDLE, "m:f", "q", "async", [0, 1], [1, 1], 0.0), [b"x", b"y"])
    token = Token("m:f", "q", 0, 1, 2, "async", 0, attempt=2, done="2", blocked=True)
    await ledger.commit(Txn((), (Put(KEYS.job("q", 0, 1, BUNDLE), encode(token)), Put(KEYS.body(BUNDLE), body))))
    async with Commits(ledger) as commits:
        operations = operations_on(ledger, commits)
        assert await operations.head("q", "skip") == job_id(BUNDLE, 0)
    (record,) = (await ledger.read(KEYS.failed, KEYS.failed + b"\xff")).records
    failed = decode(FailedRecord, record.value)
    assert failed is not None
    kept = (await ledger.read(KEYS.failure(BUNDLE, 0))).records[0]
    again = revival.retry(KEYS, CLOCK, (), record, failed, kept)
    assert again is not None
    write = again.write(1, None)
    assert (await ledger.commit(Txn(write.conditions, write.ops))).succeeded
    (back,) = (await ledger.read(KEYS.bodies, KEYS.bodies + b"\xff")).records
    assert decode_header(back.value)[0].indexes == [0]
    await ledger.close()
