"""Placeholder of the runner pool: see the Protocols."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from rota.client.model import Codec, Mode, Options, TaskInfo


class Work(msgspec.Struct, gc=False):
    """One bundle, or a piece of one, on its way to a runner. `jobs` are (index, payload), in order."""

    key: int
    bundle: str
    task: str
    queue: str
    mode: Mode
    attempt: int
    fence: int
    enqueued_at: float
    codec: Codec
    jobs: list[tuple[int, bytes]]
    function: bytes | None = None
    options: Options = Options()
    report_start: bool = False


class Runners(Protocol):
    """The seam between the node and its runners. Callbacks are given at construction."""

    tasks: dict[str, TaskInfo]
    capacity: dict[Mode, int]

    async def start(self) -> None: ...
    def submit(self, work: Work) -> None: ...
    def cancel(self, key: int, index: int) -> None: ...
    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]: ...
    def running(self) -> list[tuple[int, int]]: ...
    def lease(self, lease_id: int, deadline_boottime: float) -> None: ...
    def no_lease(self) -> None: ...
    async def kill_all(self) -> None: ...
    async def stop(self, grace_s: float) -> None: ...
