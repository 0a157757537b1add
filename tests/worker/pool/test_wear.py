"""Runners are replaced when they have done enough, or grown too large; nothing is lost or interrupted for it."""

from __future__ import annotations

import pytest

from rota.client.calls.pickling import load_value

from ..rig import Rig


@pytest.mark.parametrize("kind", ["", "a"])
async def test_after_so_many_jobs(kind: str) -> None:
    async with Rig.open(sync=not kind, async_=5 if kind else 0, jobs_per_runner_max=20) as rig:
        long = rig.submit("asleep", (0.8,)) if kind else None
        keys = [rig.submit(f"{kind}pid", *[()] * 30) for _ in range(4)]
        await rig.until(lambda: len(rig.outcomes) == 120 + (long is not None))
        assert {outcome.status for outcome in rig.outcomes.values()} == {"ok"}
        pids = {load_value("pickle", rig.outcomes[key, index].value) for key in keys for index in range(30)}
        assert len(pids) >= 2
        await rig.until(lambda: len(rig.pids()) == 1 and len(rig.ready()) == 1)


async def test_when_it_has_grown_too_large() -> None:
    async with Rig.open(app="growing", runner_bytes_max=200 << 20) as rig:
        before = rig.pids()
        key = rig.submit("keep", (300 << 20, 1.5), app="growing")
        after = rig.submit("keep", (0, 0), app="growing")
        assert load_value("pickle", (await rig.outcome(key)).value) == before[0]      # it ran to its end
        assert load_value("pickle", (await rig.outcome(after)).value) != before[0]
        assert len(rig.outcomes) == 2
