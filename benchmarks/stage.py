"""What is measured: an etcd with normal timing and fsync, and nodes as `rota node` would start them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from rota.client.api.clients import AsyncClient
from rota.cluster.boot.child import tied
from rota.cluster.boot.config import EtcdConfig, NodeConfig
from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd, free_port
from rota.cluster.boot.launch import guard_command, guard_environment
from rota.cluster.ledger.channels import EtcdConfig as LedgerConfig
from rota.cluster.ledger.etcd import EtcdLedger
from rota.cluster.ledger.ledger import Get, Put, Record, Txn, prefix_end
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Member, QueueRecord, encode

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
CLUSTER = "bench"
DEADLINE_S = 60.0
POLL_S = 0.01
QUOTA_BYTES = 8 * 1024**3
"""A million lone jobs take a few GB with their history; at four fifths of the quota nodes refuse enqueues."""


class BenchmarkError(Exception):
    """Something that was to be measured did not happen."""


class Stage:
    """`async with Stage(folder)`: nodes are members and there is a master; afterwards all processes have ended.

    Jobs are signed and the port asks for a token, as off loopback. `sync` and `capacity` are what `rota node` takes by
    itself on this machine.
    """

    def __init__(
        self, folder: Path, *, nodes: int = 1, ttl_s: int = 10, sync: int | None = None, capacity: int = 100,
        async_processes: int = 1, binary: Path | None = None, app: str = "benchmarks.jobs", cluster: str = CLUSTER,
    ) -> None:
        self.etcd = EmbeddedEtcd(EmbeddedConfig(folder / "etcd", binary=binary, quota_bytes=QUOTA_BYTES, tcp=True))
        self.keys = Keys(cluster)
        self.ledger: EtcdLedger
        self._folder = folder
        self._wanted = nodes
        self._settings = NodeConfig(
            etcd=EtcdConfig(endpoints=("127.0.0.1:1",), allow_broken=True), cluster=cluster, apps=(app,), port=0,
            sync_runners=sync or os.cpu_count() or 1, async_capacity=capacity, async_processes=async_processes,
            lease_ttl_s=ttl_s, grace_s=2.0,
            key_file=str(folder / "key"), token_file=str(folder / "token"), restart=False, log="warning",
        )
        self._guards: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        _write_secret(self._folder / "key", f"bench:{secrets.token_hex(32)}")
        _write_secret(self._folder / "token", secrets.token_urlsafe(32))
        await self.etcd.start()
        try:
            self.ledger = EtcdLedger(LedgerConfig((self.etcd.endpoint,)))
            await self.joined([self.start() for _ in range(self._wanted)])
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for name in self._guards:
                print(f"-- {name}:\n{self._last_words(name)}")
        await self._end()

    async def _end(self) -> None:
        for guard in self._guards.values():
            with contextlib.suppress(ProcessLookupError):
                guard.kill()            # node and runners die with it
        for guard in self._guards.values():
            await asyncio.to_thread(guard.wait)
        await self.ledger.close()
        await self.etcd.stop()

    def start(self, name: str = "") -> str:
        """Start one more node, or one again at its old address; returns the name its identity will begin with."""
        name = name or f"n{len(self._guards)}"
        port = self._ports.setdefault(name, free_port())
        etcd = msgspec.structs.replace(self._settings.etcd, endpoints=(self.etcd.address,))
        config = msgspec.structs.replace(self._settings, name=name, port=port, etcd=etcd)
        with (self._folder / f"{name}.log").open("wb") as output:
            self._guards[name] = subprocess.Popen(
                tied(guard_command(config), signal.SIGKILL), env=guard_environment(config, environment()),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )
        return name

    async def replace(self, identity: str) -> None:
        """Start a node again that has been killed; wait until it is a member."""
        name = identity.rpartition("-")[0]
        guard = self._guards[name]
        with contextlib.suppress(ProcessLookupError):
            guard.kill()
        await asyncio.to_thread(guard.wait)
        await self.joined([self.start(name)])

    def client(self, urls: list[str]) -> AsyncClient:
        return AsyncClient(urls, token=self.token, key=self._settings.key_file)

    @property
    def token(self) -> str:
        return Path(self._settings.token_file).read_text().strip()

    def client_environment(self, urls: list[str]) -> dict[str, str]:
        """What a client process needs to find the nodes."""
        return environment() | {
            "ROTA_URL": ",".join(urls), "ROTA_KEY_FILE": self._settings.key_file,
            "ROTA_TOKEN_FILE": self._settings.token_file,
        }

    def _last_words(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-2000:].strip()

    # -- looking -----------------------------------------------------------------------------------------------------

    async def joined(self, names: list[str]) -> None:
        async def there() -> bool:
            for name in names:
                if self._guards[name].poll() is not None:
                    raise BenchmarkError(f"node {name} has ended:\n{self._last_words(name)}")
            members = {node.rpartition("-")[0] for node in await self.members()}
            return set(names) <= members and bool(await self.master())

        await until(there, f"{', '.join(names)} have joined")

    async def members(self) -> dict[str, Member]:
        return {
            record.key[len(self.keys.nodes):].decode(): msgspec.json.decode(record.value, type=Member)
            for record in await self.read(self.keys.nodes)
        }

    async def urls(self) -> list[str]:
        return [member.address for member in (await self.members()).values()]

    async def master(self) -> str:
        candidates = await self.read(self.keys.master)
        return min(candidates, key=lambda record: record.create_revision).value.decode() if candidates else ""

    async def read(self, prefix: bytes) -> tuple[Record, ...]:
        return (await self.ledger.read(prefix, prefix_end(prefix))).records

    async def drained(
        self, timeout_s: float = DEADLINE_S, *, due_ms: int | None = None, poll_s: float = POLL_S
    ) -> float:
        """Wait until no token is left; returns when (monotonic). Looked at in one transaction: tokens move about.
        Of the scheduled ones only those due by `due_ms` count, if it is given. etcd walks over every key of a range,
        whatever the limit: where many wait, look less often."""
        keys = self.keys
        scheduled_end = prefix_end(keys.scheduled) if due_ms is None else keys.due_before(due_ms)
        ends = {keys.jobs: prefix_end(keys.jobs), keys.scheduled: scheduled_end, keys.claims: prefix_end(keys.claims)}
        look = Txn((), tuple(Get(start, end, True, 1) for start, end in ends.items()))

        async def empty() -> float:
            answers = (await self.ledger.commit(look)).answers
            return 0.0 if any(answers) else time.monotonic()

        return await until(empty, "all jobs have ended", timeout_s, poll_s)

    async def pause(self, queue: str, paused: bool) -> None:
        await self.ledger.commit(Txn((), (Put(self.keys.queue(queue), encode(QueueRecord(paused=paused))),)))

    # -- processes ---------------------------------------------------------------------------------------------------

    def guard_pid(self, identity: str) -> int:
        return self._guards[identity.rpartition("-")[0]].pid

    def node_pid(self, identity: str) -> int:
        return self._children(identity, b"rota.cluster.process")[0]

    def runner_pids(self, identity: str) -> list[int]:
        return self._children(identity, b"rota.worker.runner.process")

    def _children(self, identity: str, command: bytes) -> list[int]:
        return [pid for pid, line in children(self.guard_pid(identity)) if command in line]


def _write_secret(path: Path, text: str) -> None:
    path.write_text(text + "\n")
    path.chmod(0o600)


def environment() -> dict[str, str]:
    """Ours, so that nodes can import `benchmarks`; but nothing in it that would configure rota."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH", ""))))
    return kept | {"PYTHONPATH": path}


def children(parent: int) -> list[tuple[int, bytes]]:
    """(pid, command line)"""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((process / "stat").read_bytes().rpartition(b")")[2].split()[1]) == parent:
                found.append((int(process.name), (process / "cmdline").read_bytes()))
    return found


async def until(
    condition: Callable[[], Awaitable[T]], what: str, timeout_s: float = DEADLINE_S, poll_s: float = POLL_S
) -> T:
    """Wait for a condition to become true; returns its value."""
    limit = time.monotonic() + timeout_s
    while not (value := await condition()):
        if time.monotonic() > limit:
            raise BenchmarkError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(poll_s)
    return value
