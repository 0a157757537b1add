"""Lines that would come again and again while something lasts: the first at once, then one a minute, with a count."""

from __future__ import annotations

import logging
import time

EVERY_S = 60.0


class Sparse:
    """A place of warnings that are all alike."""

    def __init__(self, log: logging.Logger, every_s: float = EVERY_S) -> None:
        self._log = log
        self._every_s = every_s
        self._silent_until = 0.0
        self._missed = 0

    def warn(self, text: str, *arguments: object) -> None:
        now = time.monotonic()
        if now < self._silent_until:
            self._missed += 1
            return
        more = f" (and {self._missed:,} more like it in the last {self._every_s:.0f} s)" if self._missed else ""
        self._silent_until, self._missed = now + self._every_s, 0
        self._log.warning(f"{text}%s", *arguments, more)
