"""What limits of tasks and of keys count: jobs that are claimed, whoever has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from ...state.records import TaskRecord
from .lanes import Lane
from .members import Assignment
from .queues import UNLIMITED

Name = TypeVar("Name", str, tuple[str, str])


class Limits:
    """Counts, and the lanes that wait for a key. Nothing is kept of what does not run and does not wait."""

    def __init__(self, tasks: Mapping[str, TaskRecord]) -> None:
        self._tasks = tasks
        self.of_task: dict[str, int] = {}
        self.of_key: dict[tuple[str, str], int] = {}
        self._parked: dict[str, dict[str, list[Lane]]] = {}      # by task and key

    def count(self, held: Assignment, jobs: int) -> None:
        """So many jobs more, or fewer."""
        _add(self.of_task, held.task, jobs)
        if held.key:
            _add(self.of_key, (held.task, held.key), jobs)
            if jobs < 0:
                self.unpark(held.task, held.key)

    def left_of_task(self, task: str) -> int:
        record = self._tasks.get(task)
        if record is None or record.max_concurrency is None:
            return UNLIMITED
        return record.max_concurrency - self.of_task.get(task, 0)

    def left_of_key(self, task: str, key: str) -> int:
        record = self._tasks.get(task)
        if not key or record is None or record.max_per_key is None:
            return UNLIMITED
        return record.max_per_key - self.of_key.get((task, key), 0)

    def per_key(self, task: str) -> bool:
        record = self._tasks.get(task)
        return record is not None and record.max_per_key is not None

    @property
    def any_parked(self) -> bool:
        """Whether anything waits for its key."""
        return bool(self._parked)

    def park(self, task: str, key: str, lane: Lane) -> None:
        """This key of it is at its limit: it is not looked at until that changes."""
        lane.family.park(lane)
        self._parked.setdefault(task, {}).setdefault(key, []).append(lane)

    def unpark(self, task: str, key: str) -> None:
        keys = self._parked.get(task)
        if keys is not None:
            for lane in keys.pop(key, ()):
                lane.family.unpark(lane)
            if not keys:
                del self._parked[task]

    def changed(self, task: str) -> None:
        """What the task says of its limits."""
        for key in list(self._parked.get(task, ())):
            self.unpark(task, key)


def _add(counts: dict[Name, int], name: Name, jobs: int) -> None:
    left = counts.get(name, 0) + jobs
    if left > 0:
        counts[name] = left
    else:
        counts.pop(name, None)
