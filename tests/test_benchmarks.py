"""The benchmarks run: a few hundred jobs of some cases, on a real etcd with real nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import features, rate, timetable
from benchmarks.crowd import most_at_once
from benchmarks.peers import telling
from benchmarks.peers.goals import GOALS, rows
from benchmarks.peers.harness import Figures
from benchmarks.percentiles import percentile
from benchmarks.scale import Ran, at_least, at_most, check_starts
from benchmarks.stage import BenchmarkError
from benchmarks.steps import TABLES, frames, step_of

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 100

AT_SCALE = [
    ("crowd", {"jobs running at the same time", "from letting them go to the last start"}),
    ("scheduled", {"members or masters that changed", "growth of the master's memory by them, peak"}),
    ("backlog", {"growth of the master's memory, peak"}),
]
"""The first in every run of the suite, the others with `ROTA_BENCHMARKS=all`: a minute more."""


def quick(module: str, folder: Path, *arguments: str | Path) -> Any:
    """The figures of a scaled-down run."""
    figures = folder / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", module, "--quick", *arguments, "--json", figures],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(figures.read_text())


def test_quick_run(tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    names = ("bulk", "idle", "idle-paced")
    chosen = [argument for name in names for argument in ("--only", name)]
    figures = quick("benchmarks", tmp_path, *chosen, "--picture", picture)
    cases = {case["name"]: case for case in figures["cases"]}
    assert set(cases) == set(names)
    assert all(case["jobs"] and case["cpu_us"]["node"] >= 0 for case in cases.values())
    assert cases["bulk"]["jobs_per_bundle"] > 1
    assert cases["bulk"]["etcd"]["puts"] > 0
    assert all(cases[name]["p50_ms"] > 0 for name in names if name.startswith("idle"))
    assert picture.read_text().startswith("<svg")


@pytest.mark.parametrize(("name", "met"), AT_SCALE if os.environ.get("ROTA_BENCHMARKS") == "all" else AT_SCALE[:1])
def test_quick_run_at_scale(name: str, met: set[str], tmp_path: Path) -> None:
    """What does not depend on how busy this machine is must be met."""
    said = quick(f"benchmarks.{name}", tmp_path)
    targets = {target["what"]: target for target in said["targets"]}
    assert all(target["measured"] > 0 or target["limit"] == 0 for target in targets.values())
    assert met <= {what for what, target in targets.items() if target["met"]}
    assert said["about"]["quick"] is True
    assert said["figures"]


def test_a_job_that_left_no_result_or_ran_twice_is_noticed() -> None:
    once = [Ran(1, 1, 0.0, 1.0, 0.0), Ran(1, 2, 0.5, 1.5, 0.0), Ran(2, 1, 2.0, 3.0, 0.0)]
    check_starts(once)
    assert most_at_once(once) == 2
    with pytest.raises(BenchmarkError, match="has begun 3 jobs, and 2"):
        check_starts([*once[:1], Ran(1, 3, 0.5, 1.5, 0.0)])


def test_a_target_says_whether_it_is_met() -> None:
    assert at_most("x", 5.0, 5.0, "s").met and not at_most("x", 5.1, 5.0, "s").met
    assert at_least("x", 5.0, 5.0, "s").met and not at_least("x", 4.9, 5.0, "s").met


def test_the_innermost_known_frame_names_the_step() -> None:
    line = (
        "<module> (/x/cluster/boot/process.py:1);Reporter.flush (/x/cluster/node/outcomes/reporter.py:9);"
        "Keyring.sign_results (/x/client/wire/keyring.py:7);replace (/y/msgspec/structs.py:3) 12"
    )
    stack, seen = frames(line)
    assert seen == 12
    assert stack[-1] == ("replace", "/y/msgspec/structs.py")
    assert step_of(stack, TABLES["node"]) == "signatures: sign results"
    assert step_of(stack[:2], TABLES["node"]) == "outcomes to writes"
    assert step_of(stack[:1], TABLES["node"]) == "event loop and the rest"


def test_the_files_that_stand_for_steps_are_there() -> None:
    """One that was moved would count as something else, and say nothing. (Ours: files, and rooms as a whole.)"""
    files = [path.as_posix() for folder in ("benchmarks", "client", "cluster", "worker") for path in ROOT.joinpath(
        folder).rglob("*.py")]
    rows = {row.file for table in TABLES.values() for row in table if row.file.endswith(".py")}
    assert len(rows) > 60
    assert not [name for name in sorted(rows) if not any(file.endswith(f"/{name}") for file in files)]
    ours = {row.file for table in TABLES.values() for row in table if row.file.startswith(("client", "cluster"))}
    assert not [name for name in sorted(ours - rows) if not ROOT.joinpath(name).is_dir()]


def test_starts_under_a_rate_are_judged() -> None:
    starts = [0.0, 0.4, 0.9, 1.0, 1.3, 4.3]
    said = rate.judged(starts, 6, 5.0)
    assert (said["ran"], said["most_in_a_second"], said["longest_pause_ms"]) == (6, 4, 3_000)


def test_ticks_of_schedules_are_judged() -> None:
    said: Any = timetable.judged("1 60.5\n0 60.1\n0 120.2\n0 120.3\n", 2, 2)
    assert [row["each_once"] for row in said["ticks"]] == [True, False]
    assert round(said["ticks"][0]["last_ms"]) == 500


def test_percentiles_are_measured_values() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert percentile(values, 50) == 3.0
    assert percentile(values, 99) == 5.0
    assert percentile(values[:1], 1) == 5.0


def test_what_each_feature_costs_is_measured() -> None:
    """Every job is given out and ends, whatever it uses."""
    rows = list(features.rows(2 * features.ROUND))
    assert [row[0] for row in rows] == [feature.name for feature in features.FEATURES]
    assert {row[0]: (row[3], row[4]) for row in rows}["Queue(max_waiting)"] == ("4", "2")


def test_every_goal_of_speed_has_a_row_and_what_was_not_measured_says_so() -> None:
    theirs = [Figures("BullMQ", False, bulk=8_000, drain=10_000, p50_ms=1.6, cpu_s=0.2),
              Figures("BullMQ", True, bulk=6_000, p50_ms=2.2, cpu_s=0.25)]
    facts = {"bulk": [70_000, 90_000, 80_000], "first-line": [2.0], "cpu-s": [0.04], "pipeline": [9_000],
             "work-s": [11.0], "pool-s": [10.0]}
    found = {row.goal: row for row in rows(facts, theirs)}
    assert len(found) == len(GOALS)
    bulk = found["end to end, bulk, `async def`, by the best of any kind"]
    assert (bulk.rota, bulk.best, bulk.best_name, bulk.ratio, bulk.met) == (80_000, 8_000, "BullMQ", 10, True)
    assert found["idle: enqueue to the job's first line, p50, by the best durable"].met
    assert not found["CPU of everything for 1,000 jobs, bulk, by the least of any kind"].met
    assert not found["the same loop in `rota.pipeline()`"].met
    assert found["real work: the demo's files, wall time by `ProcessPoolExecutor`"].met
    assert found["64 processes, one call each"].why
    slower = {"two-loops": [400, 200, 380], "one-loop": [210, 100, 200]}        # the machine was, in the second turn
    in_pairs = {row.goal: row.ratio for row in rows(slower, [])}
    assert in_pairs["`async def` that computes: 2 processes by 1"] == pytest.approx(1.9, abs=0.01)


def test_the_table_of_goals_is_written_into_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(telling, "CHART", tmp_path / "peers.svg")
    report = telling.Report(
        "2026", 1, True, 1, {"cpus": 2, "cpu": "x", "load": [0.1]}, rows({"bulk": [1.0], "cpu-s": [1.0]}, []),
        [Figures("BullMQ", True, bulk=6_000)], {"bulk": [1.0], "cpu-s": [1.0]},
    )
    for _ in range(2):
        telling.PAGE.write_text(f"before\n{telling.BEGIN}\nold\n{telling.END}\nafter\n")
        telling.tell_docs(report)
    page = telling.PAGE.read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert "| BullMQ, durable |" in page
    assert telling.CHART.read_text().startswith("<svg")
    assert telling.BEGIN in (ROOT / "docs/performance.md").read_text()
