"""Operating a cluster from the command line."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .processes import ROTA, Running, dev, environment, rota

TASKS = '''
import pathlib
import rota

rota.Queue("line", serial=True)

@rota.task(max_attempts=1)
def refuse(why, unless=""):
    if not unless or not pathlib.Path(unless).exists():
        raise ValueError(why)
    return why

@rota.task
async def forever():
    import asyncio
    await asyncio.sleep(600)
'''


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("dev")
    (folder / "shop.py").write_text(TASKS)
    with dev(folder, "--app", "shop", "--sync", "1") as node:
        yield node


def until(condition: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


def say(running: Running, *arguments: str, code: int = 0) -> str:
    done = running.rota(*arguments)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return (done.stdout if code == 0 else done.stderr).strip()


def test_a_queue_is_operated(running: Running) -> None:
    assert say(running, "queue", "pause", "mail") == "queue mail: paused"
    job = say(running, "enqueue", "shop:refuse", "late", "--queue", "mail")
    assert "queue mail is paused" in say(running, "job", job)
    assert "has 1 waiting jobs, not 5" in say(running, "queue", "empty", "mail", "--expect", "5", code=4)
    assert say(running, "queue", "empty", "mail", "--expect", "1") == "1 jobs cancelled"
    assert say(running, "queue", "set", "mail", "--serial", "--max-concurrency", "3") == (
        "queue mail: paused, serial, at most 3 at a time"
    )
    assert running.json("queue", "set", "mail", "--no-serial", "--no-limit") == {
        "paused": True, "serial": False, "max_concurrency": None, "rate": None, "max_waiting": None,
        "on_full": "refuse",
    }
    assert say(running, "queue", "resume", "mail") == "queue mail: open"
    assert "there is nothing to skip" in say(running, "queue", "skip-head", "mail", code=4)


def test_the_head_of_a_serial_queue(running: Running, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    first = say(running, "enqueue", "shop:refuse", "one", "--set", f"unless={flag}", "--queue", "line")
    second = say(running, "enqueue", "shop:refuse", "two", "--set", f"unless={flag}", "--queue", "line")
    until(lambda: running.rota("queue", "skip-head", "line").returncode == 0, "the first has failed, and is skipped")
    assert "is failed" in say(running, "job", first)
    flag.touch()
    until(lambda: running.rota("queue", "retry-head", "line").returncode == 0, "the second has failed, and is retried")
    until(lambda: "is finished" in say(running, "job", second), "the second is finished")
    say(running, "failed", "delete", "--id", first)


def test_the_failed_set(running: Running) -> None:
    jobs = [say(running, "enqueue", "shop:refuse", why) for why in ("one", "two", "three")]
    until(lambda: len(running.json("failed")) == 3, "three jobs have failed")
    assert {entry["id"] for entry in running.json("failed", "list")} == set(jobs)
    assert "no failed job fits error 'seven'" in say(running, "failed", "retry", "--error", "seven", code=4)
    for wrong in (("failed", "delete"), ("failed", "retry", "--all", "--queue", "default")):
        assert "which failed jobs?" in say(running, *wrong, code=2)
    assert say(running, "failed", "retry", "--error", "two", "--task", "shop:refuse") == "1 jobs are queued again"
    until(lambda: len(running.json("failed")) == 3, "it has failed again")
    assert say(running, "failed", "delete", "--id", jobs[0]) == "1 jobs deleted"
    assert say(running, "failed", "delete", "--queue", "default") == "2 jobs deleted"
    assert say(running, "failed") == "no failed jobs"


def test_a_job_is_cancelled(running: Running) -> None:
    later = say(running, "enqueue", "shop:forever", "--after", "3600")
    assert say(running, "cancel", later) == f"{later}: cancelled: it had not begun"
    now = say(running, "enqueue", "shop:forever")
    until(lambda: "is running" in say(running, "job", now), "it runs")
    assert "a node has it" in say(running, "cancel", now)
    until(lambda: "it was cancelled" in say(running, "job", now), "it has stopped")
    assert "is unknown" in say(running, "cancel", "k3f9q2m7xa5t_0000001f_0", code=5)
    assert "not a valid job id" in say(running, "cancel", "nonsense", code=2)


def test_a_shell_has_a_client(running: Running) -> None:
    typed = "job = client.enqueue('shop:refuse', 'from a shell')\nprint('stored', job.id)\nprint(len(client.nodes()))\n"
    done = subprocess.run(
        [ROTA, "shell"], input=typed, env=environment(ROTA_URL=running.url), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"stored [a-z0-9]{12}_[0-9a-f]{8}_0", done.stdout) and "is connected to http" in done.stderr


def test_help_of_all() -> None:
    for command in ("pause", "resume", "set", "empty", "retry-head", "skip-head"):
        assert rota("queue", command, "--help").returncode == 0
    for command in ("list", "retry", "delete"):
        assert rota("failed", command, "--help").returncode == 0
