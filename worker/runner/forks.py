"""Whether this process was forked off a runner, by a job. It shares the runner's channel, and must leave it alone."""

from __future__ import annotations

import os

forked = False


def _after_fork() -> None:
    global forked
    forked = True


def watch() -> None:
    """In a runner, before user code runs."""
    os.register_at_fork(after_in_child=_after_fork)
