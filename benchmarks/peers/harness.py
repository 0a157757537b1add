"""The figures of one rival, of one round: what is taken of all, in the same way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil

from rota.cluster.boot.child import tied

from .brokers import Broker, broker_of
from .environments import INSIDE, folder_of, python_of
from .roster import Rival

COUNTS = struct.Struct("=QQQ")
WARM = 300
PACED = 150
WAIT_S = 90.0
STOP_S = 4.0


class Figures(msgspec.Struct, omit_defaults=True):
    """Rates are jobs per second; CPU is seconds per 1,000 jobs, of producer, workers and broker."""

    name: str
    durable: bool
    bulk: float = 0.0       # end to end
    drain: float = 0.0      # of a backlog
    one: float = 0.0        # enqueued, a call after the other
    p50_ms: float = 0.0     # idle, enqueue to the first line of the job
    cpu_s: float = 0.0

    @property
    def title(self) -> str:
        return f"{self.name}, durable" if self.durable else self.name


class Stalled(Exception):
    """Jobs did not end in time."""


def measure(rival: Rival, *, durable: bool, scale: float) -> Figures:
    """One round. Raises `Missing`, `Stalled`."""
    count = max(int(rival.count * scale), 100)
    found = Figures(rival.name, durable)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        with broker_of(rival, _folder(name, "drain"), durable=durable) as broker:
            run = _Run(rival, broker, _folder(name, "drain-counts"))
            found.one = count / run.produce("one", count)["seconds"]
            with run.working():
                run.wait(count)
            found.drain = run.rate(count)
        with broker_of(rival, _folder(name, "bulk"), durable=durable) as broker:
            run = _Run(rival, broker, _folder(name, "bulk-counts"))
            with run.working():
                run.produce("one", WARM)
                run.wait(WARM)
                before = run.cpu()
                said = run.produce(rival.bulk, count)
                run.wait(WARM + count)
                found.bulk = count / ((run.last() - said["began"]) / 1e9)
                found.cpu_s = (run.cpu() - before + said["cpu"]) / count * 1000
                time.sleep(0.5)
                run.produce("paced", PACED)
                run.wait(WARM + count + PACED)
                found.p50_ms = run.p50_ms()
    return found


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent, name)
    folder.mkdir()
    return folder


class _Run:
    """A rival's producers and workers on one broker."""

    def __init__(self, rival: Rival, broker: Broker, folder: Path) -> None:
        self._rival, self._broker, self._folder = rival, broker, folder
        self._workers: list[subprocess.Popen[bytes]] = []
        self._environ = os.environ | broker.environ | dict(rival.environ) | {
            "PEERS_FOLDER": str(folder), "PYTHONPATH": str(INSIDE),
        }

    def produce(self, how: str, count: int) -> dict[str, Any]:
        rival = self._rival
        command = ["node", rival.module, how, str(count)] if rival.is_node else [
            str(python_of(rival)), "produce.py", rival.module, how, str(count)
        ]
        ended = subprocess.run(
            command, env=self._environ, cwd=folder_of(rival), capture_output=True, text=True, timeout=WAIT_S,
            check=False,
        )
        if ended.returncode:
            raise Stalled(f"its producer failed: {ended.stderr.strip()[-300:]}")
        said: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
        return said

    @contextmanager
    def working(self) -> Iterator[None]:
        python = python_of(self._rival)
        for command in self._rival.workers:
            argv = [part.format(bin=python.parent, python=python) for part in command.split()]
            argv[0] = shutil.which(argv[0]) or argv[0]
            self._workers.append(subprocess.Popen(
                tied(argv, signal.SIGTERM), env=self._environ, cwd=folder_of(self._rival), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            ))
        try:
            yield
        finally:
            self._stop()

    def _stop(self) -> None:
        """Also what has left its parent: by its session."""
        family = self._family()
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, STOP_S)
        for process in alive:
            process.kill()
        for worker in self._workers:
            worker.wait()
        self._workers.clear()

    def _family(self) -> list[psutil.Process]:
        found = []
        for worker in self._workers:
            try:
                process = psutil.Process(worker.pid)
                found += [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found

    def counts(self) -> list[tuple[int, int, int]]:
        found = [path.read_bytes()[:COUNTS.size] for path in self._folder.glob("count.*")]
        return [COUNTS.unpack(data) for data in found if len(data) == COUNTS.size and any(data)]

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while (done := sum(counts[0] for counts in self.counts())) < count:
            if time.monotonic() > deadline:
                raise Stalled(f"{done:,} of {count:,} jobs within {WAIT_S:g} s")
            time.sleep(0.01)

    def last(self) -> int:
        return max(last for _, _, last in self.counts())

    def rate(self, count: int) -> float:
        return (count - 1) / ((self.last() - min(first for _, first, _ in self.counts())) / 1e9)

    def p50_ms(self) -> float:
        data = (self._folder / "latencies").read_bytes()
        latencies = sorted(value for (value,) in struct.iter_unpack("=Q", data))
        return latencies[len(latencies) // 2] / 1e6

    def cpu(self) -> float:
        total = 0.0
        for process in [*self._family(), self._broker.process, *self._broker.process.children(recursive=True)]:
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += used.user + used.system
        return total
