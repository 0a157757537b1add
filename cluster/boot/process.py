"""A node's process: `python -m rota.cluster.process`, started by the guard. Puts the parts together and runs them.

Exit statuses: 0 after a drain, 2 for a wrong setting (the guard does not start it again), anything else for a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
import sys
from collections.abc import Coroutine, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from rota.client import collector
from rota.client.errors import ConfigError, LedgerDenied, LedgerUnavailable, StoreTooOld, WriteUnknown
from rota.client.escape import LineFormatter, escaped
from rota.client.json_log import JsonFormatter
from rota.client.settings.config import load_token
from rota.client.settings.hosts import is_loopback
from rota.client.settings.local import Local
from rota.client.wire.keyring import UNSIGNED, Keyring, Seal
from rota.worker.guard.guardlink import GuardLink
from rota.worker.pool.runners import RunnerPool
from rota.worker.pool.staff import PoolConfig

from ..clock import SystemClock
from ..context import NodeContext
from ..events import log as event_log
from ..events.hub import Events
from ..events.records import ClusterEvent, NodeJoined
from ..ledger.channels import EtcdConfig as LedgerConfig
from ..ledger.etcd import EtcdLedger
from ..ledger.releases import check_version
from ..node.node import Node
from ..node.settings import NodeSettings
from ..port.http import HttpPort
from ..port.tls import serving
from ..state.keys import Keys
from ..telemetry.metered import MeteredLedger
from ..telemetry.telemetry import Telemetry
from . import console
from .beside import works
from .config import UNIX, EtcdConfig, NodeConfig
from .sites import sites_of

log = logging.getLogger("rota.node")        # this module is run as __main__

EXIT_CONFIG = 2
CHATTY = ("grpc", "asyncio", "aiohttp")
"""Libraries whose debugging is about themselves: at --log debug one wants to read of rota."""


async def serve(config: NodeConfig, guard: GuardLink) -> None:
    """Run one node until it is drained. Raises `ConfigError` for what only its owner can mend."""
    ledger_config = ledger_settings(config.etcd)
    ledger = MeteredLedger(EtcdLedger(ledger_config))
    guard.etcd(
        [url(endpoint, config.etcd.tls) for endpoint in config.etcd.endpoints], user=config.etcd.user,
        password_file=config.etcd.password_file, ca=config.etcd.ca_file, cert=config.etcd.cert_file,
        key=config.etcd.key_file, by_grpc=[sys.executable, "-P", "-m", "rota.cluster.boot.revoke"],
    )
    try:
        keyring = Keyring.load(config.key_file) if config.key_file else UNSIGNED
        token = load_token(config.token_file) if config.token_file else None
        if config.local:
            token = secrets.token_urlsafe(32)
        pool = PoolConfig(
            apps=config.apps, sync_runners=config.sync_runners, async_capacity=config.async_capacity,
            async_processes=config.async_processes, start_timeout_s=config.start_timeout_s,
            spare_runners=config.spare_runners, jobs_per_runner_max=config.jobs_per_runner_max,
            runner_bytes_max=config.runner_mib_max * 1024 * 1024,
        )

        context = NodeContext(
            ledger=ledger, keys=Keys(config.cluster), clock=SystemClock(), rng=random.Random(),
            seal=Seal(keyring, config.cluster), events=Events(),
        )
        node = Node(node_settings(config), context, RunnerPool(pool, guard))
        context.events.listen(_Named.joined, (NodeJoined,))
        event_log.attach(context.events)
        if config.otel:
            _trace(context.events)
        telemetry = Telemetry(node.observed, context, node.directory, ledger.figures, node.known)
        guard.listen()
        guard.on_signal(lambda name, count: node.drain())
        sites = sites_of(node.service, telemetry, token, secure=bool(config.http_cert_file))
        tls = serving(config.http_cert_file, config.http_key_file) if config.http_cert_file else None
        async with HttpPort(node.service, config.host, config.port, token, keyring, tls=tls, sites=sites) as port:
            if tls is None and not is_loopback(config.host):
                log.warning(
                    "the port listens on %s without TLS: the token, jobs and results can be read on their way. "
                    "Say --http-cert, or let only a proxy with TLS reach it", config.host,
                )
            with published(config, port.port, token):
                if await node.unless_leaving(_check_store(node, ledger, config)):
                    others = works(node, config, reachable(port.url), keyring, token, os.environ)
                    await _run(node, telemetry, config, port.url, others)
    finally:
        await ledger.close()


def _trace(events: Events) -> None:
    """Raises `ConfigError` where the extra is not installed."""
    try:
        from rota.worker.runner.tracing import exporting

        from ..telemetry.traces import Traces

        Traces(exporting("rota-node"), lambda: _Named.node, SystemClock().wall).listen(events)
    except ImportError as error:
        raise ConfigError(f"--otel needs the extra: pip install 'rota[otel]' ({error})") from None


async def _run(
    node: Node, telemetry: Telemetry, config: NodeConfig, where: str, others: list[Coroutine[Any, Any, None]]
) -> None:
    """Until it is drained; in development its owner is told what it does."""
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(other, name="beside the node") for other in others]
        seen = group.create_task(telemetry.run(), name="telemetry")
        announcing = group.create_task(
            console.Console(node, config.apps, config.name).announce(where) if config.dev
            else _warn_of_none(node, config.apps),
            name="announce",
        )
        await node.run(config.advertise or reachable(where))
        for task in (announcing, seen, *beside):
            task.cancel()


async def _warn_of_none(node: Node, apps: tuple[str, ...]) -> None:
    while node.service.why_not_ready() is not None:         # noqa: ASYNC110 - no one says so
        await asyncio.sleep(console.LOOK_S)
    if not node.runners.tasks:
        log.warning("%s", console.no_tasks(apps))


async def _check_store(node: Node, ledger: MeteredLedger, config: NodeConfig) -> None:
    """Wait for etcd, saying so once, and to whoever asks why the node is not ready; refuse what loses writes."""
    where, is_logged = ", ".join(config.etcd.endpoints), False
    node.about(f"it looks for etcd at {where}")
    while True:
        try:
            status = await ledger.status()
            break
        except (LedgerUnavailable, WriteUnknown) as error:
            problem = "etcd refuses it" if isinstance(error, LedgerDenied) else "no etcd answers"
            node.about(f"{problem} at {where}: {error}")
            if not is_logged:
                log.error(
                    "%s at %s (%s). Is it running, are address, user and certificates right? Trying again.",
                    problem, where, error,
                )
                is_logged = True
            await asyncio.sleep(1.0)
    if is_logged:
        log.warning("etcd answers at %s", where)
    warning = check_version(status.version, embedded=config.etcd.allow_broken or config.dev)
    if warning:
        log.warning("%s", warning)


def ledger_settings(etcd: EtcdConfig) -> LedgerConfig:
    def path(name: str) -> Path | None:
        return Path(name) if name else None

    return LedgerConfig(
        endpoints=tuple(url(endpoint, etcd.tls) for endpoint in etcd.endpoints), user=etcd.user,
        password_file=path(etcd.password_file),
        ca_cert=path(etcd.ca_file), cert=path(etcd.cert_file), key=path(etcd.key_file),
        transport=etcd.transport,
    )


@contextlib.contextmanager
def published(config: NodeConfig, port: int, token: str | None) -> Iterator[None]:
    """While a node runs that was given no secrets, clients of its user find them."""
    local = Local(os.environ)
    if not config.local or token is None:
        local.withdraw(port)        # of another node, which had this port
        yield
        return
    local.publish(port, Path(config.key_file).read_text(), token)
    try:
        yield
    finally:
        local.withdraw(port, token)


def url(endpoint: str, tls: bool) -> str:
    return endpoint if endpoint.startswith(UNIX) else f"{'https' if tls else 'http'}://{endpoint}"


def reachable(address: str) -> str:
    """An address that others can use: a node that listens everywhere is reached under its host name."""
    for everywhere in ("//0.0.0.0:", "//[::]:"):
        address = address.replace(everywhere, f"//{socket.gethostname()}:")
    return address


def node_settings(config: NodeConfig) -> NodeSettings:
    machine = "".join(char for char in socket.gethostname()[:40] if char.isascii() and (char.isalnum() or char in "-_"))
    name = config.name or machine.lstrip("-")
    return NodeSettings(
        name=name or "node", queues=config.queues, labels=config.labels, functions=config.functions,
        python=f"{sys.version_info.major}.{sys.version_info.minor}", version=version("rota"),
        lease_ttl_s=config.lease_ttl_s, grace_s=config.grace_s, keep_result_s=config.keep_result_s,
        keep_finished_s=config.keep_finished_s, keep_failed_s=config.keep_failed_s,
        receipt_ttl_s=config.receipt_ttl_s, compact=config.compact,
    )


class _Named:
    """Whose log this is: the identity that this process has, or had last."""

    node = ""

    @classmethod
    def joined(cls, event: ClusterEvent) -> None:
        assert isinstance(event, NodeJoined)
        cls.node = event.node


def main() -> int:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level="INFO", handlers=[handler])
    status = 0
    try:
        config = NodeConfig.from_environment(os.environ)
        logging.getLogger().setLevel(config.log.upper())
        if config.log_format == "json":
            handler.setFormatter(JsonFormatter(lambda: {"node": _Named.node} if _Named.node else {}))
        for name in CHATTY:
            logging.getLogger(name).setLevel(max(logging.INFO, logging.getLogger().level))
        guard = GuardLink.from_environment(os.environ)
        with contextlib.suppress(KeyboardInterrupt):
            collector.look_rarely()
            collector.spare_imports()
            uvloop.run(serve(config, guard))
    except* (ConfigError, StoreTooOld) as group:
        for error in group.exceptions:
            print(f"rota: {escaped(str(error), lines=True)}", file=sys.stderr)  # noqa: T201
        status = EXIT_CONFIG
    except* Exception:
        log.critical("the node's process ends by an error of its own", exc_info=True)
        status = 1
    return status
