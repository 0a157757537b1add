"""What is asked of nodes for the clients, over an engine: by HTTP, beside what goes over its WebSocket."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import quote

from .. import ids
from ..errors import SignatureRefused
from ..ids import parse_job_id
from ..model import Codec, ResultEntry
from ..options import checks as options
from ..settings.config import ClientConfig
from ..transports.connection import Connection
from . import flows, schedules
from .engine import Engine
from .express import Express

T = TypeVar("T")


def open_engine(config: ClientConfig) -> Engine:
    """An engine over a connection of its own, on the running loop."""
    made = Connection(
        config.urls, config.keyring, config.token, tls=config.tls(), local=config.local,
        connect_s=config.connect_timeout_s, retry_s=config.retry_window_s,
    )
    engine = Engine(made, retry_s=config.retry_window_s, connect_s=config.connect_timeout_s)
    engine.express = Express(made, engine.names, retry_s=config.retry_window_s)
    return engine


async def page(engine: Engine, path: str, kind: type[T]) -> T:
    return await connection(engine).get(path, kind)


async def template(engine: Engine, asked: schedules.Asked) -> bytes:
    """What a schedule's jobs are made of, signed."""
    route = await engine.prepare(asked.order.route, b"", engine.patience())
    seal = await engine.seal(engine.patience())
    asked = asked._replace(order=asked.order._replace(route=route))
    return seal.body(schedules.header_of(asked, options.now_s()), [asked.order.payload])


async def signed_arguments(engine: Engine, job_id: str) -> tuple[Codec, bytes]:
    """Codec and payload of one job, its signature checked."""
    bundle, index = parse_job_id(job_id)
    body = await connection(engine).fetch_to_unpickle(f"/v1/jobs/{ids.job_id(bundle, index)}/body")
    seal = await engine.seal(engine.patience())
    header, payloads = seal.keyring.verify(body, seal.cluster)
    if (header.bundle, header.indexes) != (bundle, [index]):
        raise SignatureRefused(f"asked for job {job_id}, got those of {header.bundle}")
    return header.codec, payloads[0]


async def flow_entries(engine: Engine, flow_id: str) -> dict[str, ResultEntry]:
    """What the last jobs of a flow returned, its signatures checked."""
    fetch = connection(engine).fetch_to_unpickle
    return await flows.entries_of(fetch, await engine.seal(engine.patience()), flow_id)


def connection(engine: Engine) -> Connection:
    if not isinstance(engine.transport, Connection):
        raise RuntimeError("inside a job there is no view of the cluster: make a rota.Client of its own")
    return engine.transport


async def listed(engine: Engine, what: str, queue: str | None, item: type[T], limit: int) -> list[T]:
    """Up to `limit` items of a list: as many as there are, however many a node tells at a time."""
    queue = "" if queue is None else f"queue={quote(queue, safe='')}&"
    return await connection(engine).listed(f"/v1/{what}?{queue}", item, limit)
