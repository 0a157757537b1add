"""Options of `rota node`, some of which other commands share. Each fills the setting of its name (`..settings`)."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rota.client.model import DURATION_S_MAX
from rota.client.options.checks import now_s

ETCD, TRUST, MORE = "etcd", "Keys and token", "More"


def seconds(text: str) -> float:
    """A number of seconds that a person may say."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= DURATION_S_MAX:
        raise typer.BadParameter(f"{text!r} is no number of seconds: 0 or more, and at most 100 years")
    return value


def _option(help: str, *names: str, metavar: str | None = None, panel: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel)


App = Annotated[
    list[str] | None,
    _option("A module with tasks, to import in the runners. Repeatable.", "--app", "-a", metavar="MODULE"),
]
Queues = Annotated[str | None, _option("Serve only these queues. Default: every queue.", metavar="A,B")]
Labels = Annotated[str | None, _option("What this machine has: tasks may require it.", metavar="A,B")]
Sync = Annotated[int | None, _option("Processes for plain functions. Default: one per CPU.", "--sync")]
Async = Annotated[int | None, _option("`async def` jobs at a time. Default: 100.", "--async")]
AsyncProcesses = Annotated[int | None, _option("Event loops that share them. Default: 1.", "--async-processes")]
Spare = Annotated[int | None, _option("Slots beyond these, for queues of which nothing runs. Default: 4.")]
MaxJobsPerRunner = Annotated[int | None, _option("Replace a runner's process after so many jobs. Default: never.")]
MaxRunnerMemory = Annotated[
    int | None, _option("Replace a runner's process when it takes more. Default: never.", metavar="MIB")
]
Http = Annotated[str | None, _option("Where to listen. Default: 127.0.0.1:4100.", metavar="HOST:PORT")]
Advertise = Annotated[str | None, _option("How others reach this node. Default: from --http.", metavar="URL")]
Cluster = Annotated[str | None, _option("Several clusters may share one etcd. Default: default.")]
Name = Annotated[str | None, _option("How the node's name begins. Default: the machine's.")]
Ttl = Annotated[int | None, _option("Seconds until a lost machine's jobs move on. Default: 10.")]
Grace = Annotated[float | None, _option("Seconds that running jobs may go on after SIGTERM. Default: 30.")]

StartTimeout = Annotated[
    float | None, _option("Seconds that the app's import may take. Default: 60.", "--start-timeout", panel=MORE)
]
RunnerUser = Annotated[
    str | None, _option("Run jobs as this user; needs root.", "--runner-user", metavar="NAME", panel=TRUST)
]

Etcd = Annotated[str | None, _option("etcd's members; https:// for TLS.", metavar="HOST:PORT,…", panel=ETCD)]
EtcdCa = Annotated[str | None, _option("Authority to trust.", metavar="FILE", panel=ETCD)]
EtcdCert = Annotated[str | None, _option("Client certificate.", metavar="FILE", panel=ETCD)]
EtcdKey = Annotated[str | None, _option("Its key.", metavar="FILE", panel=ETCD)]
EtcdUser = Annotated[str | None, _option("User name.", metavar="NAME", panel=ETCD)]
EtcdPasswordFile = Annotated[str | None, _option("The user's password.", metavar="FILE", panel=ETCD)]
EtcdTransport = Annotated[
    str | None, _option("Speak to etcd by rota's own http2 (the default) or by grpc.", metavar="NAME", panel=ETCD)
]
EtcdAllowBroken = Annotated[
    bool | None, _option("Accept 3.5.0-3.5.2, which can lose writes.", "--etcd-allow-broken", panel=ETCD)
]
Compact = Annotated[bool | None, _option("Let the master compact etcd's history.", "--compact", panel=ETCD)]

KeyFile = Annotated[
    str | None,
    _option("Signing keys, from `rota init`. Default on an etcd here: your own.", metavar="FILE", panel=TRUST),
]
TokenFile = Annotated[str | None, _option("Bearer token, from `rota init`.", metavar="FILE", panel=TRUST)]
InsecureNoKey = Annotated[
    bool | None,
    _option(
        "Run what nobody has signed: every user of this machine, and whoever can write to etcd, can run code here.",
        "--insecure-no-key", panel=TRUST,
    ),
]
Encrypt = Annotated[
    str | None, _option("Encryption keys: runners open sealed arguments, and seal results.", metavar="FILE",
    panel=TRUST)
]
Offload = Annotated[
    str | None, _option("Object store for payloads over 256 KiB: s3://bucket/rota.", metavar="URL", panel=MORE)
]
OffloadSweep = Annotated[
    float | None, _option("Seconds between sweeps of the object store. 0: never. Default: 3600.", panel=MORE)
]
Outbox = Annotated[
    str | None, _option("Relay the outbox of this database (SQLAlchemy's address).", metavar="URL", panel=MORE)
]
OutboxName = Annotated[str | None, _option("The outbox's name. Default: default.", metavar="NAME", panel=MORE)]
OutboxTable = Annotated[str | None, _option("Its table. Default: rota_outbox.", metavar="NAME", panel=MORE)]
HttpCert = Annotated[str | None, _option("Serve TLS with this certificate.", metavar="FILE", panel=TRUST)]
HttpKey = Annotated[str | None, _option("Its key.", metavar="FILE", panel=TRUST)]
Functions = Annotated[bool | None, _option("Run code shipped by value.", "--functions/--no-functions", panel=TRUST)]

KeepResult = Annotated[float | None, _option("Seconds, for tasks that do not say. Default: 3600.", panel=MORE)]
KeepFinished = Annotated[
    float | None, _option("Seconds to keep jobs that ended well, for tasks that do not say. Default: 0.", panel=MORE)
]
KeepFailed = Annotated[
    float | None, _option("Drop failed jobs after so many seconds. Default: keep them for ever.", panel=MORE)
]
Restart = Annotated[bool | None, _option("Start the node again after a crash.", "--restart/--no-restart", panel=MORE)]
Otel = Annotated[
    bool | None, _option("Send spans by OpenTelemetry, as OTEL_… say.", "--otel/--no-otel", panel=MORE)
]
Log = Annotated[str | None, _option("debug, info, warning or error. Default: info.", "--log", panel=MORE)]
LogFormat = Annotated[
    str | None, _option("text, or json: a line of JSON for each record. Default: text.", "--log-format", panel=MORE)
]
Config = Annotated[Path | None, _option("Settings in TOML.", "--config", metavar="FILE", panel=MORE)]


_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def moment(text: str) -> datetime:
    """`2h`, `30m`, `1d`, `90s`: so long ago; or a date and time, of this machine where it names no zone."""
    if (ago := _AGO.match(text.strip())) is not None:
        return datetime.fromtimestamp(now_s() - float(ago[1]) * _UNITS[ago[2]], UTC)
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time: 2h, 30m or 1d (ago), or 2026-11-26T08:00") from None
    return parsed if parsed.tzinfo is not None else parsed.astimezone()
