"""The demo's processes: a guard for each node, as `rota node` would start them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from rota.client.errors import RotaError
from rota.client.settings.local import key_line, write_secret
from rota.client.wire.keyring import Keyring

from ..boot.child import tied
from ..boot.config import EtcdConfig, NodeConfig
from ..boot.launch import guard_command, guard_environment

STOP_TIMEOUT_S = 10.0
LEASE_TTL_S = 2
"""So long a lost machine goes unnoticed; the default of `rota node` is 10."""

NAMES = "abcdefghijklmnopqrstuvwxyz"


class Troupe:
    """`async with Troupe(...)`: the guards run; afterwards they have ended, whatever happened."""

    def __init__(self, cluster: str, address: str, nodes: int, app: str, logs: Path) -> None:
        key_file, token_file, self.token = logs / "key", logs / "token", secrets.token_urlsafe(32)
        write_secret(key_file, key_line())
        write_secret(token_file, self.token)
        self.keyring = Keyring.load(key_file)
        self._configs = [
            NodeConfig(
                etcd=EtcdConfig(endpoints=(address,), allow_broken=True), key_file=str(key_file),
                token_file=str(token_file),
                cluster=cluster, name=name, apps=(app,), port=0, sync_runners=1, async_capacity=1,
                lease_ttl_s=LEASE_TTL_S, grace_s=2.0, dev=True, log="warning",
            )
            for name in NAMES[:nodes]
        ]  # fmt: skip
        self._logs = logs
        self._guards: dict[str, subprocess.Popen[bytes]] = {}
        self._lost: set[str] = set()

    async def __aenter__(self) -> Self:
        for config in self._configs:
            self._guards[config.name] = _start(config, self._logs / f"{config.name}.log")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for guard in self._guards.values():
            with contextlib.suppress(ProcessLookupError):
                guard.terminate()
        await asyncio.gather(*(asyncio.to_thread(_end, guard) for guard in self._guards.values()))

    def check(self) -> None:
        """Raise with its last words if a guard has ended that was not lost on purpose."""
        for name, guard in self._guards.items():
            if guard.poll() is not None and name not in self._lost:
                raise RotaError(f"node {name} ended with status {guard.returncode}:\n{self.last_words(name)}")

    def last_words(self, name: str) -> str:
        return (self._logs / f"{name}.log").read_text(errors="replace")[-2000:].strip()

    def lose(self, identity: str) -> None:
        """End a node as a power cut would: its guard and, with it, every process of it, at once. Nobody is left to
        give up its membership: only the end of its lease tells the others."""
        name = identity.partition("-")[0]
        self._lost.add(name)
        self._guards[name].kill()

    def node_process(self, identity: str) -> int:
        """The pid of the node's own process, not its guard's, behind an identity (`<name>-…`)."""
        return _node_of(self._guards[identity.partition("-")[0]].pid)


def _start(config: NodeConfig, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            tied(guard_command(config), signal.SIGKILL), env=guard_environment(config),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,     # Ctrl-C is for us: we end the guards
        )  # fmt: skip


def _node_of(guard: int) -> int:
    """The guard's child that is the node; its others are runners."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
            if parent == guard and b"rota.cluster.process" in (process / "cmdline").read_bytes():
                return int(process.name)
    raise RotaError("the process that was to be killed is gone already")


def _end(guard: subprocess.Popen[bytes]) -> None:
    try:
        guard.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
