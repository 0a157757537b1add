"""Stop signals in a runner. Whoever sends them to every process of a service means its guard, which lets running jobs
have their grace: here they do nothing.

By a handler: what is ignored would be ignored by every program that a job starts, too, and nobody could terminate it. A
process that a job forks heeds them as any Python process does, from its first moment (`multiprocessing` ends its
workers with SIGTERM).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

STOP_SIGNALS: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL
}
"""And what they do elsewhere."""

_before = threading.local()


def ignore() -> None:
    """From now on; an application may put handlers of its own in their place."""
    for number in STOP_SIGNALS:
        signal.signal(number, _ignore)
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_heed)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _hold() -> None:
    """What comes before the child is ready waits."""
    _before.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.blocked)


def _heed() -> None:
    with contextlib.suppress(ValueError):       # not on the main thread of a subinterpreter
        for number, handler in STOP_SIGNALS.items():
            if signal.getsignal(number) is _ignore:
                signal.signal(number, handler)
    _release()
