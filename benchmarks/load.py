"""The loads, each in a process of its own, so that a client's CPU time is not mixed with the benchmark's.

`python -m benchmarks.load NAME --seconds S --count N`: connects, prints `ready`, waits for a line, works for S seconds
or N jobs, whichever is less, and prints what it did as one line of JSON. Times are of the monotonic clock, which all
processes share. `rota.client.api.clients` and not `rota` is imported: that is lazy, and clients are forked here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import msgspec
import uvloop

from rota.client.api import coalesce
from rota.client.api.clients import AsyncClient, Client
from rota.client.api.pipeline import pipeline
from rota.client.ids import parse_job_id
from rota.client.model import Level

from . import jobs

IDLE_WARM_UP = 100
"""Jobs before the clock runs: the bare puts beside them are made by a process that has made many."""


class Done(msgspec.Struct):
    """What a load did. `started` to `enqueued`: from the first call to the last acknowledgement. `warm_up`: jobs before
    that, which are not measured."""

    jobs: int = 0
    warm_up: int = 1
    bundles: int = 0
    started: float = 0.0
    enqueued: float = 0.0
    cpu_s: float = 0.0
    first_due: float = 0.0
    latencies_ms: list[float] = []
    sessions: list[str] = []

    @property
    def enqueued_s(self) -> float:
        """Jobs a second."""
        return self.jobs / (self.enqueued - self.started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(LOADS))
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--count", type=int, required=True)
    plan = parser.parse_args()
    LOADS[plan.name](plan.seconds, plan.count)


def ready() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def report(done: Done) -> None:
    print(msgspec.json.encode(done).decode(), flush=True)


class Watchful:
    """Measures a load: `with Watchful(done)`."""

    def __init__(self, done: Done) -> None:
        self._done = done

    def __enter__(self) -> None:
        self._cpu_s = time.process_time()
        self._done.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._done.enqueued = time.monotonic()
        self._done.cpu_s = time.process_time() - self._cpu_s


def calls(seconds: float, count: int) -> Iterator[tuple[dict[str, object]]]:
    """Arguments of jobs, until time or number is used up."""
    end = time.monotonic() + seconds
    for number in range(count):
        if number % 100 == 0 and time.monotonic() > end:
            return
        yield (jobs.argument(number),)


# -- one producer, many jobs a call ----------------------------------------------------------------------------------


Calls = Callable[[float, int], Iterable[tuple[Any, ...]]]


def bulk(task: Any, make: Calls = calls, *, warm: Any = None, lone: bool = False) -> Callable[[float, int], None]:
    """`warm` is the task of the first job, which is not measured. `lone`: each job in a bundle of its own, as of many
    callers with one job each."""

    def run(seconds: float, count: int) -> None:
        with Client() as client:
            client.enqueue_many(warm or task, [(jobs.argument(0),)])[0].result()
            if lone:
                coalesce.JOBS_PER_BUNDLE = coalesce.JOBS_PER_BUNDLE_MAX = 1
            ready()
            done = Done()
            with Watchful(done):
                handles = client.enqueue_many(task, make(seconds, count))
            _count(done, handles)
            report(done)

    return run


NAMES_CALLERS = 100
JOBS_PER_NAME = 10
"""Of the case that they come before."""


def after_names(task: Any) -> Callable[[float, int], None]:
    """`bulk`, after as many queue names were used once as a tenth of its jobs: 20,000, unless it is scaled down."""

    async def use_each_once(names: int) -> None:
        async with AsyncClient() as client:
            numbers = iter(range(names))

            async def caller() -> None:
                for number in numbers:
                    await (await client.enqueue(task.using(queue=f"once-{number}"), jobs.argument(number)))

            await asyncio.gather(*(caller() for _ in range(NAMES_CALLERS)))

    def run(seconds: float, count: int) -> None:
        uvloop.run(use_each_once(count // JOBS_PER_NAME))
        bulk(task)(seconds, count)

    return run


def _count(done: Done, handles: Any) -> None:
    bundles = {job_id.rpartition("_")[0] for job_id in handles.ids}     # (to parse each would count as the client's)
    done.jobs = len(handles)
    done.bundles = len(bundles)
    done.sessions = sorted({parse_job_id(bundle)[0].partition("-")[0] for bundle in bundles})


def naps(seconds: float, count: int) -> Iterable[tuple[float]]:
    return repeat((seconds,), count)


def instants(seconds: float, count: int) -> Iterable[tuple[()]]:
    return repeat((), count)


# -- scheduled -------------------------------------------------------------------------------------------------------

DUE_TIMES, DUE_CALLERS, DUE_FROM_S, DUE_OVER_S = 720, 4, 2 * 3600.0, 12 * 3600.0
LONE_CALLERS, LONE_S = 512, 1_200
"""Lone jobs a second that can surely be enqueued before the first is due."""


def spread(seconds: float, count: int) -> None:
    """Jobs due at 720 times, a minute apart, the first in two hours; one call of `enqueue_many` for each time."""

    async def run() -> None:
        async with AsyncClient() as client:
            await (await client.enqueue(jobs.noop, jobs.argument(0)))
            await asyncio.to_thread(ready)
            done, turns = Done(), iter(range(DUE_TIMES))
            handles: list[Any] = []
            with Watchful(done):
                start = time.time() + DUE_FROM_S

                async def caller() -> None:
                    for turn in turns:
                        due = start + turn * DUE_OVER_S / DUE_TIMES
                        number = (turn + 1) * count // DUE_TIMES - turn * count // DUE_TIMES
                        handles.append(await client.enqueue_many(at(due), repeat((0.0, due), number)))

                await asyncio.gather(*(caller() for _ in range(DUE_CALLERS)))
            done.jobs = sum(map(len, handles))
            report(done)

    uvloop.run(run())


def at(due: float) -> Any:
    return jobs.timed.using(run_after=datetime.fromtimestamp(due, UTC))


def due_lone(seconds: float, count: int) -> None:
    """Each job is due at a time of its own, evenly over so many seconds; all are enqueued before the first is due."""

    async def run() -> None:
        async with AsyncClient() as client:
            await (await client.enqueue(jobs.noop, jobs.argument(0)))
            await asyncio.to_thread(ready)
            done, numbers = Done(), iter(range(count))
            handles: list[Any] = []
            with Watchful(done):
                lead_s = 2.0 + count / LONE_S
                start, done.first_due = time.time() + lead_s, time.monotonic() + lead_s

                async def caller() -> None:
                    for number in numbers:
                        due = start + number * seconds / count
                        handles.append(await client.enqueue(at(due), 0.0, due))

                await asyncio.gather(*(caller() for _ in range(LONE_CALLERS)))
            _count_singles(done, handles)
            report(done)

    uvloop.run(run())


def due_bulk(seconds: float, count: int) -> None:
    """All due at one moment, in one call."""
    with Client() as client:
        client.enqueue(jobs.noop, jobs.argument(0)).result()
        ready()
        done = Done()
        with Watchful(done):
            lead_s = 2.0 + count / (10 * LONE_S)
            due, done.first_due = time.time() + lead_s, time.monotonic() + lead_s
            handles = client.enqueue_many(at(due), repeat((0.0, due), count))
        _count(done, handles)
        report(done)


# -- 64 calls in flight in one process -------------------------------------------------------------------------------


def in_flight(calls_at_once: int, *, result: bool) -> Callable[[float, int], None]:
    async def run(seconds: float, count: int) -> None:
        async with AsyncClient() as client:
            await (await client.enqueue(jobs.noop, jobs.argument(0)))
            await asyncio.to_thread(ready)
            done = Done()
            handles: list[Any] = []
            with Watchful(done):
                end = done.started + seconds

                async def caller() -> None:
                    while len(handles) < count and (began := time.monotonic()) < end:
                        handle = await client.enqueue(jobs.noop, jobs.argument(len(handles)))
                        if result:
                            await handle
                        handles.append(handle)
                        done.latencies_ms.append(1000 * (time.monotonic() - began))

                await asyncio.gather(*(caller() for _ in range(calls_at_once)))
            _count_singles(done, handles)
            report(done)

    return lambda seconds, count: uvloop.run(run(seconds, count))


def _count_singles(done: Done, handles: list[Any]) -> None:
    bundles = {parse_job_id(handle.id)[0] for handle in handles}
    done.jobs = len(handles)
    done.bundles = len(bundles)
    done.sessions = sorted({bundle.partition("-")[0] for bundle in bundles})


# -- one call at a time ----------------------------------------------------------------------------------------------


def producer(together: Callable[[], AbstractContextManager[Any]]) -> Callable[[float, int], None]:
    """A loop of synchronous enqueues: the next when the one before is acknowledged, or all `together`."""

    def run(seconds: float, count: int) -> None:
        with Client() as client:
            client.enqueue(jobs.noop, jobs.argument(0)).result()
            ready()
            done = Done()
            with Watchful(done), together():
                handles = _one_by_one(client, seconds, count, done)
            _count_singles(done, handles)
            report(done)

    return run


def _one_by_one(client: Client, seconds: float, count: int, done: Done) -> list[Any]:
    handles: list[Any] = []
    end = time.monotonic() + seconds
    for number in range(count):
        if (began := time.monotonic()) > end:
            break
        handles.append(client.enqueue(jobs.noop, jobs.argument(number)))
        done.latencies_ms.append(1000 * (time.monotonic() - began))
    return handles


def idle(pause_s: float) -> Callable[[float, int], None]:
    """From an enqueue to its result, with nothing else going on; a pause between, or none."""

    async def run(seconds: float, count: int) -> None:
        async with AsyncClient() as client:
            for number in range(IDLE_WARM_UP):
                await (await client.enqueue(jobs.noop, jobs.argument(number)))
            await asyncio.to_thread(ready)
            done = Done(warm_up=IDLE_WARM_UP)
            handles: list[Any] = []
            with Watchful(done):
                while len(handles) < count and (began := time.monotonic()) < done.started + seconds:
                    handle = await client.enqueue(jobs.noop, jobs.argument(len(handles)))
                    await handle
                    done.latencies_ms.append(1000 * (time.monotonic() - began))
                    handles.append(handle)
                    if pause_s:
                        await asyncio.sleep(pause_s)
            _count_singles(done, handles)
            report(done)

    return lambda seconds, count: uvloop.run(run(seconds, count))


def first_line(level: Level) -> Callable[[float, int], None]:
    """From just before an enqueue to the first line of its job, as the rivals' latencies are taken."""

    async def run(seconds: float, count: int) -> None:
        task = jobs.first_line.using(level=level)
        async with AsyncClient() as client:
            for _ in range(IDLE_WARM_UP):
                await (await client.enqueue(task, time.monotonic()))
            await asyncio.to_thread(ready)
            done = Done()
            with Watchful(done):
                for _ in range(count):
                    done.latencies_ms.append(1000 * await (await client.enqueue(task, time.monotonic())))
                    await asyncio.sleep(2 * jobs.IDLE_PAUSE_S)
            done.jobs = count
            report(done)

    return lambda seconds, count: uvloop.run(run(seconds, count))


def compute(seconds: float, count: int) -> None:
    """Coroutines that compute, each to its result."""
    with Client() as client:
        client.enqueue(jobs.compute, 1).result()
        ready()
        done = Done(jobs=count)
        with Watchful(done):
            for handle in client.enqueue_many(jobs.compute, repeat((jobs.COMPUTE_ROUNDS,), count)):
                handle.result()
        report(done)


# -- 64 processes ----------------------------------------------------------------------------------------------------


def many_processes(number: int) -> Callable[[float, int], None]:
    """Forked before there is any thread, as a web server's workers are; each has one call in flight."""

    def run(seconds: float, count: int) -> None:
        go_out, go_in = os.pipe()
        pipes = []
        for _ in range(number):
            out, into = os.pipe()
            if os.fork() == 0:
                os.close(go_in)
                _one_of_many(into, go_out, seconds, count // number)
                os._exit(0)
            os.close(into)
            pipes.append(out)
        if any(os.read(pipe, 1) != b"r" for pipe in pipes):
            raise SystemExit("a client process could not start")
        ready()
        os.close(go_in)
        report(_together([_read_all(pipe) for pipe in pipes]))

    return run


def _one_of_many(pipe: int, go: int, seconds: float, count: int) -> None:
    with Client() as client:
        client.enqueue(jobs.noop, jobs.argument(0)).result()
        os.write(pipe, b"r")
        os.read(go, 1)
        done = Done()
        with Watchful(done):
            handles = _one_by_one(client, seconds, count, done)
        _count_singles(done, handles)
        with os.fdopen(pipe, "wb") as file:
            file.write(msgspec.json.encode(done))


def _read_all(pipe: int) -> Done:
    with os.fdopen(pipe, "rb") as file:
        return msgspec.json.decode(file.read(), type=Done)


def _together(parts: list[Done]) -> Done:
    return Done(
        jobs=sum(part.jobs for part in parts), warm_up=sum(part.warm_up for part in parts),
        bundles=sum(part.bundles for part in parts),
        started=min(part.started for part in parts), enqueued=max(part.enqueued for part in parts),
        cpu_s=sum(part.cpu_s for part in parts), latencies_ms=[ms for part in parts for ms in part.latencies_ms],
        sessions=[session for part in parts for session in part.sessions],
    )


LOADS: dict[str, Callable[[float, int], None]] = {
    "bulk": bulk(jobs.noop),
    "bulk-plain": bulk(jobs.plain_noop),
    "bulk-names": after_names(jobs.noop),
    "backlog": bulk(jobs.noop.using(queue=jobs.BACKLOG)),
    "crowd": bulk(jobs.timed.using(queue=jobs.BACKLOG), naps, warm=jobs.noop),
    "waiting": bulk(jobs.timed.using(queue=jobs.BACKLOG), instants, warm=jobs.noop),
    "lone": bulk(jobs.timed.using(queue=jobs.BACKLOG), instants, warm=jobs.noop, lone=True),
    "spread": spread,
    "due": due_lone,
    "due-bulk": due_bulk,
    "in-flight": in_flight(64, result=False),
    "in-flight-results": in_flight(64, result=True),
    "processes": many_processes(64),
    "producer": producer(nullcontext),
    "pipeline": producer(pipeline),
    "idle": idle(0.0),
    "idle-paced": idle(jobs.IDLE_PAUSE_S),
    "first-line": first_line("durable"),
    "first-line-none": first_line("none"),
    "compute": compute,
}


if __name__ == "__main__":
    main()
