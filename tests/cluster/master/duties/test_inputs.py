"""What jobs get of those that they wait for."""

from __future__ import annotations

from rota.client.model import ResultEntry
from rota.cluster.clock import SystemClock
from rota.cluster.ledger.commits import Commits
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master.duties.awaited import Waiting
from rota.cluster.master.duties.inputs import BYTES_PER_WRITE, Inputs
from rota.cluster.state.keys import Keys

from ..terms import term

KEYS = Keys("t")
WAITS, UPSTREAM = "0s8sf4s75de1-00000004", "0s8sf4s75de1-00000005"


async def stage(ledger: MemoryLedger, commits: Commits, wanted: int = 0) -> tuple[Inputs, Waiting]:
    key = KEYS.awaits("q", WAITS)
    revision = (await ledger.commit(Txn((), (Put(key, b"{}"),)))).revision
    inputs = Inputs(term(ledger, commits, KEYS, SystemClock()))
    return inputs, Waiting(key, WAITS, revision, None, {UPSTREAM: 0b111}, {UPSTREAM: wanted})


async def given(ledger: MemoryLedger) -> list[tuple[int, bool]]:
    """(jobs, whether they ended well) of what lies beside it."""
    area = KEYS.inputs_of(WAITS)
    parsed = [KEYS.parse_input(record.key) for record in (await ledger.read(area, area[:-1] + b"0")).records]
    return [(found[2], found[3]) for found in parsed if found is not None]


async def test_values_go_to_who_wants_them_in_writes_of_a_size() -> None:
    ledger = MemoryLedger()
    async with Commits(ledger) as commits:
        inputs, waiting = await stage(ledger, commits, wanted=0b011)
        large = bytes(BYTES_PER_WRITE - 100)
        entries = [ResultEntry(index, "ok", value=large) for index in range(3)]
        parts = list(inputs.parts(waiting, UPSTREAM, entries))
        assert [jobs for jobs, _ in parts] == [0b001, 0b110]        # the third costs nothing: its value is not wanted
        for _, put in parts:
            assert await inputs.let_in(waiting, put)
        assert await given(ledger) == [(0b001, True), (0b110, True)]


async def test_nothing_is_put_beside_what_waits_no_more_as_it_was_seen() -> None:
    ledger = MemoryLedger()
    async with Commits(ledger) as commits:
        inputs, waiting = await stage(ledger, commits)
        ((_, put),) = inputs.parts(waiting, UPSTREAM, [ResultEntry(0, "ok")])
        assert await inputs.let_in(waiting, put)
        assert await inputs.let_in(waiting, put)                # said again: it is there
        await ledger.commit(Txn((), (Put(waiting.key, b"{} "),)))
        ((_, other),) = inputs.parts(waiting, UPSTREAM, [ResultEntry(1, "ok")])
        assert not await inputs.let_in(waiting, other)


async def test_what_has_failed_is_noted_and_so_is_that_it_was_retried() -> None:
    ledger = MemoryLedger()
    async with Commits(ledger) as commits:
        inputs, waiting = await stage(ledger, commits)
        assert await inputs.tell_badly(waiting, UPSTREAM, 0b10)
        assert await given(ledger) == [(0b10, False)] and waiting.badly == {UPSTREAM: 0b10}
        assert await inputs.tell_badly(waiting, UPSTREAM, 0b11)
        assert await given(ledger) == [(0b11, False)]
        assert await inputs.tell_badly(waiting, UPSTREAM, 0)
        assert await given(ledger) == [] and waiting.badly == {UPSTREAM: 0}
