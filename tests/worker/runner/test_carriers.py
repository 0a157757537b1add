"""Jobs that do not pause share a task, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from decimal import getcontext
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import uvloop

from rota.client.model import NO_OPTIONS, Outcome, TaskInfo
from rota.worker.channel import start_permits
from rota.worker.channel.deadline import Lease, now
from rota.worker.channel.frames import Cancel, Done, Drop, Dropped, Ready, Run, Starved, Well, Work
from rota.worker.runner import carriers
from rota.worker.runner.async_runner import AsyncRunner
from rota.worker.runner.context import current_job_id
from rota.worker.runner.execution import Functions

Job = Callable[[int], Awaitable[object]]

color: ContextVar[str] = ContextVar("color", default="none")


class Rig:
    """A runner without a node: what it says is kept."""

    def __init__(self, runner: AsyncRunner, permits: int) -> None:
        self.runner = runner
        self._permits = permits
        self.said: list[msgspec.Struct] = []
        self._key = 0

    def send(self, frame: msgspec.Struct) -> None:
        self.said.append(frame)

    def give(self, count: int, *, task: str = "job", permits: int | None = None, spare: bool = False) -> int:
        """A bundle of jobs, each with its index as its argument. Returns its key."""
        self._key += 1
        if permits != 0:
            start_permits.grant(self._permits, count if permits is None else permits)
        jobs = [(index, pickle.dumps(((index,), {}), 5)) for index in range(count)]
        work = Work(self._key, f"b{self._key}", task, "q", "async", 1, 5, 1.0, "pickle", jobs)
        self.runner._receive([Run(work, 0, spare)])
        return self._key

    @property
    def outcomes(self) -> list[tuple[int, int, str]]:
        """Key, index and status, in the order of arrival."""
        ended: list[tuple[int, int, str]] = []
        for frame in self.said:
            if isinstance(frame, Well):
                ended += [(key, index, "ok") for key, indexes, _ in frame.jobs for index in indexes]
            elif isinstance(frame, Done):
                ended += [(key, outcome.index, outcome.status) for key, outcome in frame.outcomes]
        return ended

    async def until(self, count: int) -> list[tuple[int, int, str]]:
        await turns(lambda: len(self.outcomes) >= count)
        return self.outcomes


async def turns(condition: Callable[[], bool]) -> None:
    """Of the loop, until it is so."""
    async with asyncio.timeout(20):
        while not condition():      # noqa: ASYNC110 - nothing would tell
            await asyncio.sleep(0)


@asynccontextmanager
async def rigged(at_once: int = 1_000, **functions: Job) -> AsyncIterator[Rig]:
    node, end = socket.socketpair()
    permits = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
    page = os.memfd_create("lease")
    os.write(page, struct.pack("d", now() + 1e6))
    tasks: dict[str, Any] = {
        name: SimpleNamespace(
            name=name, function=function, info=TaskInfo(name, "async"), described=TaskInfo(name, "async"), models={},
            signature=None, retry_decision=lambda *_: SimpleNamespace(delay_s=None, problem=""),
        )
        for name, function in functions.items()
    }
    runner = AsyncRunner(end, permits, Lease(page), at_once=at_once)
    serving = asyncio.create_task(runner.serve(Functions(tasks), Ready([])))
    await turns(lambda: hasattr(runner, "_channel"))
    runner._channel.close()
    rig = Rig(runner, permits)
    runner._channel = rig       # type: ignore[assignment]
    try:
        yield rig
    finally:
        runner._stop.set()
        await serving
        node.close()
        os.close(permits)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            runner.run(main)

    return run


RunLoop = Callable[[Coroutine[Any, Any, None]], None]


def me() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def test_jobs_that_do_not_pause_share_a_task_and_each_knows_who_it_is(
    run: RunLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriers, "BREATH_S", 3600.0)       # however slow this machine is
    seen: list[tuple[str, str]] = []
    numbers: list[int] = []

    async def job(index: int) -> None:
        seen.append((me().get_name(), current_job_id()))
        numbers.append(id(me()))

    async def main() -> None:
        async with rigged(job=job, other=job) as rig:
            rig.give(30)
            rig.give(2, task="other")
            assert await rig.until(32) == [*((1, index, "ok") for index in range(30)), (2, 0, "ok"), (2, 1, "ok")]
            assert len(rig.said) == 1               # one turn, one frame

    run(main())
    assert [name for name, _ in seen] == ["job"] * 30 + ["other"] * 2
    assert len({job_id for _, job_id in seen}) == 32
    assert len(set(numbers)) == 1


def rename() -> None:
    me().set_name("mine")


def use_decimals() -> None:
    getcontext().prec = 5


class Sinks:
    def __init__(self) -> None:
        self.strong: list[object] = []
        self.keyed: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()
        self.told: list[object] = []


sinks = Sinks()


@pytest.mark.parametrize("leave", [
    rename,
    use_decimals,
    lambda: color.set("red"),
    lambda: color.set([]),       # type: ignore[arg-type]
    lambda: me().cancel(),
    lambda: (me().cancel(), me().uncancel()),
    lambda: me().add_done_callback(sinks.told.append),
    lambda: sinks.strong.append(me()),
    lambda: sinks.keyed.__setitem__(me(), "mine"),
])
def test_a_task_that_a_job_has_marked_carries_no_other(run: RunLoop, leave: Callable[[], object]) -> None:
    found: list[object] = []
    sinks.told.clear()
    sinks.strong.clear()

    async def job(index: int) -> None:
        found.append((me() in sinks.keyed, me() in sinks.strong, color.get(), me().get_name(), me().cancelling()))
        if index % 2 == 0:
            leave()
        else:
            await asyncio.sleep(0)          # here a cancel that was asked for would come

    async def main() -> None:
        async with rigged(job=job) as rig:
            rig.give(6)
            assert {status for _, _, status in await rig.until(6)} == {"ok"}
            await asyncio.sleep(0)

    run(main())
    assert found == [(False, False, "none", "job", 0)] * 6
    assert len(sinks.told) in (0, 3)


def test_jobs_that_wait_do_so_together_and_a_cancel_hits_one(run: RunLoop) -> None:
    began: list[int] = []
    ends: dict[int, str] = {}

    async def job(index: int) -> None:
        began.append(index)
        color.set(f"c{index}")
        try:
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0.001 if index != 3 else 60))
        finally:
            ends[index] = f"{color.get()} {me().get_name()} {current_job_id()[-1]}"

    async def main() -> None:
        async with rigged(job=job) as rig:
            key = rig.give(6)
            await turns(lambda: len(began) == 6)
            assert not rig.outcomes
            rig.runner._receive([Cancel(key, 3)])
            assert {index: status for _, index, status in await rig.until(6)} == {
                index: "cancelled" if index == 3 else "ok" for index in range(6)
            }
            assert not rig.runner._carriers

    run(main())
    assert began == list(range(6))
    assert ends == {index: f"c{index} job {index}" for index in range(6)}


def test_the_loop_breathes_between_jobs_that_take_long(run: RunLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a cancel finds the next one before it begins, and what has ended is told."""
    monkeypatch.setattr(carriers, "BREATH_S", 0.0)
    began: list[tuple[int, int]] = []
    told: list[int] = []

    async def job(index: int) -> None:
        began.append((rig_of[0]._key, index))
        told.append(len(rig_of[0].outcomes))
        if index == 1:
            asyncio.get_running_loop().call_soon(rig_of[0].runner._receive, [Cancel(1, 4)])

    rig_of: list[Rig] = []

    async def main() -> None:
        async with rigged(job=job) as rig:
            rig_of.append(rig)
            rig.give(6)
            outcomes = await rig.until(6)
            assert outcomes == [(1, index, "cancelled" if index == 4 else "ok") for index in range(6)]

    run(main())
    assert [index for _, index in began] == [0, 1, 2, 3, 5]
    assert told[-1] > 0


def test_starts_keep_the_order_in_which_they_were_sent(run: RunLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of the permits is that of the last ones: a job that pauses, a breath, or another bundle in between
    must not let one begin before those that came earlier."""
    began: list[str] = []

    async def job(index: int) -> None:
        began.append(current_job_id())
        if index % 3 == 1:
            await asyncio.sleep(0)

    async def main(breath_s: float) -> None:
        monkeypatch.setattr(carriers, "BREATH_S", breath_s)
        began.clear()
        async with rigged(job=job, other=job) as rig:
            expected = []
            for bundle in range(1, 12):
                rig.give(bundle, task="other" if bundle % 3 else "job")
                expected += [(bundle, index) for index in range(bundle)]
                if bundle % 4 == 0:
                    await asyncio.sleep(0)
            await rig.until(len(expected))
            assert len(began) == len(expected) == len(set(began))
            assert began == [f"b{bundle}_{index}" for bundle, index in expected]

    for breath_s in (0.0, 10.0):
        run(main(breath_s))


def test_what_was_taken_back_does_not_begin(run: RunLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "BREATH_S", 0.0)
    began: list[int] = []

    async def job(index: int) -> None:
        began.append(index)

    async def main() -> None:
        async with rigged(job=job) as rig:
            rig.give(5, permits=2)
            rig.runner._receive([Cancel(1, 4)])
            await turns(lambda: len(began) == 2)
            rig.runner._receive([Drop()])
            rig.give(3)                     # granted when it has said that it has forgotten them, not before
            assert await rig.until(5) == [(1, 0, "ok"), (1, 1, "ok"), (2, 0, "ok"), (2, 1, "ok"), (2, 2, "ok")]
            kinds = [type(frame) for frame in rig.said if not isinstance(frame, Well)]
            assert kinds.count(Dropped) == 1
            assert not rig.runner._cancelled and not rig.runner._carriers
            assert kinds.count(Starved) <= 3

    run(main())
    assert began == [0, 1, 0, 1, 2]


def test_a_time_limit_ends_the_one_that_waits(run: RunLoop) -> None:
    async def job(index: int) -> None:
        if index == 2:
            await asyncio.sleep(60)

    async def main() -> None:
        async with rigged(job=job) as rig:
            start_permits.grant(rig._permits, 4)
            jobs = [(index, pickle.dumps(((index,), {}), 5)) for index in range(4)]
            options = msgspec.structs.replace(NO_OPTIONS, timeout_s=0.01)
            rig.runner._receive([Run(Work(1, "b1", "job", "q", "async", 1, 5, 1.0, "pickle", jobs, None, options))])
            outcomes = await rig.until(4)
            assert sorted(outcomes) == [(1, 0, "ok"), (1, 1, "ok"), (1, 2, "failed"), (1, 3, "ok")]
            done = [frame for frame in rig.said if isinstance(frame, Done)]
            assert isinstance(done[0].outcomes[0][1], Outcome)
            assert "timed out after 0.01 s" in done[0].outcomes[0][1].error
            assert not rig.runner._clocks

    run(main())


def test_a_job_that_raises_leaves_the_task_to_the_next(run: RunLoop) -> None:
    numbers: list[int] = []

    async def job(index: int) -> None:
        numbers.append(id(me()))
        if index == 1:
            raise SystemExit(3)
        if index == 2:
            raise asyncio.CancelledError
        with contextlib.suppress(ValueError):
            raise ValueError(index)

    async def main() -> None:
        async with rigged(job=job) as rig:
            rig.give(5)
            assert sorted(await rig.until(5)) == [
                (1, 0, "ok"), (1, 1, "failed"), (1, 2, "failed"), (1, 3, "ok"), (1, 4, "ok")
            ]

    run(main())
    assert len(numbers) == 5


def test_no_more_have_begun_than_may_and_the_others_follow_in_order(run: RunLoop) -> None:
    begun: list[int] = []
    at_once: list[int] = []
    go = [asyncio.Event() for _ in range(20)]

    async def job(index: int) -> None:
        begun.append(index)
        if index % 4:               # some pause, some do not
            at_once.append(sum(not go[other].is_set() for other in begun if other % 4))
            await go[index].wait()

    async def main() -> None:
        async with rigged(at_once=3, job=job) as rig:
            rig.give(20)
            for index in range(20):
                if index % 4:
                    await turns(lambda index=index: index in begun)
                    await asyncio.sleep(0)
                    go[index].set()
            assert sorted(await rig.until(20)) == [(1, index, "ok") for index in range(20)]

    run(main())
    assert begun == list(range(20)) and max(at_once) == 3


def test_whoever_has_a_place_of_its_own_begins_beside_as_many_as_may(run: RunLoop) -> None:
    go = asyncio.Event()
    begun: list[int] = []

    async def job(index: int) -> None:
        begun.append(index)
        await go.wait()

    async def quick(index: int) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        async with rigged(at_once=2, job=job, quick=quick) as rig:
            rig.give(2)
            await turns(lambda: len(begun) == 2)
            spare = rig.give(1, task="quick", spare=True)
            assert await rig.until(1) == [(spare, 0, "ok")]
            rig.give(1)             # waits for one of the two
            await asyncio.sleep(0)
            assert len(begun) == 2
            rig.runner._receive([Drop()])
            go.set()
            assert len(await rig.until(3)) == 3 and len(begun) == 2

    run(main())
