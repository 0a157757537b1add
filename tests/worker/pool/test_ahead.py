"""An async runner is sent more of quick jobs than may have begun, and keeps to that number by itself."""

from __future__ import annotations

from rota.worker.pool.ready import AHEAD_ASYNC_JOBS, AHEAD_S, Pace

from ..rig import Rig

QUICK, LONG = (0,), (600,)


async def learned(rig: Rig) -> None:
    """The node has seen that jobs of this task are quick."""
    rig.submit("asleep", *[QUICK] * 10)
    await rig.until(lambda: len(rig.outcomes) == 10)


async def test_no_more_have_begun_than_may() -> None:
    async with Rig.open(sync=0, async_=3) as rig:
        await learned(rig)
        (runner,) = rig.pool._runners.values()
        key = rig.submit("asleep", *[LONG] * 30)
        assert len(runner.sent) == 30
        await rig.until(lambda: len(rig.pool.running()) == 3)
        await rig.until(lambda: len(runner.sent) == 3)      # the others come back: nothing begins
        assert rig.pool.running() == [(key, 0), (key, 1), (key, 2)] and rig.pool.busy("async", "q")
        assert rig.pool.withdraw([key]) == [(key, list(range(3, 30)))]
        for index in range(3):
            rig.pool.cancel(key, index)
        await rig.until(lambda: len(rig.outcomes) == 13)
        assert (await rig.run("asleep", 0)).status == "ok"


async def test_what_was_sent_ahead_can_be_cancelled_and_withdrawn_at_once() -> None:
    async with Rig.open(sync=0, async_=2) as rig:
        await learned(rig)
        key = rig.submit("asleep", *[LONG] * 6)
        await rig.until(lambda: len(rig.pool.running()) == 2)
        rig.pool.cancel(key, 4)
        assert (await rig.outcome(key, 4)).status == "cancelled"
        assert rig.pool.withdraw([key]) == [(key, [2, 3, 5])]


async def test_a_job_of_another_queue_gets_its_spare_place_all_the_same() -> None:
    async with Rig.open(sync=0, async_=2, spare_runners=1) as rig:
        await learned(rig)
        slow = rig.submit("asleep", *[LONG] * 20, queue="slow")
        quick = rig.submit("adouble", (1,), (2,), queue="quick")
        await rig.until(lambda: len(rig.outcomes) == 12)
        assert {key for key, _ in list(rig.outcomes)[10:]} == {quick}
        assert rig.pool.running() == [(slow, 0), (slow, 1)]


def test_only_quick_jobs_are_sent_ahead() -> None:
    pace = Pace()
    assert pace.ahead_async("t", 100) == 0
    pace.learn("t", 2 * AHEAD_S)
    assert pace.ahead_async("t", 100) == 0
    pace.learn("u", AHEAD_S / 2)
    assert pace.ahead_async("u", 100) == 200
    pace.learn("v", 0.0)
    assert pace.ahead_async("v", 100) == AHEAD_ASYNC_JOBS
    pace.forget("v")
    assert pace.ahead_async("v", 100) == 0
