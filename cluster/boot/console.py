"""What a node for development tells its owner: its tasks, when it is ready, and a line for each job with its time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from rota.client.ids import job_id
from rota.client.signature import shown, signature_of

from ..events.records import ClusterEvent, JobEnded, JobStarted
from ..node.node import Node
from ..terminal import complain

LOOK_S = 0.05
STARTED_MAX = 10_000
"""Jobs whose beginning is remembered; of others no time is shown."""

MARKS = {"ok": "ok", "failed": "FAILED", "retry": "again", "snooze": "snooze", "cancelled": "cancelled"}


class Console:
    """Listens to a node. `announce` returns when it is ready."""

    def __init__(self, node: Node, apps: tuple[str, ...]) -> None:
        self._node = node
        self._apps = apps
        self._began: OrderedDict[tuple[str, int], float] = OrderedDict()
        node.events.listen(self._heard, [JobStarted, JobEnded])

    async def announce(self, url: str) -> None:
        while self._node.service.why_not_ready() is not None:       # noqa: ASYNC110 - no one says so
            await asyncio.sleep(LOOK_S)
        complain("\n".join([f"rota: ready at {url}", *self._tasks()]))

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
        match event:
            case JobStarted():
                self._started(event)
            case JobEnded():
                self._ended(event)

    def _started(self, event: JobStarted) -> None:
        self._began[event.bundle, event.index] = time.monotonic()
        if len(self._began) > STARTED_MAX:
            self._began.popitem(last=False)

    def _ended(self, event: JobEnded) -> None:
        began = self._began.pop((event.bundle, event.index), None)
        took = "" if began is None else span(time.monotonic() - began)
        error = "" if event.outcome == "ok" or not event.error else f"  {event.error}"
        complain(
            f"{time.strftime('%H:%M:%S')}  {MARKS.get(event.outcome, event.outcome):9} {took:>8}  {event.task}  "
            f"{job_id(event.bundle, event.index)}{error}"
        )


def no_tasks(apps: tuple[str, ...]) -> str:
    if not apps:
        return "no --app is given: only functions that are shipped by value run here"
    return f"no tasks in {', '.join(apps)}: is there a function with @rota.task?"


def span(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
