"""The handle of a job that is on its way through an outbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, TypeVar

from rota.client.calls import default
from rota.client.calls.handle import JobHandle
from rota.client.errors import JobUnknown
from rota.client.wire.views import JobView

R = TypeVar("R")

ON_ITS_WAY_S = 60.0
"""How long a job may be unknown to the cluster before that is told to who waits for it: its row has to be committed,
and moved."""

LOOK_S, LOOK_S_MAX = 0.02, 0.5


class OutboxHandle(JobHandle[R]):
    """It has its id at once. What it is asked for, it asks the default client for; `result` and `status` wait up to a
    minute for the job to be there. Before the transaction is committed there is nothing to wait for."""

    __slots__ = ()

    def __init__(self, bundle: str) -> None:
        self._bundle = bundle
        self._index = 0
        self.level = "durable"
        self.existing = False

    def __getattr__(self, name: str) -> Any:
        if name != "_source":
            raise AttributeError(name)
        self._source: Any = default.client()
        return self._source

    def result(self, timeout: float | None = None) -> R:
        for left_s, pause_s in _tries(timeout):
            try:
                return super().result(left_s)
            except JobUnknown:
                if not pause_s:
                    raise
                time.sleep(pause_s)
        raise AssertionError("it ends by returning or raising")

    async def aresult(self, timeout: float | None = None) -> R:
        for left_s, pause_s in _tries(timeout):
            try:
                return await super().aresult(left_s)
            except JobUnknown:
                if not pause_s:
                    raise
                await asyncio.sleep(pause_s)
        raise AssertionError("it ends by returning or raising")

    def status(self) -> JobView:
        for _, pause_s in _tries(None):
            view = super().status()
            if view.place != "unknown" or not pause_s:
                return view
            time.sleep(pause_s)
        raise AssertionError("it ends by returning or raising")

    async def astatus(self) -> JobView:
        for _, pause_s in _tries(None):
            view = await super().astatus()
            if view.place != "unknown" or not pause_s:
                return view
            await asyncio.sleep(pause_s)
        raise AssertionError("it ends by returning or raising")


def _tries(timeout: float | None) -> Iterator[tuple[float | None, float]]:
    """How long to wait at each try, and after it; the last one is followed by no pause."""
    began, pause_s = time.monotonic(), LOOK_S
    until = began + (ON_ITS_WAY_S if timeout is None else min(timeout, ON_ITS_WAY_S))
    while True:
        left_s = until - time.monotonic()
        wait_s = None if timeout is None else max(0.0, began + timeout - time.monotonic())
        yield wait_s, min(pause_s, left_s) if left_s > 0 else 0.0
        pause_s = min(2 * pause_s, LOOK_S_MAX)
