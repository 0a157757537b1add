"""Time, injected: production takes it from the system, the simulation from its virtual loop.

Wall time only for what is stored or shown, monotonic time for differences. Chance is injected likewise, as a plain
`random.Random`. Timeouts and timers are asyncio's own, so that a loop with virtual time governs them too.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def wall(self) -> float:
        """Seconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds on the clock that runs while the machine is suspended (CLOCK_BOOTTIME), because leases do."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
