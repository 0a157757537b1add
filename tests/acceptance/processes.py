"""Running the real `rota` command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rota.cluster.boot.embedded import free_port

ROTA = Path(sys.executable).parent / "rota"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 60.0
POLL_S = 0.05


def environment(**extra: str) -> dict[str, str]:
    """Ours, without what would configure rota."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"} | extra


def rota(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROTA, *arguments], cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
    )


@dataclass(frozen=True)
class Running:
    """A node (and its etcd) started by `rota dev`."""

    url: str
    etcd: str
    process: subprocess.Popen[bytes]
    log: Path

    def rota(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return rota(*arguments, ROTA_URL=self.url, **options)

    def json(self, *arguments: str) -> Any:
        done = self.rota(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextlib.contextmanager
def dev(folder: Path, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] = {}) -> Iterator[Running]:
    """`rota dev`, ready. Stopped with SIGTERM, which must end it with status 0."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", folder / "dev.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ROTA, "dev", "--http", f"127.0.0.1:{port}", *arguments],
            cwd=cwd or folder, env=environment(**env), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_ready(url, process, log)
        etcd = log.read_text().partition(" at ")[2].partition(",")[0]
        yield Running(url, etcd, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert status == 0, log.read_text()


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(POLL_S)
