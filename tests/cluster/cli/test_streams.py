"""Where a command's output goes is its user's affair: closed, broken or without UTF-8, it is no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rota
from rota.cluster.terminal import NOBODY_READS
from rota.testing import MemoryCluster

ROTA = Path(sys.executable).parent / "rota"


@rota.task(max_attempts=1)
def unlucky(text: str) -> None:
    raise ValueError(text)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with MemoryCluster() as cluster:
        handles = unlucky.enqueue_many([(f"gr\u00fc\u00dfe \u2603 {number}",) for number in range(20)])
        cluster.settle()
        assert len(handles) == 20
        yield cluster.url


def run(url: str, command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of shell; the status is that of `rota`."""
    line = f"set -o pipefail; {command.replace('rota ', f'{ROTA} ')}"
    environment = {"ROTA_URL": url, "PATH": "/usr/bin:/bin", "COLUMNS": "200",
                   "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]} | env
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("command", "status"), [
    ("rota failed --limit 20 | true", NOBODY_READS),
    ("rota failed --json | true", NOBODY_READS),
    ("rota queues >&-", 0),
    ("rota job nonsense 2>&-", 2),
])
def test_nobody_reads(url: str, command: str, status: int) -> None:
    done = run(url, command)
    assert (done.returncode, done.stderr) == (status, ""), done.stderr


def test_an_output_that_is_not_utf_8(url: str) -> None:
    done = run(url, "rota failed --limit 1", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert r"ValueError: gr\xfc\xdfe \u2603" in done.stdout
