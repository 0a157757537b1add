"""What the jobs of a bundle remember, as their node knows it."""

from __future__ import annotations

import asyncio

import pytest

from rota.client.errors import InvalidJob, JobTooLarge, RotaError
from rota.client.model import STEPS_MAX, Step
from rota.cluster.node.claims.memory import Memory


def test_what_ends_is_forgotten_and_what_goes_elsewhere_is_not() -> None:
    """(A piece that was given back has its steps still: they were deleted with the rest of its bundle.) Once."""
    memory = Memory({1: {0: Step("a")}, 2: {0: Step("a"), 3: Step("b")}, 5: {0: Step("a")}})
    assert memory.number(2) == 4
    memory.leave([5])
    assert memory.ended([1], final=False) == [1]
    assert memory.ended([1, 2, 3, 5], final=True) == [2]


async def test_a_step_under_way_when_its_job_ends_is_deleted_with_the_bundle() -> None:
    memory = Memory({})
    memory.number(4)
    under_way = memory.begin(4, "a")
    assert memory.ended([4], final=False) == [4]
    memory.is_stored(4, Step("a"))
    assert under_way.done() and memory.ended([], final=True) == [4]


async def test_when_the_claim_is_gone_whoever_waits_is_told() -> None:
    memory = Memory({})
    under_way = memory.begin(0, "a")
    memory.give_up()
    with pytest.raises(RotaError, match="this run of the job is void"):
        await asyncio.wait_for(under_way, 1)


def test_bounds() -> None:
    memory = Memory({0: {number: Step(f"a {number}") for number in range(STEPS_MAX)}})
    with pytest.raises(InvalidJob, match="1,000 steps at the most"):
        memory.refuse_more(0, Step("one more"))
    with pytest.raises(JobTooLarge):
        memory.refuse_more(1, Step("large", bytes(300_000)))
