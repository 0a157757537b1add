"""A slot is a job's number within one node: its work's key and its index, in one integer."""

from __future__ import annotations

SLOT_BITS = 6       # an index is below 60


def slot_of(key: int, index: int) -> int:
    return key << SLOT_BITS | index


def job_of(slot: int) -> tuple[int, int]:
    """(key, index)."""
    return slot >> SLOT_BITS, slot & (1 << SLOT_BITS) - 1
