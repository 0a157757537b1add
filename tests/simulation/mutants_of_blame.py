"""Planted bugs about whom a lost node is blamed on: see `mutants.py`."""

from __future__ import annotations

from typing import Any

from rota.cluster.ledger.ledger import Ledger, Record
from rota.cluster.master.duties import takeover

from .mutants import mutant

# mypy: disable-error-code="assignment"


@mutant
def company_is_not_asked_for() -> None:
    """A job is condemned at the second loss, whoever ran beside it."""
    original = takeover._suspects

    async def _suspects(ledger: Ledger, prefix: bytes) -> tuple[tuple[Record, ...], int]:
        return (await original(ledger, prefix))[0], 1

    takeover._suspects = _suspects


@mutant
def the_guilty_kills_once_more() -> None:
    """Though a job was the only one at work on its node, it takes a third loss. (It was so.)"""
    takeover.LOSSES_ALONE_MAX = takeover.LOSSES_MAX


@mutant
def company_goes_first() -> None:
    """What ran beside a suspect is moved before it: a master that goes on half-way finds it without company."""
    original = takeover._suspects

    async def _suspects(ledger: Ledger, prefix: bytes) -> tuple[Any, int]:
        return (), (await original(ledger, prefix))[1]

    takeover._suspects = _suspects
