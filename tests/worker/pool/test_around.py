"""Middleware, resources and models in real runners."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from rota.client.calls import pickling

from ..rig import Rig

HEADERS = {"tenant": "acme", "user": "ann"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    path = tmp_path / "told"
    monkeypatch.setenv("AROUND_LOG", str(path))

    def read() -> list[str]:
        lines = path.read_text().splitlines()
        path.unlink()
        return lines

    return read


def payload(*args: Any) -> bytes:
    return pickle.dumps((args, {}, HEADERS), 5)


@pytest.mark.parametrize("task", ["plain", "coroutine"])
async def test_what_is_round_a_job(task: str, told: Any) -> None:
    """The same for both kinds of runners: headers, order, context variables, resources, and the way back."""
    async with Rig.open(async_=2, app="around") as rig:
        outcome = await rig.run(task, app="around", payloads=[payload()])
        assert outcome.status == "ok", outcome.error
        tenant, user, db = pickling.load_value(outcome.codec, outcome.value)
        assert (tenant, user) == ("acme", "ann") and db.startswith("session on engine ")
        assert told() == ["tenant in", "span in", "engine made", "committed", "span out", "tenant out"]
        again = await rig.value(task, app="around")
        assert again == ("none", "none", db)            # headers do not stay, the engine does
        assert told() == ["tenant in", "span in", "committed", "span out", "tenant out"]
        failed = await rig.run(task, True, app="around")
        assert failed.status == "retry" and failed.error.startswith("ZeroDivisionError")
        assert told() == ["tenant in", "span in", "rolled back", "tenant saw ZeroDivisionError", "tenant out"]
    assert told() == ["engine gone"]


async def test_jobs_on_one_loop_share_what_one_of_them_makes() -> None:
    async with Rig.open(sync=0, async_=10, app="around") as rig:
        key = rig.submit("shared", *[()] * 10, app="around")
        await rig.until(lambda: len(rig.outcomes) == 10)
        assert {pickling.load_value("pickle", rig.outcomes[key, n].value) for n in range(10)} == {"slow 1"}


async def test_what_cannot_be_made_says_so() -> None:
    async with Rig.open(app="around") as rig:
        outcome = await rig.run("hopeless", app="around")
        assert outcome.status == "retry" and outcome.error == "OSError: no such host"
        assert "raised while a runner made rota.Depends(broken)" in outcome.traceback


async def test_models_arrive_as_models_or_not_at_all() -> None:
    async with Rig.open(app="around") as rig:
        outcome = await rig.run("model", app="around", payloads=[b'{"args":[{"id":"1"}]}'], codec_="json")
        assert (outcome.status, outcome.value) == ("ok", b'{"id": 2}'), outcome.error
        wrong = await rig.run("model", app="around", payloads=[b'{"args":[{"id":"x"}]}'], codec_="json")
        assert wrong.status == "failed" and "argument item is not valid: id: Input should be" in wrong.error


async def test_a_cancelled_job_is_left_in_order(told: Any) -> None:
    async with Rig.open(sync=0, async_=1, app="around") as rig:
        key = rig.submit("forever", (), app="around")
        await rig.until(lambda: rig.pool.running() == [(key, 0)])
        rig.pool.cancel(key, 0)
        assert (await rig.outcome(key)).status == "cancelled"
        lines = told()
        assert "rolled back" in lines or "waits" not in lines       # (cancelled before it got so far)
        assert lines[-1:] in (["tenant out"], [])
