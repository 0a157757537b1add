"""Work that waits for a runner, in order, and how much of it a runner is given ahead. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable

import msgspec

from rota.client.model import Mode

from ..channel.frames import Work

Job = tuple[int, bytes]

AHEAD_S = 0.02
"""Work that a runner is sent ahead, by what jobs of the task took lately."""
AHEAD_JOBS_MIN, AHEAD_JOBS_MAX = 2, 1_000       # at least one to run, and one so that it need not wait for the node
AHEAD_ASYNC_JOBS = 1_000                        # beyond those that may have begun; two of the largest bundles
AHEAD_BYTES_MAX = 1024 * 1024
TASKS_MAX = 10_000


class Piece(msgspec.Struct, gc=False):
    """Jobs of one work."""

    work: Work
    jobs: list[Job]


class ReadyQueue:
    """First come, first served; what comes back from a runner goes to the head, where it came from."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, work: Work) -> None:
        self._pieces.append(Piece(work, work.jobs))

    def put_back(self, taken: Iterable[tuple[Work, Job]]) -> None:
        pieces: list[Piece] = []
        for work, job in taken:
            if not pieces or pieces[-1].work is not work:
                pieces.append(Piece(work, []))
            pieces[-1].jobs.append(job)
        self._pieces.extendleft(reversed(pieces))

    def first(self) -> Work:
        return self._pieces[0].work

    def first_size(self) -> int:
        """How many jobs of it wait here, in one piece."""
        return len(self._pieces[0].jobs)

    def take(self, count: int) -> list[Job]:
        """At most so many jobs of the first work."""
        piece = self._pieces[0]
        if count >= len(piece.jobs):
            self._pieces.popleft()
            return piece.jobs
        jobs, piece.jobs = piece.jobs[:count], piece.jobs[count:]
        return jobs

    def take_other(self, queues: Container[str]) -> tuple[Work, Job] | None:
        """The first job that is of none of these queues."""
        for piece in self._pieces:
            if piece.work.queue not in queues:
                job = piece.jobs[0]
                piece.jobs = piece.jobs[1:]
                if not piece.jobs:
                    self._pieces.remove(piece)
                return piece.work, job
        return None

    def has_other(self, queues: Container[str]) -> bool:
        return any(piece.work.queue not in queues for piece in self._pieces)

    def withdraw(self, keys: set[int] | None) -> dict[int, list[int]]:
        """Take out these works, or all: key to indexes."""
        given: dict[int, list[int]] = {}
        kept: deque[Piece] = deque()
        for piece in self._pieces:
            if keys is None or piece.work.key in keys:
                given.setdefault(piece.work.key, []).extend(index for index, _ in piece.jobs)
            else:
                kept.append(piece)
        self._pieces = kept
        return given

    def remove(self, key: int, index: int) -> bool:
        """Take out one job; False if it is not here."""
        for piece in self._pieces:
            if piece.work.key == key and any(job[0] == index for job in piece.jobs):
                piece.jobs = [job for job in piece.jobs if job[0] != index]
                if not piece.jobs:
                    self._pieces.remove(piece)
                return True
        return False

    def clear(self) -> None:
        self._pieces.clear()


class Waiting:
    """What waits, in one queue per mode."""

    def __init__(self) -> None:
        self._queues: dict[Mode, ReadyQueue] = {"sync": ReadyQueue(), "async": ReadyQueue()}

    def __getitem__(self, mode: Mode) -> ReadyQueue:
        return self._queues[mode]

    def put_back(self, mode: Mode, taken: Iterable[tuple[Work, Job]]) -> None:
        self._queues[mode].put_back(taken)

    def remove(self, key: int, index: int) -> bool:
        """Take out one job; False if it is not here."""
        return any(queue.remove(key, index) for queue in self._queues.values())

    def withdraw(self, keys: set[int] | None) -> dict[int, list[int]]:
        """Take out these works, or all: key to indexes."""
        given: dict[int, list[int]] = {}
        for queue in self._queues.values():
            for key, indexes in queue.withdraw(keys).items():
                given.setdefault(key, []).extend(indexes)
        return given

    def clear(self) -> None:
        for queue in self._queues.values():
            queue.clear()


class Pace:
    """How long jobs of each task take, and so how many of them to send ahead."""

    def __init__(self) -> None:
        self._durations: dict[str, float] = {}

    def learn(self, task: str, took_s: float) -> None:
        """Half of the estimate is what was seen last."""
        if len(self._durations) >= TASKS_MAX:
            self._durations.clear()
        self._durations[task] = (self._durations.get(task, took_s) + took_s) / 2

    def ahead_async(self, task: str, at_once: int) -> int:
        """How many a runner of `async def` jobs may have beyond the `at_once` that may have begun: none of a task whose
        jobs take longer than that."""
        duration_s = self._durations.get(task)
        if duration_s is None or duration_s > AHEAD_S:
            return 0
        return min(AHEAD_ASYNC_JOBS, int(at_once * AHEAD_S / max(duration_s, 1e-6)))

    def forget(self, task: str) -> None:
        self._durations.pop(task, None)

    def ahead(self, task: str) -> int:
        """How many jobs of a task a runner may have, the one that runs included."""
        duration_s = self._durations.get(task)
        if duration_s is None:
            return AHEAD_JOBS_MIN
        return max(AHEAD_JOBS_MIN, min(AHEAD_JOBS_MAX, int(AHEAD_S / max(duration_s, 1e-6))))
