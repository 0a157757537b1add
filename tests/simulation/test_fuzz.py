"""A few examples of the fuzz of the records; many more with `make fuzz EXAMPLES=5000`."""

from __future__ import annotations

from .fuzz import fuzz

EXAMPLES = 12


def test_anything_under_any_key_stops_nobody() -> None:
    fuzz(EXAMPLES, derandomize=True)
