"""One slow queue never holds up another: jobs of a queue of which nothing runs get a runner more."""

from __future__ import annotations

import pytest

from rota.client.calls.pickling import load_value
from rota.worker.pool import spares

from ..rig import Rig


async def test_a_quick_job_beside_slow_ones_of_another_queue() -> None:
    async with Rig.open(sync=2, spare_runners=2) as rig:
        regular = rig.pids()
        slow = [rig.submit("sleep", (600,), queue="slow") for _ in range(3)]
        await rig.until(lambda: len(rig.pool.running()) == 2)
        quick = rig.submit("pid", *[()] * 3, queue="quick")     # one after the other
        other = rig.submit("pid", (), queue="other")
        for key, index in ((quick, 0), (quick, 1), (quick, 2), (other, 0)):
            outcome = await rig.outcome(key, index)
            assert load_value("pickle", outcome.value) not in regular
        assert len(rig.pids()) <= 4
        assert sorted(rig.pool.running()) == [(slow[0], 0), (slow[1], 0)]      # the slow queue has no spare
        assert rig.pool.busy("sync", "slow") and not rig.pool.busy("sync", "quick")


async def test_there_are_no_more_of_them_than_may_be_and_idle_ones_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "IDLE_S", 0.2)
    async with Rig.open(spare_runners=1) as rig:
        blocked = [rig.submit("sleep", (600,), queue=queue) for queue in ("a", "b")]
        await rig.until(lambda: len(rig.pool.running()) == 2)
        waiting = rig.submit("pid", (), queue="c")
        assert rig.pool.busy("sync", "c")
        assert rig.pool.withdraw([waiting]) == [(waiting, [0])]
        rig.pool.cancel(blocked[0], 0)
        rig.pool.cancel(blocked[1], 0)
        await rig.until(lambda: len(rig.outcomes) == 2)
        await rig.until(lambda: len(rig.pids()) == 1)
        assert (await rig.run("pid", queue="c")).status == "ok"


async def test_coroutines_get_a_place_more() -> None:
    async with Rig.open(sync=0, async_=2, spare_runners=1) as rig:
        slow = rig.submit("asleep", *[(600,)] * 5, queue="slow")
        await rig.until(lambda: len(rig.pool.running()) == 2)
        quick = rig.submit("adouble", (1,), (2,), queue="quick")
        await rig.until(lambda: len(rig.outcomes) == 2)
        assert {key for key, _ in rig.outcomes} == {quick} and rig.pool.running() == [(slow, 0), (slow, 1)]
