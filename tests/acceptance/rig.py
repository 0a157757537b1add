"""A real cluster for tests: guards with their nodes and runners on a real etcd, and a client of all nodes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from rota.client.api.clients import AsyncClient
from rota.client.settings.local import key_line, write_secret
from rota.cluster.boot.child import tied
from rota.cluster.boot.config import EtcdConfig, NodeConfig
from rota.cluster.boot.embedded import free_port
from rota.cluster.boot.launch import guard_command, guard_environment
from rota.cluster.ledger.channels import EtcdConfig as LedgerConfig
from rota.cluster.ledger.etcd import EtcdLedger
from rota.cluster.ledger.ledger import Record, prefix_end
from rota.cluster.state.keys import Keys

APP = "tests.acceptance.apps.work"
ROOT = Path(__file__).parents[2]
PATIENCE_S = float(os.environ.get("STAGED_PATIENCE_S", "20"))
"""For a result. Less where a feature is switched off, and what is waited for will never come (`test_switches.py`)."""

DEADLINE_S = 2 * PATIENCE_S
START_S = 120.0


async def until(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Wait for a condition (plain or async) to become true; returns its value."""
    limit = time.monotonic() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < limit, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)


class Line(NamedTuple):
    """One line of a journal."""

    what: str
    job: str
    attempt: int
    fence: int
    pid: int
    at: float


def read_journal(journal: Path) -> list[Line]:
    if not journal.exists():
        return []
    rows = [row.split() for row in journal.read_text().splitlines()]
    return [Line(what, job, int(n), int(fence), int(pid), float(at)) for what, job, n, fence, pid, at in rows]


class Rig:
    """`async with Rig(...)`: so many nodes are members; afterwards all processes have ended."""

    def __init__(
        self, endpoint: str, cluster: str, logs: Path, *, nodes: int = 3, ttl_s: int = 2, sync: int = 2,
        capacity: int = 20, app: str = APP, restart: bool = False, **settings: Any,
    ) -> None:
        self.endpoint = endpoint
        self.keys = Keys(cluster)
        self.ledger = EtcdLedger(LedgerConfig(endpoints=(endpoint,)))
        self._logs = logs
        self._wanted = nodes
        self._numbers = 0
        self._settings: dict[str, Any] = {
            "etcd": EtcdConfig(endpoints=(endpoint.partition("://")[2],), allow_broken=True), "cluster": cluster,
            "apps": (app,), "port": 0, "sync_runners": sync, "async_capacity": capacity, "lease_ttl_s": ttl_s,
            "grace_s": 10.0, "dev": True, "restart": restart,
        } | (settings if "key_file" in settings else settings | secrets_in(logs))
        self.guards: dict[str, subprocess.Popen[bytes]] = {}
        self.client: AsyncClient

    async def __aenter__(self) -> Self:
        names = [self.start() for _ in range(self._wanted)]
        try:
            await self.joined(names)
            self.client = AsyncClient(await self.urls(), **self.credentials())
        except BaseException:
            self._kill_all()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.aclose()
        await self.ledger.close()
        self._kill_all()
        if error is not None:
            for name in self.guards:
                print(f"-- {name}:\n{self.log(name)[-3000:]}")

    def credentials(self) -> dict[str, Any]:
        """For clients."""
        return {"token": Path(self._settings["token_file"]).read_text().strip(), "key": self._settings["key_file"]}

    @property
    def headers(self) -> dict[str, str]:
        """For requests of other programs."""
        return {"Authorization": f"Bearer {self.credentials()['token']}"}

    def _kill_all(self) -> None:
        for guard in self.guards.values():
            with contextlib.suppress(ProcessLookupError):
                guard.send_signal(signal.SIGCONT)
                guard.kill()
        for guard in self.guards.values():
            guard.wait(10)

    def start(self, **changes: Any) -> str:
        """Start one more node; returns the name its identity will begin with."""
        name = f"node{self._numbers}"
        self._numbers += 1
        port = free_port() if self._settings["restart"] else 0      # the same one again after a crash
        config = NodeConfig(**(self._settings | {"name": name, "port": port} | changes))
        with (self._logs / f"{name}.log").open("wb") as output:
            self.guards[name] = subprocess.Popen(
                tied(guard_command(config), signal.SIGKILL),
                env=guard_environment(config) | {"PYTHONPATH": python_path()}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True, cwd=ROOT,
            )
        return name

    def log(self, name: str) -> str:
        return (self._logs / f"{name}.log").read_text(errors="replace")

    async def joined(self, names: list[str]) -> None:
        """Every one of these is a member, and there is a master."""

        async def there() -> bool:
            members = {node.rpartition("-")[0] for node in await self.members()}
            return set(names) <= members and bool(await self.master())

        await until(there, f"{names} are members", START_S)

    async def read(self, prefix: bytes) -> tuple[Record, ...]:
        return (await self.ledger.read(prefix, prefix_end(prefix))).records

    async def members(self) -> list[str]:
        return [record.key[len(self.keys.nodes):].decode() for record in await self.read(self.keys.nodes)]

    async def urls(self) -> list[str]:
        return [json.loads(record.value)["address"] for record in await self.read(self.keys.nodes)]

    async def master(self) -> str:
        candidates = await self.read(self.keys.master)
        return min(candidates, key=lambda record: record.create_revision).value.decode() if candidates else ""

    def name_of(self, identity: str) -> str:
        return identity.rpartition("-")[0]

    async def other_than_master(self) -> str:
        master = await self.master()
        return next(node for node in await self.members() if node != master)

    # -- harm --------------------------------------------------------------------------------------------------------

    def node_pid(self, identity: str) -> int:
        """The pid of a node's process: the guard's child that is no runner."""
        guard = self.guards[self.name_of(identity)].pid
        return next(pid for pid, command in children(guard) if b"rota.cluster.process" in command)

    def runner_pids(self, identity: str) -> list[int]:
        guard = self.guards[self.name_of(identity)].pid
        return [pid for pid, command in children(guard) if b"rota.worker.runner.process" in command]

    def kill_node(self, identity: str) -> None:
        os.kill(self.node_pid(identity), signal.SIGKILL)

    async def replace_node(self, identity: str) -> None:
        """Kill -9; another joins at its address, where clients find it."""
        port = await self.port_of(identity)
        self.kill_node(identity)
        await self.joined([self.start(port=port)])

    async def port_of(self, identity: str) -> int:
        records = await self.read(self.keys.nodes + identity.encode())
        return int(json.loads(records[0].value)["address"].rpartition(":")[2])

    def kill_machine(self, identity: str) -> None:
        """Guard first: nobody is left to revoke the lease."""
        guard = self.guards[self.name_of(identity)].pid
        pids = [guard, *(pid for pid, _ in children(guard))]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def drained(self, timeout_s: float = DEADLINE_S) -> None:
        """No token is left anywhere: everything has ended."""

        async def empty() -> bool:
            for prefix in (self.keys.jobs, self.keys.scheduled, self.keys.awaiting, self.keys.claims):
                if (await self.ledger.read(prefix, prefix_end(prefix), limit=1, keys_only=True)).records:
                    return False
            return True

        await until(empty, "all jobs have ended", timeout_s)


def secrets_in(folder: Path) -> dict[str, str]:
    """Settings: a key and a token of its own for each cluster."""
    key_file, token_file = folder / "rig.key", folder / "rig.token"
    if not key_file.exists():
        write_secret(key_file, key_line())
        write_secret(token_file, secrets.token_urlsafe(32))
    return {"key_file": str(key_file), "token_file": str(token_file)}


def python_path() -> str:
    """Ours first of all, and what this process was given: a switch may come in that way."""
    return os.pathsep.join([*os.environ.get("PYTHONPATH", "").split(os.pathsep), str(ROOT)]).lstrip(os.pathsep)


def children(parent: int) -> list[tuple[int, bytes]]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((process / "stat").read_bytes().rpartition(b")")[2].split()[1]) == parent:
                found.append((int(process.name), (process / "cmdline").read_bytes()))
    return found


def alive(pid: int) -> bool:
    """Running, not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
