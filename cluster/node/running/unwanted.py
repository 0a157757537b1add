"""What must not begin any more, though it lies here: it has expired, or was cancelled. Pure."""

from __future__ import annotations

from collections.abc import Set

from rota.client.model import EXPIRED, Outcome

from ...clock import Clock
from ..claims.held import Held


def unwanted(held: Held, jobs: list[tuple[int, bytes]], cancelled: Set[int], clock: Clock) -> list[tuple[int, Outcome]]:
    """How those of these jobs end that must not begin: all of them if it is too late."""
    if held.claim.expires and clock.wall() * 1000 >= held.claim.expires:
        return [(held.key, Outcome(index, "expired", error=EXPIRED)) for index, _ in jobs]
    return [(held.key, Outcome(index, "cancelled", error="cancelled")) for index, _ in jobs if index in cancelled]
