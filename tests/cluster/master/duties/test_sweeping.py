"""What was kept for jobs, and for flows, that are not there any more goes."""

from __future__ import annotations

import pytest

from rota.cluster.clock import SystemClock
from rota.cluster.ledger.commits import Commits
from rota.cluster.ledger.ledger import Put, Txn, prefix_end
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master.duties.awaited import Awaited, Waiting
from rota.cluster.master.duties.sweeping import sweep, sweep_steps
from rota.cluster.state.keys import Keys

from ..terms import term

KEYS = Keys("t")
JOB, UPSTREAM = "0s8sf4s75de1-00000004", "0s8sf4s75de1-00000005"
INPUT = KEYS.input(JOB, UPSTREAM, 1)


@pytest.mark.parametrize(("beside", "stays"), [
    ((), False), ((KEYS.body(JOB),), True), ((KEYS.body(f"{JOB}.3"),), True), ((KEYS.failure(JOB, 0),), True),
    ((KEYS.flow(JOB),), True), ((KEYS.flow_ended(JOB),), True), ((KEYS.body(UPSTREAM),), False),
])
async def test_it_stays_as_long_as_a_job_or_a_flow_of_that_name_does(beside: tuple[bytes, ...], stays: bool) -> None:
    ledger = MemoryLedger()
    await ledger.commit(Txn((), tuple(Put(key, b"") for key in (INPUT, KEYS.graph(JOB, JOB), *beside))))
    async with Commits(ledger) as commits:
        await sweep(term(ledger, commits, KEYS, SystemClock()), Awaited())
    left = [(await ledger.read(area, prefix_end(area))).records for area in (KEYS.inputs, KEYS.graphs)]
    assert [bool(records) for records in left] == [stays, stays]


async def test_what_waits_keeps_what_it_has_got() -> None:
    ledger, awaited = MemoryLedger(), Awaited()
    await ledger.commit(Txn((), (Put(INPUT, b""),)))
    awaited.put(Waiting(KEYS.awaits("q", JOB), JOB, 1, None, {UPSTREAM: 1}, {}))
    async with Commits(ledger) as commits:
        await sweep(term(ledger, commits, KEYS, SystemClock()), awaited)
    assert (await ledger.read(INPUT)).records


@pytest.mark.parametrize(("beside", "stays"), [
    ((), False), ((KEYS.body(JOB),), True), ((KEYS.body(f"{JOB}.x300"),), True), ((KEYS.failure(JOB, 479),), True),
])
async def test_what_jobs_remembered_stays_as_long_as_one_of_their_bundle_does(
    beside: tuple[bytes, ...], stays: bool
) -> None:
    ledger, steps = MemoryLedger(), [KEYS.step(JOB, index, 0) for index in range(0, 200, 2)]
    await ledger.commit(Txn((), tuple(Put(key, b"") for key in (*steps, *beside))))
    async with Commits(ledger) as commits:
        for _ in range(2):      # more than one write takes
            await sweep_steps(term(ledger, commits, KEYS, SystemClock()))
    left = (await ledger.read(KEYS.steps, prefix_end(KEYS.steps))).records
    assert len(left) == (len(steps) if stays else 0)
