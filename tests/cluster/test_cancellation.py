"""A node that is told to end ends, whatever fails at that moment."""

from __future__ import annotations

import asyncio

import pytest

from rota.client.errors import LedgerUnavailable
from rota.cluster.cancellation import apart


async def test_a_loop_around_a_failing_group_can_be_cancelled() -> None:
    """Found by the simulation: a node that lost its lease while its master's group was failing led on for ever."""
    fail, turns = asyncio.Event(), 0

    async def child() -> None:
        await fail.wait()
        raise LedgerUnavailable("gone")

    async def turn() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child(), name="child")

    async def loop() -> None:
        nonlocal turns
        while True:
            turns += 1
            try:
                await apart(turn(), "turn")
            except* LedgerUnavailable:
                fail.clear()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0.01)
    fail.set()
    await asyncio.sleep(0)      # the child fails, and before its group has noticed:
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert turns == 1


async def test_what_fails_apart_fails_its_caller() -> None:
    async def fail() -> None:
        raise LedgerUnavailable("gone")

    with pytest.raises(LedgerUnavailable):
        await apart(fail(), "fails")
