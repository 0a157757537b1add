"""Whether the store serves this node: what `/readyz` says, and whether a lease may be kept, hang on it.

A keepalive proves little: etcd renews a lease for whoever names it, without a look at user or password. So a node looks
at its own member key every few seconds, as it looks at everything else, and its writes say how long they have waited.
"""

from __future__ import annotations

from rota.client.errors import LedgerDenied, LedgerError

from ...clock import Clock
from ...events.hub import Events
from ...events.records import StoreBack, StoreLost

PATIENCE_S = 10.0
"""Without an answer for so long a node is not ready; refused by a store that answers for so long, it gives its lease
up, and with it what lies under it and its mastership."""


class Reach:
    """Of one node. It is told how each look at the store went."""

    def __init__(self, clock: Clock, events: Events) -> None:
        self._clock = clock
        self._events = events
        self._served_at = clock.monotonic()
        self._refused_at: float | None = None
        self._problem = ""

    def served(self) -> None:
        """The store did for us what it does for a member."""
        if self._problem:
            self._events.emit(StoreBack(self._clock.monotonic() - self._served_at))
        self._served_at, self._refused_at, self._problem = self._clock.monotonic(), None, ""

    def failed(self, error: LedgerError) -> None:
        """Said once, until it serves us again."""
        if not self._problem:
            self._events.emit(StoreLost(str(error)))
        self._problem = str(error) or type(error).__name__
        if not isinstance(error, LedgerDenied):
            self._refused_at = None
        elif self._refused_at is None:
            self._refused_at = self._clock.monotonic()

    def why_not(self, write_waits_s: float) -> str | None:
        """Why this node cannot work now; None if it can. `write_waits_s`: for how long its oldest write has waited."""
        silent_s = self._clock.monotonic() - self._served_at
        if self._problem and silent_s > PATIENCE_S:
            return f"the store has not served this node for {silent_s:.0f} s: {self._problem}"
        if write_waits_s > PATIENCE_S:
            return f"the store has taken no write of this node for {write_waits_s:.0f} s"
        return None

    @property
    def shut_out(self) -> bool:
        """Refused for so long that others must do our work: a lease that is kept would only keep it from them."""
        return self._refused_at is not None and self._clock.monotonic() - self._refused_at > PATIENCE_S
