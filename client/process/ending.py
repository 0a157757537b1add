"""The end of the process: after it nobody is there to answer, and whoever asks is told so at once.

Registered when `rota` is imported, so before most others: what is registered later (`atexit`) is called earlier, and
still finds its clients. What runs later still (finalizers, while modules are taken apart) does not.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable

from ..errors import ClientClosed

alive = True
"""Not the opposite: when modules are taken apart, their names become None."""

last_of_all: list[Callable[[], None]] = []
"""Called at the end of the process."""


def check() -> None:
    """Raise `ClientClosed` if the process has come too far in its end."""
    if not alive or sys.is_finalizing():
        raise ClientClosed("the interpreter is shutting down, and rota's clients have been closed")


def _end() -> None:
    global alive
    alive = False
    for call in last_of_all:
        call()


atexit.register(_end)
