"""Whether a term goes on."""

from __future__ import annotations

import asyncio

import pytest

from rota.cluster.master.election.authority import Authority, OutOfStep
from rota.cluster.master.election.election import Deposed


async def test_the_first_that_is_said_ends_the_term() -> None:
    authority = Authority()
    lost = asyncio.create_task(authority.lost())
    await asyncio.sleep(0)
    authority.depose()
    authority.look_again("too late")
    with pytest.raises(Deposed):
        await lost


async def test_after_a_look_it_hears_the_next_one() -> None:
    authority = Authority()
    lost = asyncio.create_task(authority.lost())
    await asyncio.sleep(0)
    authority.look_again("a node was missed")
    with pytest.raises(OutOfStep, match="a node was missed"):
        await lost
    authority.depose()
    with pytest.raises(Deposed):
        await authority.lost()


async def test_when_it_is_over_nobody_is_heard() -> None:
    authority = Authority()
    authority.is_over()
    authority.depose()
    authority.look_again("late")
