"""The failed set is emptied of what is old, where somebody asked for it."""

from __future__ import annotations

import asyncio
from typing import Any

from rota.cluster.events.records import FailedDropped
from rota.cluster.ledger.commits import created
from rota.cluster.master.duties.retention import LOOK_S_MIN, Retention
from rota.cluster.state import moves
from tests.cluster.node.bench import BUNDLE, KEYS, OTHER, Bench, a_moment, play, token

FENCE = KEYS.candidate(7)


async def failed(bench: Bench, bundle: str, at_s: float) -> None:
    ops = moves.fail(KEYS, bundle, 0, token(1), body=b"body", error="no", at_s=at_s)
    await bench.put(*[(op.key, op.value) for op in ops])  # type: ignore[union-attr]


async def at(bench: Bench, keep_s: float) -> Retention:
    fence = created(FENCE, await bench.put((FENCE, b"n1")))
    return Retention(bench.term(fence), keep_s)


def test_what_is_old_goes_with_its_body_and_the_others_stay() -> None:
    async def deed(bench: Bench) -> None:
        now = bench.clock.wall()
        await failed(bench, BUNDLE, now - 61.0)
        await failed(bench, OTHER, now - 59.0)
        await bench.put((KEYS.failed + b"not ours", b"x"), (KEYS.failed_job("q", f"{OTHER[:-1]}9", 0), b"garbage"))
        assert await (await at(bench, 60.0)).sweep() == 1
        assert f"q/{BUNDLE}-0" not in await bench.names(KEYS.failed) and len(await bench.names(KEYS.failed)) == 3
        assert await bench.names(KEYS.failures) == [f"{OTHER}-0"]

    play(deed)


def test_it_looks_again_and_says_how_many_it_dropped() -> None:
    async def deed(bench: Bench) -> None:
        said: list[Any] = []
        bench.context.events.listen(said.append, [FailedDropped])
        await failed(bench, BUNDLE, bench.clock.wall())
        running = asyncio.create_task((await at(bench, 2.0)).run(), name="retention")
        await a_moment(2.0 + LOOK_S_MIN)
        assert said == [FailedDropped(1, 2.0)] and not await bench.names(KEYS.failed)
        running.cancel()
        await asyncio.wait([running])

    play(deed)


def test_for_ever_is_for_ever() -> None:
    async def deed(bench: Bench) -> None:
        await failed(bench, BUNDLE, 0.0)
        await (await at(bench, 0.0)).run()
        assert await bench.names(KEYS.failed)

    play(deed)


def test_a_master_that_was_succeeded_drops_nothing() -> None:
    async def deed(bench: Bench) -> None:
        await failed(bench, BUNDLE, 1.0)
        retention = await at(bench, 60.0)
        await bench.delete(FENCE)
        assert await retention.sweep() == 0 and await bench.names(KEYS.failed)

    play(deed)
