"""A job's number within one node: its work's key and its index, in one integer."""

from __future__ import annotations

INDEX_BITS = 9      # an index is below 480


def job_number(key: int, index: int) -> int:
    return key << INDEX_BITS | index


def job_of(number: int) -> tuple[int, int]:
    """(key, index)."""
    return number >> INDEX_BITS, number & (1 << INDEX_BITS) - 1
