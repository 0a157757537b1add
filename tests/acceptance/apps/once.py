"""Jobs of which there must not be two at a time, jobs with a rate, and jobs that expire."""

from __future__ import annotations

import asyncio

import rota

from .work import note

RATE = 20
"""Jobs a second of `paced`."""
PATIENCE_S = 3.0
"""How long `fleeting` may wait."""
BURST = 5


@rota.task(unique="customer", max_attempts=20, retry_delay=lambda attempt: 0.05)
async def alone(journal: str, customer: str, seconds: float) -> None:
    note(journal, "start")
    await asyncio.sleep(seconds)
    note(journal, "end")


@rota.task(rate=f"{RATE}/second, burst {BURST}")
async def paced(journal: str) -> None:
    note(journal, "start")


@rota.task(expires=PATIENCE_S)
async def fleeting(journal: str, seconds: float) -> None:
    note(journal, "start")
    await asyncio.sleep(seconds)
