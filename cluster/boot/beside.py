"""What a node's process does beside its node, if it is told to: the relay of an outbox, and clearing the object store.

Both speak to the outside (a database, an object store), so both are on threads of their own, and neither can hold up
the node. Of all nodes one does it at a time: the relay takes turns by the cluster, and the master's process sweeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from rota.client.api.sweeping import Swept, sweep
from rota.client.errors import ClientClosed, JobUnknown, RotaError
from rota.client.wire import offload
from rota.client.wire.keyring import Keyring
from rota.client.wire.views import JobView
from rota.outbox.opening import rows_at
from rota.outbox.relay import Relay

from ..node.node import Node
from ..node.service import Service
from .config import NodeConfig

log = logging.getLogger("rota.node")

LOOK_S = 0.5
STOP_S = 10.0
ANSWER_S = 30.0
"""How long a sweep waits for what became of one job."""


def works(
    node: Node, config: NodeConfig, where: str, keyring: Keyring, token: str | None,
    environ: Mapping[str, str],
) -> list[Coroutine[Any, Any, None]]:
    """What the settings want to be done until the node leaves. The relay asks at `where`, the node's own port, or the
    nodes at `ROTA_URL`. Raises `ConfigError`."""
    wanted = []
    if config.outbox:
        rows = rows_at(config.outbox, config.outbox_table)
        urls = environ.get("ROTA_URL") or where
        wanted.append(relay(node, Relay(rows, config.outbox_name, urls=urls, token=token, key=keyring)))
    if config.offload_url and config.offload_sweep_s and not config.dev:    # (whose jobs lie in no cluster for long)
        wanted.append(clear(node, config.cluster, config.offload_sweep_s))
    return wanted


async def relay(node: Node, relay: Relay) -> None:
    """Move rows while the node is a member; leave the turn to another relay before it goes."""
    while node.service.why_not_ready() is not None:         # noqa: ASYNC110 - no one says so
        await asyncio.sleep(LOOK_S)
    relay.start()
    try:
        await node.leaving.wait()
    finally:
        await asyncio.to_thread(relay.stop, STOP_S)


async def clear(node: Node, cluster: str, every_s: float) -> None:
    """Delete from the object store what belongs to no job any more, while this node is master. Long before the first
    sweep each node tells those of other clusters that the folder is theirs, too."""
    loop = asyncio.get_running_loop()

    def job(id_: str) -> JobView:
        if node.leaving.is_set() or not node.observed.figures().is_master:
            raise ClientClosed("this node is master no more: another one goes on")
        return asyncio.run_coroutine_threadsafe(found(node.service, id_), loop).result(ANSWER_S)

    await asyncio.to_thread(marked, cluster)
    while True:
        await asyncio.sleep(every_s)
        if await asyncio.to_thread(marked, cluster) and node.observed.figures().is_master:
            await asyncio.to_thread(cleared, job)


async def found(service: Service, id_: str) -> JobView:
    """A job, as far as a sweep needs to know it: of one whose arguments are stored it does not matter where its token
    is, and to look for that, object by object, would read the whole backlog each time."""
    with contextlib.suppress(JobUnknown):
        await service.body(id_)
        return JobView(id_, "waiting")
    return await service.job(id_)


def marked(cluster: str) -> bool:
    """Whether the store says now that this cluster uses it."""
    try:
        offload.mark(cluster)
    except Exception as error:
        log.warning("the object store is not cleared before it can be told whose it is: %s", error)
        return False
    return True


def cleared(job: Callable[[str], JobView]) -> Swept | None:
    """Once; None if it could not be done to its end. Whatever is wrong with the store is told, and tried again."""
    try:
        swept = sweep(job)
    except ClientClosed:
        return None
    except (RotaError, TimeoutError) as error:
        log.warning("the object store is not cleared now: %s", error)
        return None
    except Exception:       # whatever it is, the node goes on
        log.exception("the object store is not cleared now")
        return None
    if swept.deleted:
        log.info("%d objects of jobs that are over were deleted, %d are kept", swept.deleted, swept.kept)
    return swept
