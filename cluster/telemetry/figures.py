"""What a node can say of itself at this moment."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..ledger.ledger import Condition


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    node: str                           # "": it has no identity now
    is_master: bool
    why_not_ready: str | None
    running: int                        # jobs that its runners have begun
    capacity: dict[str, int]            # by mode
    taken: int                          # jobs taken in, by this identity
    lease_margin_s: float | None        # until the lease's deadline; None without an identity
    lease_ttl_s: float | None
    commit_backlog: int                 # writes that wait for the next transaction


class Observed(Protocol):
    """A node, as telemetry sees it."""

    def figures(self) -> Figures: ...

    def identity(self) -> tuple[Condition, int] | None:
        """The condition that every write of this identity has, and its lease."""
        ...
