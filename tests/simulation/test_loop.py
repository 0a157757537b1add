"""The virtual loop: its time, and what it refuses."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from . import loop
from .loop import EPOCH_S, Deadlock, RealInput, SimulationError, Standstill, VirtualClock, run_virtual


def test_an_hour_takes_no_time() -> None:
    async def main() -> float:
        clock = VirtualClock()
        await asyncio.sleep(3600)
        return clock.monotonic()

    began = time.perf_counter()
    assert run_virtual(main()) == pytest.approx(3600)
    assert time.perf_counter() - began < 0.05


def test_a_week_is_not_cut_short() -> None:
    async def main() -> float:
        await asyncio.sleep(7 * 86400)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(7 * 86400)


def test_timers_fire_in_order_and_on_time() -> None:
    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def worker(name: str, period_s: float) -> None:
            for _ in range(3):
                await asyncio.sleep(period_s)
                seen.append((name, round(asyncio.get_running_loop().time(), 6)))

        async with asyncio.TaskGroup() as group:
            group.create_task(worker("a", 1.0))
            group.create_task(worker("b", 0.7))
        return seen

    assert run_virtual(main()) == [("b", 0.7), ("a", 1.0), ("b", 1.4), ("a", 2.0), ("b", 2.1), ("a", 3.0)]


def test_timeouts_are_virtual() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(30)


def test_the_clock() -> None:
    async def main() -> tuple[float, float]:
        clock = VirtualClock(skew_s=-2.0)
        await asyncio.sleep(10)
        return clock.wall(), clock.monotonic()

    wall, monotonic = run_virtual(main())
    assert wall == pytest.approx(EPOCH_S + 8)
    assert monotonic == pytest.approx(10)


def test_a_deadlock_is_named() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"nothing is ready.*Event\.wait"):
        run_virtual(main())


def test_a_busy_loop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "STANDSTILL_TURNS_MAX", 1000)

    async def main() -> None:
        while True:      # noqa: ASYNC110 - this is the fault
            await asyncio.sleep(0)

    with pytest.raises(Standstill):
        run_virtual(main())


async def _connect() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def _thread() -> None:
    await asyncio.to_thread(time.sleep, 0)


async def _process() -> None:
    await asyncio.create_subprocess_exec("true")


async def _reader() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asyncio.get_running_loop().add_reader(ours, print)


@pytest.mark.parametrize("attempt", [_connect, _thread, _process, _reader])
def test_real_input_is_refused(attempt: object) -> None:
    with pytest.raises(RealInput):
        run_virtual(attempt())  # type: ignore[operator]


def test_what_nobody_looks_at_fails() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="nobody looked at"):
        run_virtual(main())
