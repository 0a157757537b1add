"""Each assertion behind a row of docs/promises.md fails when the feature that it is about is switched off.

A switch is an entry of `switches/`. Its test (or its scenario, alone) is played in a pytest of its own, on real
processes that have the feature taken out of them, and must fail: in its own lines, in the way the table says.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..fitting import Changer, faults_in
from .rig import ROOT
from .stage import STAGED, VERDICT
from .switching import OFF, SWITCHES, Switch

ALWAYS = ["done_only_on_success", "stored_before_the_answer", "the_lease_of_the_dead_is_revoked"]
"""Switched off in every run of the suite; the others with `ROTA_SWITCHES=all`, which takes some minutes."""

ALL = os.environ.get("ROTA_SWITCHES") == "all"
LIMIT_S = 90.0


class Played(NamedTuple):
    """How it ended: "well", "badly", "skipped" or "never began"; and where, if badly."""

    ended: str
    how: str
    output: str
    processes: int          # that had the feature out


def play(test: str, folder: Path, *, off: str = "", patience_s: float = 20.0) -> Played:
    """One test, or one scenario alone, in a process of its own."""
    file, _, name = test.partition(": ")
    verdict, notes = folder / "verdict", folder / "notes"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(OFF), str(ROOT)]), "PYTHONDONTWRITEBYTECODE": "1", STAGED: name,
        VERDICT: str(verdict), "SWITCHED_OFF": off, "SWITCHED_OFF_NOTES": str(notes),
        "STAGED_PATIENCE_S": str(patience_s),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", f"tests/{file}", "-p", "tests.acceptance.stage", "-p", "no:cacheprovider",
         "-x", "--tb=short", "-q", f"--basetemp={folder / 'pytest'}"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    verdicts = [json.loads(line) for line in verdict.read_text().splitlines()] if verdict.exists() else []
    processes = len(set(notes.read_text().split())) if notes.exists() else 0
    if not verdicts:
        return Played("never began", "", output, processes)
    told = min(verdicts, key=lambda verdict: ["badly", "well", "skipped"].index(verdict["ended"]))
    return Played(told["ended"], f"{told.get('statement')} -> {told.get('error')}", output, processes)


def changers() -> dict[str, tuple[Changer, str]]:
    return {name: (off.take_out, off.module) for name, off in SWITCHES.items()}


def test_they_fit_the_code() -> None:
    """All of them, in every run: what a switch replaces is there, and its replacement can be called likewise."""
    found = faults_in(f"{__name__}:changers")
    faults = {name: faults for name, faults in found.items() if faults}
    assert not faults, "\n".join(f"{name}: {'; '.join(faults)}" for name, faults in faults.items())


def misfits() -> dict[str, tuple[Changer, str]]:
    def renamed(limits: Any) -> None:
        """A method that is gone."""
        limits.TimeLimits._check_head = lambda self, runner, now: None

    def called_otherwise(limits: Any) -> None:
        """A parameter too few, a name that the module has not, and one that its class has not."""
        limits.TimeLimits._look_sync = lambda self, runner: limits.Gone(self.lost)

    limits = "rota.worker.pool.time_limits"
    return {"renamed": (renamed, limits), "called_otherwise": (called_otherwise, limits)}


def test_what_does_not_fit_is_said() -> None:
    faults = faults_in(f"{__name__}:misfits")
    assert faults["renamed"] == ["TimeLimits had no _check_head"]
    assert [fault.partition(":")[0] for fault in faults["called_otherwise"]] == [
        "rota.worker.pool.time_limits has no Gone",
        "TimeLimits._look_sync(self, runner", "TimeLimits has no lost",
    ]


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("name", list(SWITCHES) if ALL else ALWAYS)
def test_it_is_missed(name: str, tmp_path: Path) -> None:
    off: Switch = SWITCHES[name]
    played = play(off.test, tmp_path, off=name, patience_s=off.patience_s)
    told = f"{off.test}, with this off: {off.what}\n{played.how}\n{played.output[-6000:]}"
    print(f"\n{name}: {off.test}: {played.how[:300]}")
    if played.ended == "skipped":
        pytest.skip(played.how)
    assert played.processes, f"no process has imported {off.module}: nothing was switched off\n{told}"
    assert played.ended == "badly", f"nobody misses it\n{told}"
    assert re.search(off.fails, played.how), f"it failed, but not as it should ({off.fails})\n{told}"


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("test", sorted({off.test for off in SWITCHES.values()}) if ALL else [])
def test_it_holds_alone_with_everything_on(test: str, tmp_path: Path) -> None:
    """Or its failures would prove nothing: with the least patience that any of its switches asks for."""
    patience_s = min(off.patience_s for off in SWITCHES.values() if off.test == test)
    played = play(test, tmp_path, patience_s=patience_s)
    if played.ended == "skipped":
        pytest.skip(played.how)
    assert played.ended == "well", f"{played.how}\n{played.output[-6000:]}"
