"""The seam between a node and its runners: what the node asks of them, and what they tell it and ask for their jobs.

`RunnerPool` (`runners`) is the real thing; `rota.testing` and the simulation have runners of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rota.client.errors import EnqueueError
from rota.client.model import Enqueue, Mode, Outcome, QueueInfo, Receipt, Step, TaskInfo

from ..channel.frames import ProgressUpdate, Work


class NodeSide(Protocol):
    """What runners tell their node, and what their jobs ask of it."""

    def on_outcomes(self, outcomes: list[tuple[int, Outcome]]) -> None:
        """A batch of (key of the work, outcome), in the order in which the jobs ended."""
        ...

    def on_started(self, key: int, index: int) -> None:
        """A job of a work that wants its starts reported has been started."""
        ...

    def on_progress(self, update: ProgressUpdate) -> None:
        """A job that runs has said how far it is, or something for its log."""
        ...

    async def enqueue(self, bundles: list[Enqueue]) -> list[Receipt | EnqueueError]:
        """A job enqueues jobs."""
        ...

    async def put_function(self, digest: str, code: bytes) -> None:
        """A job ships code by value."""
        ...

    async def steps(self, key: int, index: int) -> tuple[list[Step], bool]:
        """What a job that runs remembers; and whether it is one of a serial queue."""
        ...

    async def remember(self, key: int, index: int, step: Step) -> None:
        """It shall remember this, too: returns when it is stored."""
        ...

    async def task_mode(self, task: str) -> Mode | None:
        """A job asks how a task runs; None: nobody knows it."""
        ...


class Runners(Protocol):
    """What a node asks of its runners."""

    capacity: dict[Mode, int]
    spare: dict[Mode, int]

    @property
    def tasks(self) -> dict[str, TaskInfo]:
        """What the app declares; changes when a runner with other code starts."""
        ...

    @property
    def queues(self) -> dict[str, QueueInfo]: ...

    @property
    def trouble(self) -> str | None:
        """Why there are no runners (the app cannot be imported any more), or None."""
        ...

    @property
    def stand(self) -> bool:
        """Whether there is a runner that can be given jobs."""
        ...

    async def start(self, node: NodeSide) -> None: ...
    def submit(self, work: Work) -> None: ...
    def cancel(self, key: int, index: int) -> None: ...
    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]: ...
    def running(self) -> list[tuple[int, int]]: ...
    def report(self, work: Work, index: int, error: str) -> None: ...
    def keeps(self, key: int) -> bool: ...
    def begins(self, mode: Mode) -> bool: ...
    def busy(self, mode: Mode, queue: str) -> bool: ...
    def lease(self, lease_id: int, deadline_boottime: float) -> None: ...
    def no_lease(self) -> None: ...
    async def kill_all(self) -> None: ...
    async def stop(self, grace_s: float) -> None: ...
