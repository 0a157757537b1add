"""What a node for development tells its owner: its tasks, when it is ready, and a line for each job with its time."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter

from rota.client.calls.signature import shown, signature_of
from rota.client.ids import job_id

from ..events.records import ClusterEvent, JobEnded
from ..node.node import Node
from ..terminal import complain

LOOK_S = 0.05
LINES_MAX = 50
"""In a second; the jobs that end beyond that are counted."""

MARKS = {"ok": "ok", "failed": "FAILED", "retry": "again", "snooze": "snooze", "cancelled": "cancelled"}


class Console:
    """Listens to a node. `announce` returns when it is ready."""

    def __init__(self, node: Node, apps: tuple[str, ...], name: str = "") -> None:
        """`name`: what its lines begin with, where several nodes write to one terminal."""
        self._node = node
        self._apps = apps
        self._prefix = f"{name}: " if name else ""
        self._ended = 0              # jobs that ended in this second
        self._untold: Counter[str] = Counter()
        node.events.listen(self._heard, [JobEnded])

    async def announce(self, url: str) -> None:
        while self._node.service.why_not_ready() is not None:       # noqa: ASYNC110 - no one says so
            await asyncio.sleep(LOOK_S)
        first, *listed = self._tasks()
        ready = f"{self._prefix or 'rota: '}ready at {url}, process {os.getpid()}"
        complain(f"{ready}; {first.rstrip(':')}" if self._prefix else "\n".join([ready, first, *listed]))

    def _tasks(self) -> list[str]:
        tasks = self._node.runners.tasks
        if not tasks:
            return [no_tasks(self._apps)]
        lines = []
        for name, info in sorted(tasks.items()):
            signature = signature_of(info.parameters) if info.parameters is not None else None
            queue = "" if info.queue == "default" else f", queue {info.queue}"
            kind = "async def" if info.mode == "async" else "plain function"
            lines.append(f"  {name}{shown(signature) if signature is not None else ''}  ({kind}{queue})")
        return [f"{len(tasks)} task{'s' if len(tasks) > 1 else ''}:", *lines]

    def _heard(self, event: ClusterEvent) -> None:
        assert isinstance(event, JobEnded)
        self._ended += 1
        if self._ended == 1:
            asyncio.get_running_loop().call_later(1.0, self._next_second)
        elif self._ended > LINES_MAX:
            self._untold[event.outcome] += 1
            return
        took = span(event.ran_s) if event.ran_s else ""
        error = "" if event.outcome == "ok" or not event.error else f"  {event.error}"
        complain(
            f"{self._prefix}{time.strftime('%H:%M:%S')}  {MARKS.get(event.outcome, event.outcome):9} {took:>8}  "
            f"{event.task}  {job_id(event.bundle, event.index)}{error}"
        )

    def _next_second(self) -> None:
        if self._untold:
            counts = ", ".join(f"{count:,} {MARKS.get(outcome, outcome)}" for outcome, count in self._untold.items())
            complain(f"{self._prefix}{time.strftime('%H:%M:%S')}  and more in this second: {counts}")
        self._ended = 0
        self._untold.clear()


def no_tasks(apps: tuple[str, ...]) -> str:
    if not apps:
        return "no --app is given: only functions that are shipped by value run here"
    return f"no tasks in {', '.join(apps)}: is there a function with @rota.task?"


def span(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
