"""The compose project under test, seen as its user sees it: `docker compose`, `etcdctl`, a client on the host."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from docker import DockerClient

import rota
from rota.cluster.cli.start.secrets import init

ROOT = Path(__file__).parent.parent.parent
STAND_IN = "gcr.io/etcd-development/etcd:v3.5.16"
NAME = "rota-test"
TTL_S = 3
PORTS = range(4200, 4220)
WAIT_S = 90.0
POLL_S = 0.1


class Project:
    """`docker compose` with our own keys, ports and journal."""

    def __init__(self, engine: DockerClient, folder: Path) -> None:
        self.engine = engine
        self.journal = folder / "journal"
        self.journal.mkdir()
        self.journal.chmod(0o777)           # the containers run as a user of their own
        secrets = folder / "secrets"
        init(secrets, keep=False, add_key=False, use_key=False, group=True)
        self._key, self._token = secrets / "rota.key", secrets / "rota.token"
        self._environment = dict(os.environ) | {
            "ETCD_IMAGE": os.environ.get("ETCD_IMAGE") or self._etcd_image(),
            "ROTA_IMAGE": NAME, "ROTA_APP": "journal", "ROTA_APP_FOLDER": str(ROOT / "tests" / "docker" / "app"),
            "ROTA_SECRETS_GID": str(self._key.stat().st_gid), "ROTA_TTL": str(TTL_S),
            "ROTA_PORTS": f"{PORTS[0]}-{PORTS[-1]}", "JOURNAL": str(self.journal), "SECRETS": str(secrets),
        }  # fmt: skip

    def _etcd_image(self) -> str:
        """The stand-in where it is installed, as on a machine that can pull nothing; else what compose.yaml says."""
        tags = {tag for image in self.engine.images.list() for tag in image.tags}
        return STAND_IN if STAND_IN in tags else ""

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        done = subprocess.run(
            ["docker", "compose", "--ansi", "never", "--project-name", NAME, "--file", "compose.yaml",
             "--file", "tests/docker/compose.tests.yaml", *arguments],
            cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def etcdctl(self, *arguments: str, member: str = "etcd-1") -> str:
        return self.compose("exec", "--no-TTY", member, "etcdctl", *arguments)

    def up(self, nodes: int) -> None:
        """And healthy. (Not with compose's own --wait: it gives up on a container that is unhealthy at the moment.)"""
        self.compose("up", "--detach", "--scale", f"node={nodes}")
        self.wait_for(f"{nodes} members, all healthy", lambda: len(self.members()) == nodes and self._all_healthy())

    def _all_healthy(self) -> bool:
        containers = self.engine.containers.list(filters={"label": f"com.docker.compose.project={NAME}"})
        return {container.attrs["State"]["Health"]["Status"] for container in containers} == {"healthy"}

    def client(self) -> rota.Client:
        """It knows all addresses that a node may have, and finds one that answers."""
        urls = [f"http://127.0.0.1:{port}" for port in PORTS]
        return rota.Client(urls, key=self._key, token=self._token.read_text().strip())

    def members(self, member: str = "etcd-1") -> set[str]:
        prefix = "/rota/default/nodes/"
        listed = self.etcdctl("get", "--prefix", "--keys-only", prefix, member=member)
        return {line.removeprefix(prefix) for line in listed.splitlines() if line.strip()}

    def master(self, member: str = "etcd-1") -> str:
        """The candidate with the lowest create revision: of etcd's own election recipe."""
        listed = self.etcdctl(
            "get", "--prefix", "--sort-by=CREATE", "--order=ASCEND", "--limit=1", "--print-value-only",
            "/rota/default/master/", member=member,
        )  # fmt: skip
        return listed.strip()

    def revision(self) -> int:
        status = json.loads(self.etcdctl("endpoint", "status", "--write-out=json"))
        return int(status[0]["Status"]["header"]["revision"])

    def container(self, node: str) -> Any:
        """A node's name begins with its container's."""
        return self.engine.containers.get(node.rpartition("-")[0])

    def network(self) -> Any:
        return self.engine.networks.get(f"{NAME}_rota")

    def service(self, name: str) -> Any:
        return self.engine.containers.get(f"{NAME}-{name}-1")

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "200", "node")

    def runs(self) -> dict[int, list[str]]:
        """Where each job was started, by its number, in order."""
        started: dict[int, list[str]] = defaultdict(list)
        file = self.journal / "runs"
        for line in file.read_text().splitlines() if file.exists() else ():
            what, number, host, *_ = line.split()
            if what == "start":
                started[int(number)].append(host)
        return started

    def wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:.0f} s\n{self.logs()}"
            time.sleep(POLL_S)


@dataclass
class Load:
    """A program on the host that enqueues one job after another; when it stops, all acknowledged ones must end."""

    project: Project
    seconds: float = 0.2                # how long a job takes
    pause_s: float = 0.05
    acknowledged: dict[int, Any] = field(default_factory=dict)
    refused: list[rota.RotaError] = field(default_factory=list)

    numbers = iter(range(1_000_000_000))        # of all loads: a job's number is its own for ever

    def __enter__(self) -> Self:
        self._client = self.project.client()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._enqueue, name="load", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            if error is None:
                self._check_results()
        finally:
            self._client.close()

    def _enqueue(self) -> None:
        while not self._stop.wait(self.pause_s):
            number = next(Load.numbers)
            try:
                self.acknowledged[number] = self._client.enqueue("journal:work", number, self.seconds)
            except rota.RotaError as error:
                self.refused.append(error)

    def wait_acknowledged(self, count: int) -> None:
        """Until so many more have been acknowledged than now."""
        wanted = len(self.acknowledged) + count
        self.project.wait_for(f"{count} more acknowledged jobs ({self.refused[:3]})",
                              lambda: len(self.acknowledged) >= wanted)

    def _check_results(self) -> None:
        assert self.acknowledged
        for number, handle in self.acknowledged.items():
            assert handle.result(timeout=WAIT_S) == number

    def check_repeats(self, lost: Iterable[str]) -> None:
        """Every job ran, and none twice unless it was before on one of the lost nodes (their names)."""
        hosts = {node.rpartition("-")[0] for node in lost}
        runs = self.project.runs()
        for number in self.acknowledged:
            assert runs[number], f"job {number} has a result but never ran"
            unexplained = [host for host in runs[number][:-1] if host not in hosts]
            assert not unexplained, f"job {number} ran on {runs[number]}; lost were {sorted(hosts)}"
