"""Runners that have done enough, or have grown too large, are replaced: leaks of an application stay small. Nothing is
interrupted for it, and nothing counts as an attempt."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .runner_handle import RunnerHandle, State

LOOK_S = 1.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Wear:
    """0: no limit."""

    def __init__(self, jobs_max: int, memory_bytes_max: int) -> None:
        self._jobs_max = jobs_max
        self._memory_bytes_max = memory_bytes_max
        self._looked_at = 0.0

    def has_done_enough(self, runner: RunnerHandle) -> bool:
        return 0 < self._jobs_max <= runner.ended

    def too_large(self, runners: Iterable[RunnerHandle], now: float) -> list[RunnerHandle]:
        """Looked at once a second."""
        if not self._memory_bytes_max or now < self._looked_at + LOOK_S:
            return []
        self._looked_at = now
        return [
            runner for runner in runners
            if runner.state is State.READY and memory_bytes(runner.pid) > self._memory_bytes_max
        ]


def memory_bytes(pid: int) -> int:
    """What a process has in memory; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
