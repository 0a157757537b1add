"""Tasks that must keep a promise while their nodes are killed: a limit, and an order."""

from __future__ import annotations

import time
from pathlib import Path

import rota

from .work import note

LIMIT = 10

rota.Queue("ledger", serial=True)


@rota.task(max_concurrency=LIMIT)
async def limited(journal: str, seconds: float) -> None:
    import asyncio

    note(journal, "start")
    await asyncio.sleep(seconds)
    note(journal, "end")


@rota.task(queue="ledger", max_attempts=10, retry_delay=lambda attempt: 0.05)
def numbered(journal: str, folder: str, client: int, number: int) -> None:
    """Every tenth fails once. The file says whether it has."""
    note(journal, "start")
    time.sleep(0.002)
    if number % 10 == 0:
        failed = Path(folder) / f"{client}-{number}"
        if not failed.exists():
            failed.touch()
            note(journal, "fail")
            raise RuntimeError("once")
    note(journal, "end")
