"""The application's logging wins; where there is none, rota's own lines name the job."""

from __future__ import annotations

import pytest

from rota.client.ids import job_id

from ..rig import BUNDLE, Rig


@pytest.mark.parametrize("how", ["import", "dict", "hook", "job", "factory", "factory round a factory"])
async def test_the_applications_own_logging_wins(
    how: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGGED", how)
    async with Rig.open(app="logged") as rig:
        assert await rig.value("say", 7, app="logged") == ["StreamHandler"]
        await rig.run("fails", app="logged")
    err = capfd.readouterr().err
    job = "own factory" if how == "factory" else job_id(BUNDLE, 0)
    assert f"MINE DEBUG debug of 7 [{job}]" in err and f"MINE WARNING billing [{job}]" in err
    assert "MINE ERROR logged:fails failed for good" in err      # rota's own words go the same way
    assert "rota.job" not in err
    assert [line.text for said in rig.said for line in said.lines] == ["debug of 7", "billing"]


@pytest.mark.parametrize("how", ["", "bare factory"])
async def test_where_nothing_is_set_up_lines_name_the_job(
    how: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGGED", how)
    async with Rig.open(app="logged") as rig:
        assert await rig.value("say", 7, app="logged") == []
        await rig.run("fails", app="logged")
    err = capfd.readouterr().err
    assert [line.text for said in rig.said for line in said.lines] == ["billing"]
    assert f"WARNING shop [{job_id(BUNDLE, 0)}] billing\n" in err and "debug of" not in err
    assert f"ERROR   rota.job [{job_id(BUNDLE, 0)}] logged:fails failed for good" in err


@pytest.mark.parametrize("task", ["say", "asay"])
@pytest.mark.parametrize(("library", "line"), [
    ("structlog", '{{"event": "billing", "job": "{job}", "level": "info"}}'), ("loguru", "MINE INFO [{job}] billing"),
])
async def test_structlog_and_loguru_as_the_page_says(
    task: str, library: str, line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    monkeypatch.setenv("LOGGED", library)
    async with Rig.open(async_=1, app="structured") as rig:
        await rig.run(task, 7, app="structured")
        if task == "say":
            await rig.run("say", 13, app="structured")
            kept = [line.text for said in rig.said for line in said.lines]
            assert sum("billing" in text for text in kept) == (2 if library == "structlog" else 0)
    err = capfd.readouterr().err
    assert line.format(job=job_id(BUNDLE, 0)) + "\n" in err
    assert ("structured:say failed for good" in err) == (task == "say")      # rota's own words go the same way
    assert library == "structlog" or task == "asay" or f"MINE ERROR [{job_id(BUNDLE, 0)}] structured:say failed" in err
