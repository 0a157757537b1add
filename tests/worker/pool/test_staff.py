"""What becomes of a runner whose channel has ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rota.worker.pool import staff as staffs
from rota.worker.pool.runner_handle import RunnerHandle, State
from rota.worker.pool.staff import PoolConfig, Staff


class Guard:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def spawn(self, number: int, argv: list[str]) -> None:
        pass

    def kill(self, number: int) -> None:
        self.killed.append(number)


async def lost(fault: str = "") -> tuple[Staff, Guard, RunnerHandle]:
    guard: Any = Guard()
    staff = Staff(PoolConfig(), guard)
    staff.open()
    runner = next(iter(staff.runners.values()))
    runner.fault = fault
    staff.lost(runner)
    assert runner.state is State.DYING
    return staff, guard, runner


@pytest.mark.parametrize("stays", [True, False])
async def test_it_goes_by_itself_so_that_its_exit_says_why_and_is_killed_if_it_stays(
    stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staffs, "GOES_S", 0.02)
    staff, guard, runner = await lost()
    assert guard.killed == []
    if not stays:
        del staff.runners[runner.number]        # reaped
    await asyncio.sleep(0.05)
    assert guard.killed == ([runner.number] if stays else [])


async def test_what_garbled_its_channel_is_killed_at_once() -> None:
    _, guard, runner = await lost("it garbled its channel")
    assert guard.killed == [runner.number]
