"""Redis and Postgres, started for one rival on a port of loopback that the system picks, with their data in a folder of
their own. `durable`: each commit is on disk when it is acknowledged, as rota's always are."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from rota.cluster.boot.child import tied
from rota.cluster.boot.embedded import free_port

from .environments import Missing, python_of
from .roster import POSTGRES, Rival

START_S = 20.0


class Broker:
    def __init__(self, process: psutil.Process, environ: dict[str, str]) -> None:
        self.process = process
        self.environ = environ


@contextmanager
def broker_of(rival: Rival, folder: Path, *, durable: bool) -> Iterator[Broker]:
    with postgres(rival, folder) if rival.broker == POSTGRES else redis(folder, durable=durable) as broker:
        yield broker


@contextmanager
def redis(folder: Path, *, durable: bool) -> Iterator[Broker]:
    binary = shutil.which("redis-server")
    if binary is None:
        raise Missing("most rivals need Redis (Debian: apt install redis-server)")
    port = free_port()
    how = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *how]
    server = subprocess.Popen(tied(command, signal.SIGKILL), stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield Broker(psutil.Process(server.pid), {"PEERS_REDIS_PORT": str(port)})
    finally:
        server.terminate()
        server.wait()


@contextmanager
def postgres(rival: Rival, folder: Path) -> Iterator[Broker]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise Missing("Procrastinate needs Postgres (Debian: apt install postgresql)")
    bin_, data, port = found[-1].parent, folder / "postgres", free_port()
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    data.mkdir()
    os.chown(data, user.pw_uid, user.pw_gid)
    for parent in (folder, folder.parent):
        parent.chmod(0o755)
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()} if os.getuid() == 0 else {}
    subprocess.run(
        [bin_ / "initdb", "-D", data, "-A", "trust", "-U", "postgres"], stdout=subprocess.DEVNULL, check=True, cwd=data,
        **who,      # type: ignore[call-overload]
    )
    options = ("shared_buffers=512MB", "max_wal_size=2GB", "wal_compression=on", f"unix_socket_directories={data}")
    server = subprocess.Popen(
        [bin_ / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", *(f"-c{option}" for option in options)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=data, **who,      # type: ignore[call-overload]
    )
    try:
        _wait_for(port)
        environ = {"PEERS_POSTGRES": f"host=127.0.0.1 port={port} user=postgres dbname=postgres"}
        schema = [python_of(rival), "-m", "procrastinate", "--app", f"{rival.module}.app", "schema", "--apply"]
        subprocess.run(
            schema, env=os.environ | environ, cwd=Path(__file__).with_name("inside"), check=True, capture_output=True
        )
        yield Broker(psutil.Process(server.pid), environ)
    finally:
        server.send_signal(signal.SIGINT)       # its fast way down
        server.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            time.sleep(0.2)
            return
    raise Missing(f"nothing listens on port {port} after {START_S:g} s")
