"""A node starts before its store does: it waits, and says so to whoever asks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rota.cluster.boot.child import tied
from rota.cluster.boot.config import EtcdConfig, NodeConfig
from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd, free_port
from rota.cluster.boot.launch import guard_command, guard_environment

from .rig import APP, DEADLINE_S, ROOT, START_S, python_path, until


@contextlib.contextmanager
def node(folder: Path, etcd_port: int, **settings: Any) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    config = NodeConfig(
        etcd=EtcdConfig(endpoints=(f"127.0.0.1:{etcd_port}",), allow_broken=True), apps=(APP,), port=port,
        async_capacity=1, dev=True, insecure_no_key=True, **settings,
    )
    with (folder / "log").open("wb") as log:
        guard = subprocess.Popen(
            tied(guard_command(config), signal.SIGKILL), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
            env=guard_environment(config) | {"PYTHONPATH": python_path()}, start_new_session=True,
        )
    try:
        yield guard, port
    finally:
        guard.kill()
        guard.wait()


def ask(port: int, page: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, {}


async def test_the_port_is_open_before_there_is_a_store(tmp_path: Path) -> None:
    etcd_port = free_port()
    with node(tmp_path, etcd_port) as (guard, port):
        await until(lambda: ask(port, "/livez")[0] == 200, "it lives", START_S)
        await until(lambda: "no etcd answers" in ask(port, "/readyz")[1].get("why", ""), "it says what it waits for")
        assert ask(port, "/readyz")[0] == 503
        binary = Path(os.environ["ROTA_ETCD_BINARY"]) if "ROTA_ETCD_BINARY" in os.environ else None
        async with EmbeddedEtcd(EmbeddedConfig(tmp_path / "etcd", binary=binary, tcp=True, client_port=etcd_port)):
            await until(lambda: ask(port, "/readyz")[0] == 200, "it is ready", START_S)
            guard.send_signal(signal.SIGTERM)
            assert await until(lambda: guard.poll() is not None, "it has left", DEADLINE_S) and guard.returncode == 0
        log = (tmp_path / "log").read_text()
        assert log.count("no etcd answers") == 1 and log.count("etcd answers at") == 2


async def test_it_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    with node(tmp_path, free_port()) as (guard, port):
        await until(lambda: "no etcd answers" in ask(port, "/readyz")[1].get("why", ""), "it waits", START_S)
        guard.send_signal(signal.SIGTERM)
        await until(lambda: guard.poll() is not None, "it has ended", DEADLINE_S)
        assert guard.returncode == 0
