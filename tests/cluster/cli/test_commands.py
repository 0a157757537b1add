"""What commands check before they ask, what they say when they are interrupted, and the shell."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import rota
from rota.client.errors import InvalidJob, ResultTimeout, Unreachable
from rota.client.ids import parse_job_id
from rota.cluster.cli.app import TIMED_OUT, app, exit_code
from rota.cluster.cli.inspect import look
from rota.cluster.cli.manage import enqueue, operate
from rota.testing import MemoryCluster

ROTA = Path(sys.executable).parent / "rota"


@rota.task
def sums(a: int, /, b: int = 1, *more: int, c: int = 0, **rest: int) -> int:
    return a + b + sum(more) + c


@rota.task
async def forever() -> None:
    import asyncio

    await asyncio.sleep(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        yield made


@pytest.mark.parametrize(("arguments", "named", "why"), [
    ([], [], "missing a required argument: 'a'"),
    (["1"], ["b=2", "b2=3"], None),
    (["1", "2"], ["b=2"], "multiple values for argument 'b'"),
    (["1", "2", "3", "4"], ["c=5"], None),
])
def test_arguments_are_checked_as_the_client_does(
    cluster: MemoryCluster, arguments: list[str], named: list[str], why: str | None
) -> None:
    before = cluster.client.stats().revision
    if why is None:
        enqueue.enqueue(sums.name, arguments, named, url=cluster.url)
        return
    with pytest.raises(InvalidJob, match=why) as caught:
        enqueue.enqueue(sums.name, arguments, named, url=cluster.url)
    assert f"{sums.name}(a, /, b=…, *more, c=…, **rest)" in str(caught.value)
    assert cluster.client.stats().revision == before        # nothing was stored


def test_tasks_are_listed(cluster: MemoryCluster) -> None:
    (view,) = [task for task in cluster.client.tasks() if task.name == sums.name]
    assert (view.mode, view.queue, view.signature) == ("sync", "default", "(a, /, b=…, *more, c=…, **rest)")
    assert len(view.nodes) == 1


def test_a_wait_that_is_over_before_the_job_has_a_status_of_its_own(cluster: MemoryCluster) -> None:
    with pytest.raises(ResultTimeout, match=r"it is (claimed|running)") as caught:
        enqueue.enqueue(forever.name, wait=True, timeout=0.05, url=cluster.url)
    assert exit_code(caught.value) == TIMED_OUT == 6
    cluster.client.cancel(caught.value.job_id)


def jobs_of(cluster: MemoryCluster) -> list[str]:
    return [view.id for view in cluster.client.jobs(task=forever.name)]


def followed(cluster: MemoryCluster, job: str) -> bool:
    """Whether somebody waits for its result."""
    feeds = cluster._node._followers._feeds.copy().values()
    return any(parse_job_id(job)[0] in feed.waiting for feed in feeds)


def test_an_interrupted_wait_tells_the_id(cluster: MemoryCluster) -> None:
    process = subprocess.Popen(
        [ROTA, "enqueue", forever.name, "--wait", "--url", cluster.url], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),    # the suite may run in the background
    )
    try:
        limit = time.monotonic() + 60
        while not (waiting := [job for job in jobs_of(cluster) if followed(cluster, job)]):
            assert time.monotonic() < limit and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and f"job {waiting[0]} goes on: look with `rota job {waiting[0]}`" in said
    cluster.client.cancel(waiting[0])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every number that a command takes, with values that are out of its range."""
    yield from (
        ("enqueue --priority", ["enqueue", "m:f", "--priority", "101"]),
        ("enqueue --after", ["enqueue", "m:f", "--after", "-1"]),
        ("enqueue --after nan", ["enqueue", "m:f", "--after", "nan"]),
        ("enqueue --timeout", ["enqueue", "m:f", "--wait", "--timeout", "-1"]),
        ("queue set", ["queue", "set", "q", "--max-concurrency", "0"]),
        ("queue set, nothing", ["queue", "set", "q"]),
        ("queue empty", ["queue", "empty", "q", "--expect", "-1"]),
        ("failed --limit", ["failed", "--limit", "0"]),
        ("failed list --limit", ["failed", "list", "--limit", "0"]),
        ("finished --limit", ["finished", "--limit", "0"]),
        ("jobs --limit", ["jobs", "--limit", "1001"]),
        ("demo --nodes", ["demo", "--nodes", "1"]),
        *(
            (f"node {flag}", ["node", "--etcd", "127.0.0.1:9", flag, value])
            for flag, value in (
                ("--sync", "-1"), ("--async", "-1"), ("--ttl", "1"), ("--grace", "-1"), ("--keep-result", "-1"),
                ("--keep-finished", "-1"), ("--keep-failed", "-1"), ("--async-processes", "0"),
            )
        ),
    )


@pytest.mark.parametrize("arguments", [arguments for _, arguments in commands()], ids=[name for name, _ in commands()])
def test_numbers_have_a_range(arguments: list[str]) -> None:
    """Before anybody is asked: nobody would answer here."""
    with pytest.raises((SystemExit, rota.ConfigError)) as caught:
        app([*arguments, *(["--url", "http://127.0.0.1:9"] if arguments[0] not in ("node", "demo") else [])])
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 2


def test_a_limit_is_lifted_by_name(cluster: MemoryCluster) -> None:
    operate.set_("limited", max_concurrency=3, url=cluster.url)
    assert [view.max_concurrency for view in cluster.client.queues() if view.queue == "limited"] == [3]
    operate.set_("limited", no_limit=True, url=cluster.url)
    assert not [view for view in cluster.client.queues() if view.queue == "limited"]
    with pytest.raises(typer.BadParameter):
        operate.set_("limited", max_concurrency=3, no_limit=True, url=cluster.url)
    with pytest.raises(Unreachable):
        look.nodes(url="http://127.0.0.1:9")


def test_the_shell_imports_from_the_folder_and_completes(cluster: MemoryCluster, tmp_path: Path) -> None:
    (tmp_path / "corner.py").write_text("import rota\n\n@rota.task\ndef sell_everything(): ...\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [ROTA, "shell", "--app", "corner", "--url", cluster.url], cwd=tmp_path, stdin=theirs, stdout=theirs,
        stderr=theirs, env=os.environ | {"TERM": "dumb"}, start_new_session=True,
    )
    os.close(theirs)
    try:
        read_until(ours, b">>> ")
        os.write(ours, b"corner.sell_ev\t\n")
        assert b"corner.sell_everything(" in read_until(ours, b">>> ")
        os.write(ours, b"\x04")
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0


def read_until(terminal: int, end: bytes) -> bytes:
    seen, limit = b"", time.monotonic() + 60
    while not seen.endswith(end):
        assert time.monotonic() < limit, seen
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 10_000)
    return seen
