"""Waiting out an outage: reads that the caller cannot do without, asked again until the store answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rota.client.errors import LedgerUnavailable, StoreBusy, WriteUnknown

T = TypeVar("T")

PAUSE_S = 0.3


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer. Only for what is harmless to repeat."""
    while True:
        try:
            return await ask()
        except (LedgerUnavailable, StoreBusy, WriteUnknown):
            await asyncio.sleep(PAUSE_S)
