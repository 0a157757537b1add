"""What `import rota` gives of clients, over the default client of this process."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from os import PathLike
from typing import Any

from ..calls import default
from ..calls.handle import JobHandle
from ..wire.keyring import Keyring
from .clients import Client
from .flows import KEEP_S, Flow, FlowHandle


def connect(
    urls: str | Iterable[str] | None = None,
    *,
    token: str | None = None,
    key: Keyring | str | PathLike[str] | None = None,
    ca_file: str | None = None,
    retry_window_s: float | None = None,
    connect_timeout_s: float | None = None,
) -> Client:
    """Make a `Client` and have `task.enqueue` use it, in this process."""
    client = Client(
        urls, token=token, key=key, ca_file=ca_file, retry_window_s=retry_window_s,
        connect_timeout_s=connect_timeout_s,
    )
    default.replace(client)
    return client


def handle(job_id: str) -> JobHandle[Any]:
    """The handle of a job of any client, by its id, through the default client. Raises ValueError for what is not an
    id."""
    return default.client().handle(job_id)


def flow(name: str, *, keep: float | timedelta = KEEP_S) -> Flow:
    """A block whose jobs are stored as one graph, under a name: `with rota.flow("import") as flow:`, or `async with`.

    What the block enqueues (through the default client) is kept here until it ends, and then stored: nothing of it
    begins before all is there, and a block that raises has stored nothing. Then `flow` is a handle of it, as
    `rota.flow_handle(flow.id)` finds it anywhere.

    Args:
        name: what it is called: letters, digits and _ . : @ -. Many flows may have one name; each has its id.
        keep: how long it is kept when all of its jobs have ended, with the results of its last jobs: seconds, or a
            timedelta.

    Raises, at the end of the block:
        InvalidJob: it is too large (50,000 jobs in one block), or a job in it is refused.
        What `enqueue` raises: nothing of it will ever begin; after `EnqueueUnknown`, it may.
    """
    made: Flow = default.client().flow(name, keep=keep)
    return made


def flow_handle(flow_id: str) -> FlowHandle:
    """A flow of any client, by its id, through the default client. Raises `InvalidJob` for what is no id."""
    known: FlowHandle = default.client().flow_handle(flow_id)
    return known
