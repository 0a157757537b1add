"""What `rota node` is told on its command line holds on a real node."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.cluster.boot.embedded import free_port

from ..cluster.port.test_tls import certificate, served
from . import rig as rigs
from .apps import work
from .processes import ROTA, environment, wait_ready
from .rig import APP, ROOT, Rig, python_path, until


@contextlib.contextmanager
def node(etcd: Any, cluster: str, folder: Path, *flags: str) -> Iterator[tuple[rota.Client, str]]:
    """A node of our own user, with a key of its own."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", folder / "node.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ROTA, "node", "--app", APP, "--etcd", etcd.endpoint, "--etcd-allow-broken", "--cluster", cluster,
             "--http", f"127.0.0.1:{port}", "--ttl", "5", *flags],
            cwd=ROOT, env=environment(PYTHONPATH=python_path()), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_ready(url, process, log)
        with rota.Client(url) as client:
            yield client, url
    except BaseException:
        print(log.read_text()[-3000:])
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_runners_are_as_many_and_last_as_long_as_said(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    flags = ("--sync", "1", "--async", "4", "--async-processes", "2", "--spare", "1", "--max-jobs-per-runner", "6",
             "--max-runner-memory", "80")  # fmt: skip
    with node(etcd, cluster_name, tmp_path, *flags) as (client, url):
        loops = {handle.result(60) for handle in client.enqueue_many(work.awho, [(0.5,)] * 4)}
        assert len(loops) == 2                                              # --async-processes
        slow = client.enqueue(work.hoard, 160, 4.0)                         # the only plain slot is taken
        spare, _ = client.enqueue(work.who.using(queue="another")).result(60)
        assert slow.status().place == "running"                             # --spare
        hoarder = slow.result(60)
        assert hoarder != spare
        pids = [client.enqueue(work.who).result(60)[0] for _ in range(14)]
        assert hoarder not in pids                                          # --max-runner-memory
        assert len(set(pids)) >= 2                                          # --max-jobs-per-runner
        assert "journal" in refused_call(url, {"task": work.nap.name, "kwargs": {"seconds": 1}})
        assert "journey" in refused_call(url, {"task": work.nap.name, "kwargs": {"journal": "x", "journey": 1}})


def refused_call(url: str, job: object) -> str:
    """Over HTTP, too, a call that its task would not take is refused before anything is stored."""
    token = subprocess.run([ROTA, "token", "--url", url], capture_output=True, text=True, check=True).stdout.strip()
    asked = urllib.request.Request(f"{url}/v1/jobs", json.dumps(job).encode(), {
        "Authorization": f"Bearer {token}", "Content-Type": "application/json",
    })
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=10)
    with refused.value as answer:
        assert answer.status == 400
        return str(json.load(answer)["message"])


def may_run_as(user: str) -> bool:
    """Where the interpreter lies in a folder that is closed to others, nobody else can run jobs."""
    if os.geteuid() != 0:
        return False
    with contextlib.suppress(OSError, KeyError):
        ids = pwd.getpwnam(user)
        tried = subprocess.run(
            [sys.executable, "-c", "import rota"], user=ids.pw_uid, group=ids.pw_gid, extra_groups=[], check=False,
            capture_output=True, cwd="/",
        )
        return tried.returncode == 0
    return False


@pytest.mark.skipif(not may_run_as("nobody"), reason="needs root, and an interpreter that others may run")
def test_jobs_run_as_the_user_that_is_named(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    with node(etcd, cluster_name, tmp_path, "--sync", "1", "--runner-user", "nobody") as (client, _):
        assert client.enqueue(work.who).result(60)[1] == pwd.getpwnam("nobody").pw_uid


async def test_a_renewed_certificate_is_served_and_a_node_that_hangs_is_started_again(
    etcd: Any, cluster_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = rigs.guard_command

    def impatient(config: Any) -> list[str]:
        argv = command(config)
        place = argv.index("--")
        return [*argv[:place], "--silence", "9", *argv[place:]]         # else a minute; a node says so every 5 s

    monkeypatch.setattr(rigs, "guard_command", impatient)
    pem, key = tmp_path / "port.pem", tmp_path / "port.key"

    def issue(name: str) -> None:
        for file, text in zip((pem, key), certificate(tmp_path, name), strict=True):
            file.write_text(text)

    issue("one")
    settings = {"http_cert_file": str(pem), "http_key_file": str(key), "restart": True, "ttl_s": 30}
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=1, **settings) as rig:
        (identity,), (url,) = await rig.members(), await rig.urls()
        port = int(url.rpartition(":")[2].strip("/"))
        before = await served(port)
        issue("two")

        async def is_new() -> bool:
            return await served(port) != before

        await until(is_new, "the new certificate is served")
        os.kill(rig.node_pid(identity), signal.SIGSTOP)

        async def another() -> bool:
            return bool(set(await rig.members()) - {identity})

        await until(another, "its guard has started it again", 40)
        assert "the node's process has not answered for 9 s: it is killed" in rig.log("node0")
