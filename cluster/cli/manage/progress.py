"""A bulk operation, followed from a terminal: a bar where there is one, and its id for who does not want to wait."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rota.client.escape import escaped
from rota.client.wire.views import OperationView

from ...terminal import complain, console

VERBS = {"retry": "queueing again", "delete": "deleting", "empty": "cancelling", "cancel": "cancelling"}


class Following:
    """`with Following() as following: client.retry_failed(…, on_progress=following.seen)`."""

    def __init__(self) -> None:
        out = console(sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=out, transient=True, disable=not out.is_terminal,
        )
        self._task = self._bar.add_task("waiting for the master", total=None)
        self.last: OperationView | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt and self.last is not None and not self.last.is_over:
            complain(f"operation {self.last.id} goes on: look with `rota operations {self.last.id}`")

    def seen(self, view: OperationView) -> None:
        self.last = view
        if view.state == "running":
            self._bar.update(
                self._task, description=escaped(f"{VERBS[view.verb]} {view.what}"), total=view.total,
                completed=view.count + view.left,
            )

    @property
    def left(self) -> str:
        """What is to be said beside the number of jobs."""
        left = self.last.left if self.last is not None else 0
        return f"; {left:,} could not be, and are where they were" if left else ""
