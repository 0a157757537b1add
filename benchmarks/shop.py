"""The jobs of a shop, for the pictures of the dashboard."""

from __future__ import annotations

import logging
import random
import time
from datetime import timedelta

import rota

log = logging.getLogger(__name__)


class CardDeclined(Exception):
    pass


@rota.task(queue="images", keep_finished=timedelta(hours=1))
def thumbnail(path: str, width: int = 200) -> str:
    time.sleep(random.uniform(0.02, 0.25))
    return f"{path} at {width} pixels"


@rota.task(queue="mail", rate="600/minute")
async def send_receipt(order: int, to: str) -> None:
    import asyncio

    await asyncio.sleep(random.uniform(0.01, 0.08))


@rota.task(queue="payments", max_attempts=2, backoff_base=0.5, keep_log=20)
def charge(order: int, cents: int, currency: str = "EUR") -> str:
    log.info("order %d: asking the bank for %d.%02d %s", order, *divmod(cents, 100), currency)
    time.sleep(random.uniform(0.05, 0.15))
    if order % 23 == 0:
        log.warning("order %d: the bank declined", order)
        raise CardDeclined(f"card of order {order} was declined: insufficient funds")
    return f"ch_{order:06d}"


@rota.task(queue="import", keep_log=20)
def import_rows(supplier: str, rows: int) -> int:
    for row in range(rows):
        rota.progress(row, rows, f"{supplier}: article {4711 + row}")
        time.sleep(0.05)
    return rows


@rota.task(queue="import")
def fetch(supplier: str) -> list[str]:
    time.sleep(random.uniform(0.1, 0.4))
    return [f"{supplier}-{number}" for number in range(3)]


@rota.task(queue="import", max_attempts=1)
def convert(articles: list[str]) -> list[str]:
    time.sleep(random.uniform(0.2, 0.5))
    if articles[0].startswith("umbrella"):
        raise ValueError(f"{articles[0]}: price '12,50' is not a number (line 38 of the feed)")
    return articles


@rota.task(queue="import")
def publish(*parts: list[str]) -> int:
    return sum(len(part) for part in parts)


@rota.task(queue="import")
def tell(count: object) -> None:
    return


@rota.task(queue="ledger", max_attempts=1)
def book(entry: int) -> None:
    if entry == 3:
        raise ValueError("entry 3: debit and credit differ by 0.01")


@rota.task(queue="reports", cron="0 6 * * 1-5", tz="Europe/Berlin")
def daily_report() -> None:
    return


@rota.task(queue="reports", every=timedelta(seconds=20))
def refresh_stock() -> None:
    time.sleep(0.05)


@rota.task(queue="reports", cron="30 2 * * *")
def prune_carts() -> None:
    return
