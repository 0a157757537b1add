"""Jobs that remember what they have done. A journal says which steps ran, and which were remembered."""

from __future__ import annotations

import asyncio
import time

import rota

from .work import note


def _ran(journal: str, name: str, value: int) -> int:
    note(journal, f"ran:{name}")
    return value


async def _aran(journal: str, name: str, value: int) -> int:
    return _ran(journal, name, value)


@rota.task
def double(journal: str, number: int) -> int:
    return 2 * number


@rota.task
def order(journal: str, number: int, pause_s: float) -> int:
    """Two steps with a pause between them, in which its node may be killed; a sleep; another job's result."""
    paid = rota.step("charge", _ran, journal, "charge", number)
    note(journal, "kept:charge")
    time.sleep(pause_s)
    packed = rota.step("pack", _ran, journal, "pack", paid + 1)
    note(journal, "kept:pack")
    rota.sleep(pause_s)
    other = rota.step("double", double.enqueue, journal, packed)
    note(journal, f"other:{other.id}")
    doubled = other.result()
    return rota.step("ship", _ran, journal, "ship", doubled + 1)


@rota.task
async def aorder(journal: str, number: int, pause_s: float) -> int:
    paid = await rota.step("charge", _aran, journal, "charge", number)
    note(journal, "kept:charge")
    await asyncio.sleep(pause_s)
    packed = await rota.step("pack", _aran, journal, "pack", paid + 1)
    note(journal, "kept:pack")
    await rota.sleep(pause_s)
    other = await rota.step("double", double.aenqueue, journal, packed)
    note(journal, f"other:{other.id}")
    doubled = await other
    return await rota.step("ship", _aran, journal, "ship", doubled + 1)
