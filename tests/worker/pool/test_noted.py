"""Quick jobs of plain functions end without a message each: nothing of it is lost, and nothing of it waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..rig import Rig

QUICK = [(0,)] * 100


async def sent_ahead(rig: Rig) -> None:
    """From here on, bundles of these tasks are."""
    rig.submit("sleep", *QUICK)
    await rig.until(lambda: len(rig.outcomes) == len(QUICK))


@pytest.mark.parametrize(("task", "words"), [
    ("leave", "runner died (exit status 7)"), ("write_garbage", "runner died ("),
])
async def test_whoever_kills_the_runner_pays_and_what_had_ended_has_ended(
    task: str, words: str, tmp_path: Path
) -> None:
    async with Rig.open() as rig:
        await sent_ahead(rig)
        journal = tmp_path / "journal"
        before = rig.submit("note", *((str(journal), f"a{number}") for number in range(100)))
        harmful = rig.submit(task, ())
        after = rig.submit("note", *((str(journal), f"b{number}") for number in range(100)))
        await rig.until(lambda: len(rig.outcomes) == len(QUICK) + 201)
        failed = {job: outcome.error for job, outcome in rig.outcomes.items() if outcome.status != "ok"}
        assert list(failed) == [(harmful, 0)] and words in failed[harmful, 0]
        assert journal.read_text().split() == [f"{which}{number}" for which in "ab" for number in range(100)]
        assert {(key, index) for key in (before, after) for index in range(100)} < set(rig.outcomes)


async def test_what_has_ended_before_a_long_job_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.worker.pool.dispatch.TICK_S", 600)        # (every tick looks, too)
    async with Rig.open() as rig:
        await sent_ahead(rig)
        key = rig.submit("sleep", *QUICK, (600,), (0,))
        await rig.until(lambda: len(rig.outcomes) == 2 * len(QUICK))
        assert rig.pool.running() == [(key, len(QUICK))]
        assert rig.pool.withdraw([key]) == [(key, [len(QUICK) + 1])]


async def test_results_failures_and_nothing_in_their_order(tmp_path: Path) -> None:
    async with Rig.open() as rig:
        await sent_ahead(rig)
        keys = [rig.submit(*call) for call in [("sleep", (0,)), ("double", (1,)), ("fail", ("no",))] * 40]
        await rig.until(lambda: len(rig.outcomes) == len(QUICK) + len(keys))
        ended = list(rig.outcomes.items())[len(QUICK):]
        assert [key for (key, _), _ in ended] == keys
        assert [outcome.status for _, outcome in ended] == ["ok", "ok", "retry"] * 40
        assert all(outcome.ran_s > 0 for _, outcome in ended)
