"""The benchmarks run: a few hundred jobs of some cases, on a real etcd with a real node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.percentiles import percentile
from benchmarks.steps import TABLES, frames, step_of

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 100


def test_quick_run(tmp_path: Path) -> None:
    figures, picture = tmp_path / "figures.json", tmp_path / "picture.svg"
    names = ("bulk", "idle")
    chosen = [argument for name in names for argument in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", *chosen, "--json", figures, "--picture", picture],
        cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = {case["name"]: case for case in json.loads(figures.read_text())["cases"]}
    assert set(cases) == set(names)
    assert all(case["jobs"] and case["cpu_us"]["node"] >= 0 for case in cases.values())
    assert cases["bulk"]["jobs_per_bundle"] > 1
    assert cases["bulk"]["etcd"]["puts"] > 0
    assert cases["idle"]["p50_ms"] > 0
    assert picture.read_text().startswith("<svg")


def test_the_innermost_known_frame_names_the_step() -> None:
    line = (
        "<module> (/x/cluster/process.py:1);Executor._flush (/x/cluster/executor.py:9);"
        "Keyring.sign_results (/x/client/codec.py:7);replace (/y/msgspec/structs.py:3) 12"
    )
    stack, seen = frames(line)
    assert seen == 12
    assert stack[-1] == ("replace", "/y/msgspec/structs.py")
    assert step_of(stack, TABLES["node"]) == "signatures: sign results"
    assert step_of(stack[:2], TABLES["node"]) == "executor"
    assert step_of(stack[:1], TABLES["node"]) == "event loop and the rest"


def test_percentiles_are_measured_values() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert percentile(values, 50) == 3.0
    assert percentile(values, 99) == 5.0
    assert percentile(values[:1], 1) == 5.0
