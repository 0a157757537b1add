"""Whose turn it is inside a queue: tenants, as `fair_key` names them, get equal numbers of slots. Pure.

Start-time fair queueing (Goyal, Vin and Cheng 1996): each tenant has a turn, a number that grows by what it was given
(jobs, times the slots that each takes); the smallest is next. Who comes, or comes back, begins at the turn that was
served last: nobody saves turns up, and nobody is kept waiting for what was given before he came.
"""

from __future__ import annotations

KEPT = 1_000
KEPT_MAX = 50_000
"""Tenants of which it is remembered that they were given more than others."""


class Tenants:
    """Of one window. Tokens without a fair key are those of one tenant, too."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}        # of those that are ahead
        self._now = 0
        self._sweep_at = KEPT

    def turn(self, tenant: str) -> int:
        return max(self._turns.get(tenant, 0), self._now)

    def given(self, tenant: str, slots: int) -> None:
        self._now = self.turn(tenant)
        self._turns[tenant] = self._now + slots
        if len(self._turns) > self._sweep_at:
            self._forget()

    def _forget(self) -> None:
        """Those that nobody is ahead of, any more than of who comes anew; of too many, the half that is least ahead."""
        if len(self._turns) > KEPT_MAX:
            self._now = max(self._now, sorted(self._turns.values())[len(self._turns) // 2])
        self._turns = {name: turn for name, turn in self._turns.items() if turn > self._now}
        self._sweep_at = min(2 * len(self._turns) + KEPT, KEPT_MAX)

    def __len__(self) -> int:
        return len(self._turns)
