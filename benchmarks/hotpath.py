"""`python -m benchmarks.hotpath`: what one job of a bundle of 60 costs each layer, by itself: microseconds of CPU, and
calls of functions (Python's and C's).

Nothing but the layer runs, in this process, without a store or a socket, so that the figures are the same on a busy
machine: times are the best of many bundles. The calls are counted, not timed: they are the same in every run on one
version of Python, and `tests/test_hotpath.py` holds them to a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import pickle
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any, NamedTuple

import msgspec

from rota.client.api import bulk
from rota.client.ids import Names
from rota.client.model import Mode
from rota.client.tasks import task as tasks
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.events.hub import Events
from rota.cluster.telemetry.tally import Tally
from rota.worker.channel.channel import Parser, pack
from rota.worker.channel.deadline import Lease, now
from rota.worker.channel.frames import Done, Ready, Run, Stop, ToRunner, Well, Work
from rota.worker.channel.job_numbers import job_number
from rota.worker.channel.outcomes import returned_none
from rota.worker.channel.tally import Tally as RunnersTally
from rota.worker.guard.tally import new_tally
from rota.worker.pool.runner_handle import RunnerHandle
from rota.worker.runner.async_runner import AsyncRunner
from rota.worker.runner.execution import Functions
from rota.worker.runner.sync_runner import SyncRunner

from . import jobs

BUNDLE = 60
WARM = 3


class Cost(NamedTuple):
    """Of one job: microseconds, and calls."""

    us: float
    calls: float


class Meter:
    """`with meter:` around what one bundle costs; the first few do not count."""

    def __init__(self, *, counting: bool) -> None:
        self._counting = counting
        self._seen: list[float] = []
        self._calls = 0

    def __enter__(self) -> None:
        self._calls, self._began = 0, time.perf_counter()
        if self._counting:
            sys.setprofile(self._called)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self._seen.append(self._calls if self._counting else 1e6 * (time.perf_counter() - self._began))

    def _called(self, frame: Any, event: str, argument: Any) -> None:
        self._calls += event in ("call", "c_call")

    @property
    def least(self) -> float:
        """For one job."""
        return min(self._seen[WARM:]) / BUNDLE


Layer = Callable[[Meter, int], None]


def client(meter: Meter, bundles: int) -> None:
    """`enqueue_many`: checked, pickled, made into a signed bundle."""
    seal, names, task = Seal(UNSIGNED, "bench"), Names(), tasks.registry["benchmarks.jobs:noop"]
    route, _ = task.destination()
    for _ in range(bundles):
        calls = repeat((jobs.argument(5),), BUNDLE)
        with meter:
            for _ in bulk.frames(task, route, iter(calls), seal, names):
                pass


def runner_async(meter: Meter, bundles: int) -> None:
    """A runner of `async def` jobs: from the bytes of a frame to those of its answer."""
    asyncio.run(_run_async(meter, bundles))


async def _run_async(meter: Meter, bundles: int) -> None:
    with _hands() as (sock, permits, lease):
        runner = AsyncRunner(sock, permits, lease)
        serving = asyncio.create_task(runner.serve(_functions(), Ready([])))
        while not hasattr(runner, "_channel"):      # noqa: ASYNC110 - it says so to the node only
            await asyncio.sleep(0)
        runner._channel.close()
        answers = runner._channel = _Answers()      # type: ignore[assignment]
        for key in range(1, bundles + 1):
            frames = _frames("async", key, permits)
            answers.begin()
            with meter:
                runner._receive(frames())
                await answers.all_here.wait()
        runner._stop.set()
        await serving


class _Answers:
    """In the place of a channel: packs what is said, and counts the jobs that have ended."""

    def begin(self) -> None:
        self.all_here = asyncio.Event()
        self._left = BUNDLE

    def send(self, frame: msgspec.Struct) -> None:
        pack(frame)
        self._left -= ended_in(frame)
        if not self._left:
            self.all_here.set()


def runner_sync(meter: Meter, bundles: int) -> None:
    """A runner of plain functions: the same, with what it looks at between two jobs."""
    with _hands() as (sock, permits, lease):
        runner = SyncRunner(sock, permits, lease, RunnersTally(new_tally()))
        runner._channel = _Deals(meter, bundles, permits)       # type: ignore[assignment]
        runner.serve(_functions(), Ready([]))


class _Deals:
    """In the place of a channel: the next bundle whenever the one before has ended."""

    def __init__(self, meter: Meter, bundles: int, permits: int) -> None:
        self._meter, self._bundles, self._permits, self._key = meter, bundles, permits, 0

    def receive(self) -> list[ToRunner]:
        if self._key:
            self._meter.__exit__()
        if self._key == self._bundles:
            return [Stop()]
        self._key += 1
        frames = _frames("sync", self._key, self._permits)
        self._meter.__enter__()
        return frames()

    def send(self, frame: msgspec.Struct) -> None:
        pack(frame)


def pool(meter: Meter, bundles: int) -> None:
    """The node's side of the channel: outcomes are read and held against what was sent."""
    well = Well([(1, list(range(BUNDLE)), [0.001] * BUNDLE)])
    work = _work("async", 1)
    for _ in range(bundles):
        handle = RunnerHandle(1, "async", 0.0)
        handle.sent = {job_number(1, job[0]): (work, job) for job in work.jobs}
        with meter:
            assert len(handle.settle_well(well.jobs)) == BUNDLE


def counting(meter: Meter, bundles: int) -> None:
    """Telemetry counts the outcomes of a bundle."""
    events, tally = Events(), Tally()
    tally.listen(events)
    outcomes = [outcome for _, outcome in returned_none([(1, list(range(BUNDLE)), [0.001] * BUNDLE)])]
    for _ in range(bundles):
        with meter:
            events.runs_ended("benchmarks.jobs:noop", outcomes)


LAYERS: dict[str, Layer] = {
    "client": client, "runner-async": runner_async, "runner-plain": runner_sync, "pool": pool, "telemetry": counting,
}


def ended_in(frame: msgspec.Struct) -> int:
    """How many jobs a frame says have ended."""
    if isinstance(frame, Well):
        return sum(len(indexes) for _, indexes, _ in frame.jobs)
    return len(frame.outcomes) if isinstance(frame, Done) else 0


def _work(mode: Mode, key: int) -> Work:
    payload = pickle.dumps(((jobs.argument(5),), {}), 5)
    task = "benchmarks.jobs:noop" if mode == "async" else "benchmarks.jobs:plain_noop"
    return Work(
        key, f"bench-{key:08x}", task, jobs.QUEUE, mode, 1, 5, 1.0, "pickle",
        [(index, payload) for index in range(BUNDLE)],
    )


def _frames(mode: Mode, key: int, permits: int) -> Callable[[], list[ToRunner]]:
    """What reads a bundle that is here as bytes."""
    parser: Parser[ToRunner] = Parser(ToRunner)
    data = pack(Run(_work(mode, key)))
    os.eventfd_write(permits, BUNDLE)

    def read() -> list[ToRunner]:
        found: list[ToRunner] = []
        parser.feed(data, found)
        return found

    return read


def _functions() -> Functions:
    return Functions(dict(tasks.registry))


@contextmanager
def _hands() -> Iterator[tuple[socket.socket, int, Lease]]:
    """What a guard gives a runner."""
    node, runner = socket.socketpair()
    permits = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
    page = os.memfd_create("lease")
    os.write(page, struct.pack("d", now() + 1e6))
    with node, runner:
        yield runner, permits, Lease(page)
    os.close(permits)


def cost(layer: Layer, bundles: int) -> Cost:
    """Of one layer. The calls are counted apart: to count takes time."""
    clock, count = Meter(counting=False), Meter(counting=True)
    layer(clock, bundles)
    layer(count, WARM + 2)
    return Cost(clock.least, count.least)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hotpath", description=__doc__)
    parser.add_argument("--bundles", type=int, default=1_000)
    bundles = parser.parse_args().bundles
    gc.set_threshold(10_000, 20, 20)
    for name, layer in LAYERS.items():
        us, calls = cost(layer, bundles)
        print(f"{name:14} {us:6.2f} us {calls:6.1f} calls a job")


if __name__ == "__main__":
    main()
