"""A delay counts from the call, and a time is a time: neither waits for what is sent before."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import count

from rota.client.api.bulk import frames
from rota.client.api.coalesce import Coalescer
from rota.client.calls.order import Routed
from rota.client.ids import Names
from rota.client.model import Enqueue, Receipt
from rota.client.tasks.task import make_task
from rota.client.transports.transport import Patience
from rota.client.wire.keyring import UNSIGNED, Seal

SEAL = Seal(UNSIGNED, "c")
DELAY_S = 100.0


def wish(number: int) -> None: ...


TASK = make_task(wish, name="tests:wish")


def delays(task: Routed) -> list[float]:
    """Of bundles that take ten seconds each to make."""
    route, _ = task.destination()
    seconds = count(0.0, 10.0)
    calls = [(number,) for number in range(180)]
    made = frames(task, route, calls, SEAL, Names(), monotonic=lambda: next(seconds))
    return [bundle.delay_s for frame in made for bundle in frame]


def test_a_time_is_kept_by_all_bundles_of_a_call() -> None:
    first, second, third = delays(TASK.using(run_after=datetime.now(UTC) + timedelta(seconds=DELAY_S)))
    assert 80 < first < 90.001
    assert round(first - second, 6) == round(second - third, 6) == 10


def test_a_delay_is_each_bundle_s_own() -> None:
    assert delays(TASK.using(run_after=DELAY_S)) == [DELAY_S] * 3


async def test_a_lone_job_does_not_wait_longer_because_it_waited_for_a_frame() -> None:
    sent: list[Enqueue] = []
    answer = asyncio.Event()

    async def send(bundles: list[Enqueue], patience: Patience) -> list[Receipt]:
        sent.extend(bundles)
        await answer.wait()
        return [Receipt(bundle.bundle, 1, 1) for bundle in bundles]

    async def seal(patience: Patience) -> Seal:
        return SEAL

    loop = asyncio.get_running_loop()
    coalescer = Coalescer(send, seal, Names(), retry_s=30.0, connect_s=3.0)
    stored = [loop.create_future(), loop.create_future()]
    coalescer.add(TASK.using(run_after=DELAY_S).order((1,), {}), stored[0])
    while not sent:  # noqa: ASYNC110 - until the first frame is under way
        await asyncio.sleep(0)
    asked = loop.time()
    coalescer.add(TASK.using(run_after=DELAY_S).order((2,), {}), stored[1])
    await asyncio.sleep(0.05)
    answer.set()
    await asyncio.gather(*stored)
    assert 0 < DELAY_S - sent[1].delay_s <= loop.time() - asked
    assert DELAY_S - sent[1].delay_s >= 0.04
