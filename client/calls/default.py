"""The process's default client: what `task.enqueue` goes through.

Made on first use from the environment (`config.py`), or on purpose with `rota.connect(...)`. In a runner it goes
through the transport that the runner has installed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Protocol

from ..process import ending
from .handle import JobHandle, JobHandles
from .order import Call, Order, Routed


class Caller(Protocol):
    """What a task needs of a client."""

    def place(self, order: Order) -> JobHandle[Any]: ...
    async def aplace(self, order: Order) -> JobHandle[Any]: ...
    def place_many(self, task: Routed, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[Any]: ...
    async def aplace_many(self, task: Routed, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[Any]: ...
    def handle(self, job_id: str) -> JobHandle[Any]: ...
    def flow(self, name: str, *, keep: float | timedelta = ...) -> Any: ...
    def flow_handle(self, flow_id: str) -> Any: ...
    def close(self) -> None: ...


_client: Caller | None = None
_make: Callable[[], Caller] | None = None
_lock = threading.RLock()


def made_by(make: Callable[[], Caller]) -> None:
    """Who makes it when it is first needed: `rota` itself says so, the facade, which knows all rooms. (Declaring tasks
    needs neither asyncio nor aiohttp.)"""
    global _make
    _make = make


def client() -> Caller:
    global _client
    if _client is None:
        ending.check()
        assert _make is not None
        with _lock:
            made = _make()
            if _client is None:     # not made meanwhile: by this very thread, in a signal handler or a finalizer
                _client = made
    return _client


def replace(caller: Caller | None) -> None:
    """Make this the default client and close the one before it."""
    global _client
    with _lock:
        before, _client = _client, caller
    if before is not None:
        before.close()


def swap(caller: Caller | None) -> Caller | None:
    """Make this the default client for a while; returns the one before it, which stays open."""
    global _client
    with _lock:
        before, _client = _client, caller
    return before


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()       # its holder may be a thread that the child does not have


os.register_at_fork(after_in_child=_after_fork)
