"""Databases for the tests: SQLite in a file, and a Postgres of their own where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rota.cluster.boot.embedded import free_port

OPTIONS = "-c fsync=off -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=50"


def binaries() -> Path | None:
    """Where `initdb` is: the newest of Debian's, or what is on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def why_not() -> str:
    """Why there is no Postgres here; "" if there is one."""
    if binaries() is None:
        return "no Postgres is installed (apt install postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "Postgres does not run as root, and there is no user postgres"
    return ""


@contextmanager
def postgres() -> Iterator[str]:
    """A server with an empty database, as a URL for SQLAlchemy; gone afterwards."""
    bin_, port = binaries(), free_port()
    assert bin_ is not None
    folder = tempfile.mkdtemp(prefix="rota-postgres-")
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    try:
        run(str(bin_ / "initdb"), "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-N", "--no-instructions")
        control = str(bin_ / "pg_ctl"), "-D", f"{folder}/data", "-l", f"{folder}/log"
        run(*control, "-w", "-o", f"{OPTIONS} -p {port}", "start")
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
