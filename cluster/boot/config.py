"""The settings of a node: every one of them, checked once, handed down frozen.

`settings.py` makes one from flags, environment and file. The guard and the node's process get it as JSON in one
environment variable (`VARIABLE`): it holds the names of files with secrets, never a secret.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import msgspec

from rota.client.errors import ConfigError
from rota.client.ids import NAME_RULE
from rota.client.options.checks import WINDOW_S_MAX
from rota.client.settings.config import load_token
from rota.client.settings.hosts import is_loopback
from rota.client.wire.keyring import Keyring

from ..state.keys import is_name

UNIX = "unix:///"
"""How the address of an etcd begins that listens on a socket of the file system."""

TOKEN_CHARS_MIN = 16

VARIABLE = "ROTA_NODE_CONFIG"
"""The environment variable in which the guard and the node's process find their settings."""

LEASE_TTL_S_MIN = 2
"""etcd grants no less with its default timing (1.5 election timeouts, rounded up)."""

YEARS_S = 100 * 365 * 86_400

Log = Literal["debug", "info", "warning", "error"]


class EtcdConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where etcd is, and how to prove who we are. `endpoints` are `host:port`, or `unix:///path/of/a/socket`."""

    endpoints: tuple[str, ...]
    tls: bool = False
    ca_file: str = ""                   # "" with `tls`: the system's authorities
    cert_file: str = ""
    key_file: str = ""
    user: str = ""
    password_file: str = ""
    transport: Literal["http2", "grpc"] = "http2"      # or "grpc": see decision 33
    allow_broken: bool = False          # accept 3.5.0-3.5.2, which can lose an acknowledged write: for trying out only

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ConfigError("no etcd endpoint is given: say --etcd host:port[,host:port…], or try `rota dev`")
        for endpoint in self.endpoints:
            if not endpoint.startswith(UNIX):
                split_address(endpoint, "etcd endpoint")
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("a client certificate for etcd needs both --etcd-cert and --etcd-key")
        if (self.ca_file or self.cert_file) and not self.tls:
            raise ConfigError("certificates are given but TLS is off: write the endpoints as https://host:port")
        if bool(self.user) != bool(self.password_file):
            raise ConfigError("etcd's user and password go together: --etcd-user and --etcd-password-file")


    @property
    def is_local(self) -> bool:
        """Whether it is an etcd of this machine."""
        return all(
            endpoint.startswith(UNIX) or is_loopback(split_address(endpoint)[0]) for endpoint in self.endpoints
        )


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node is told. Times are in seconds."""

    etcd: EtcdConfig
    cluster: str = "default"
    name: str = ""                      # how its identities' names begin; "": the machine's name
    apps: tuple[str, ...] = ()          # modules to import; they declare the tasks
    queues: tuple[str, ...] = ("*",)    # "*": every queue
    labels: tuple[str, ...] = ()        # what the machine has, and tasks may require
    host: str = "127.0.0.1"             # where the HTTP port listens
    port: int = 4100                    # 0: the system picks one
    http_cert_file: str = ""            # serve the port over TLS; "": plain HTTP
    http_key_file: str = ""
    advertise: str = ""                 # the URL under which others reach the node; "": from host and port
    sync_runners: int = 1               # processes that run plain functions, one job at a time each
    async_capacity: int = 100           # `async def` jobs at a time
    async_processes: int = 1            # event loops that share them, each in a process of its own
    spare_runners: int = 4              # more, if need be, for queues of which nothing runs
    jobs_per_runner_max: int = 0        # then a runner's process is replaced; 0: never
    runner_mib_max: int = 0             # likewise, when it has more in memory
    lease_ttl_s: int = 10               # a lost machine is noticed after this
    start_timeout_s: float = 60.0       # how long runners may take to import the app when the node starts
    runner_user: str = ""               # run jobs as this user; needs root. "": as the node itself
    grace_s: float = 30.0               # how long running jobs may go on after SIGTERM
    keep_result_s: float = 3600.0       # for tasks that do not say
    keep_finished_s: float = 0.0        # likewise: how long jobs that ended well are kept, arguments included
    keep_failed_s: float = 0.0          # the master drops older jobs from the failed set; 0: nobody does
    receipt_ttl_s: float = 120.0        # how long a repeated enqueue is recognised
    key_file: str = ""                  # signing keys (`rota init` makes one)
    token_file: str = ""                # bearer token of the HTTP port
    local: bool = False                 # its token is made anew; both are published for this user (`settings.local`)
    offload_url: str = ""               # where runners find and put payloads over the limit
    offload_sweep_s: float = 3600.0     # how often the master's process clears it; 0: never
    outbox: str = ""                    # SQLAlchemy's address of a database whose outbox it relays; "": none
    outbox_name: str = "default"        # of the outbox in its cluster
    outbox_table: str = "rota_outbox"
    encrypt_file: str = ""              # encryption keys, for its runners alone
    insecure_no_key: bool = False       # run what nobody has signed
    functions: bool = True              # run functions that were shipped by value (lambdas, closures)
    compact: bool = False               # the master compacts etcd's history; only where etcd is not shared
    restart: bool = True                # the guard starts the node's process again after a crash
    dev: bool = False                   # on an embedded etcd, for trying out
    otel: bool = False                  # send spans of takeovers and jobs by OpenTelemetry
    log: Log = "info"
    log_format: Literal["text", "json"] = "text"    # of all processes of the node; an app's own logging wins in runners

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        self._check_secrets()
        if bool(self.http_cert_file) != bool(self.http_key_file):
            raise ConfigError("serving TLS needs both --http-cert and --http-key")
        if self.outbox and not self.key_file:
            raise ConfigError("--outbox needs --key-file: a relay takes rows that the cluster's key has signed")

    def _check_secrets(self) -> None:
        if bool(self.key_file) != bool(self.token_file or self.local):
            raise ConfigError("signing key and bearer token go together: `rota init` makes both files")
        if (self.local or not self.key_file) and not is_loopback(self.host):
            raise ConfigError(
                f"the HTTP port would listen on {self.host}, beyond this machine, and whoever reaches it could run "
                "code: it needs --key-file and --token-file (`rota init` makes both), or listen on 127.0.0.1"
            )
        if (self.local or not self.key_file) and not self.etcd.is_local:
            raise ConfigError(
                "this etcd is not on this machine, and whoever can write to it could have code run here: nodes need "
                "--key-file and --token-file (`rota init` makes both; all nodes and clients use the same)"
            )
        if not self.key_file and not self.insecure_no_key:
            raise ConfigError(
                "a node needs a signing key: --key-file and --token-file (`rota init` makes both). Without one, every "
                "user of this machine could have code run here; if that is what you want, say --insecure-no-key"
            )
        if self.key_file and self.insecure_no_key:
            raise ConfigError("--insecure-no-key and --key-file exclude each other")

    def _check_names(self) -> None:
        if not is_name(self.cluster):
            raise ConfigError(f"{self.cluster!r} is not a valid cluster name: {NAME_RULE}")
        if self.name and not is_name(self.name):
            raise ConfigError(f"{self.name!r} is not a valid node name: {NAME_RULE}")
        if not is_name(self.outbox_name):
            raise ConfigError(f"{self.outbox_name!r} is not a valid name of an outbox: {NAME_RULE}")
        for queue in self.queues:
            if queue != "*" and not is_name(queue):
                raise ConfigError(f"{queue!r} is not a valid queue name: {NAME_RULE}, or *")
        for label in self.labels:
            if not is_name(label):
                raise ConfigError(f"{label!r} is not a valid label: {NAME_RULE}")
        if not self.queues:
            raise ConfigError("no queue is given: leave --queues away to serve every queue")
        for app in self.apps:
            if not all(part.isidentifier() for part in app.split(".")):
                raise ConfigError(f"--app wants the dotted name of a module, as in `import {app}`; {app!r} is none")

    def _check_numbers(self) -> None:
        _within("--http port", self.port, 0, 65535)
        _within("--sync", self.sync_runners, 0, 1024)
        _within("--async", self.async_capacity, 0, 100_000)
        _within("--async-processes", self.async_processes, 1, 1024)
        _within("--spare", self.spare_runners, 0, 1024)
        _within("--max-jobs-per-runner", self.jobs_per_runner_max, 0, 1_000_000_000)
        _within("--max-runner-memory", self.runner_mib_max, 0, 1_000_000_000)
        _within("--ttl", self.lease_ttl_s, LEASE_TTL_S_MIN, 3600)
        _within("--grace", self.grace_s, 0, 86_400)
        _within("--start-timeout", self.start_timeout_s, 1, 86_400)
        _within("--offload-sweep", self.offload_sweep_s, 0, 30 * 86_400)
        _within("--keep-result", self.keep_result_s, 0, 30 * 86_400)
        _within("--keep-finished", self.keep_finished_s, 0, YEARS_S)
        _within("--keep-failed", self.keep_failed_s, 0, YEARS_S)
        _within("receipt_ttl", self.receipt_ttl_s, 2 * WINDOW_S_MAX, 86_400)
        if self.sync_runners + self.async_capacity == 0:
            raise ConfigError("--sync 0 and --async 0: such a node could run nothing")

    @property
    def signed(self) -> bool:
        """Whether jobs must carry a signature, and requests a token."""
        return bool(self.key_file)

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise ConfigError(f"${VARIABLE} cannot be read: {error}") from error

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """What the node's process calls. Raises `ConfigError` if it was not started by a guard."""
        text = environ.get(VARIABLE)
        if text is None:
            raise ConfigError(f"${VARIABLE} is not set: this process is started by `rota node`, not by hand")
        return cls.from_json(text)


def check_files(config: NodeConfig) -> None:
    """Raise `ConfigError` for a named file that is missing or cannot be read, and for secrets that can be guessed."""
    _check_readable({
        "--key-file": config.key_file, "--token-file": config.token_file, "--http-cert": config.http_cert_file,
        "--http-key": config.http_key_file,
    })
    check_store_files(config.etcd)
    if config.key_file and (weak := Keyring.load(config.key_file).guessable):
        raise ConfigError(f"--key-file: {', '.join(weak)} can be guessed; `rota init --add-key` makes a good one")
    if config.token_file and len(load_token(config.token_file)) < TOKEN_CHARS_MIN:
        raise ConfigError(
            f"--token-file: a token of less than {TOKEN_CHARS_MIN} characters can be guessed; `rota init` makes one"
        )
    if config.runner_user:
        _check_user(config.runner_user)


def check_store_files(etcd: EtcdConfig) -> None:
    """Likewise, of those that name etcd's."""
    _check_readable({
        "--etcd-ca": etcd.ca_file, "--etcd-cert": etcd.cert_file, "--etcd-key": etcd.key_file,
        "--etcd-password-file": etcd.password_file,
    })


def _check_readable(named: Mapping[str, str]) -> None:
    for flag, name in named.items():
        if name and not os.access(name, os.R_OK):
            reason = "cannot be read by this user" if Path(name).exists() else "does not exist"
            advice = "; `rota init` makes it" if flag in ("--key-file", "--token-file") else ""
            raise ConfigError(f"{flag}: {name} {reason}{advice}")


def _check_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--runner-user: there is no user {name!r} on this machine") from None
    if os.geteuid() != 0:
        raise ConfigError("--runner-user: only root can run jobs as another user; start the node as root, or leave it")


def split_address(text: str, what: str = "address") -> tuple[str, int]:
    """`host:port` or `[v6]:port` -> (host, port). Raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdigit() and int(port) <= 65535) or "/" in host:
        raise ConfigError(f"{text!r} is no {what}: it is written host:port, as in 127.0.0.1:2379")
    return host.strip("[]"), int(port)


def _within(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{what} is {value:g}; it must lie between {low:g} and {high:g}")
