"""What etcd does alone, through the same ledger that rota uses: what no job queue on it can go below."""

from __future__ import annotations

import asyncio
import time
from itertools import count

import msgspec

from rota.cluster.ledger.etcd import EtcdLedger
from rota.cluster.ledger.ledger import OPS_MAX, Put, Txn

from .jobs import IDLE_PAUSE_S
from .percentiles import percentile

PREFIX = b"/floor/"
VALUE = b"x" * 300
BODY = b"x" * 15_000
KEYS = 50_000
"""Keys are written over and over, so that the floor does not grow the store."""

TRANSACTIONS_AT_ONCE = 4
"""As many as `Commits` keeps under way."""


class Floor(msgspec.Struct):
    put_p50_ms: float       # one put after another: everything is warm, and spins
    put_p99_ms: float
    paced_put_p50_ms: float     # a pause after each: what an idle machine takes to wake up is in it, as in a lone job
    put_s: float            # per second, one at a time
    grouped_put_s: float    # per second, in transactions of 128
    lifecycle_s: float      # per second: a bundle of 60 jobs enqueued, claimed, ended; transactions filled up


async def measure_floor(ledger: EtcdLedger, seconds: float) -> Floor:
    """A quarter of the time for each kind."""
    share_s = seconds / 4
    latencies = await _single_puts(ledger, share_s)
    paced = await _single_puts(ledger, share_s, IDLE_PAUSE_S)
    grouped = await _in_transactions(ledger, share_s, OPS_MAX)
    lifecycles = await _lifecycles(ledger, share_s)
    return Floor(
        put_p50_ms=percentile(latencies, 50), put_p99_ms=percentile(latencies, 99),
        paced_put_p50_ms=percentile(paced, 50),
        put_s=1000 * len(latencies) / sum(latencies), grouped_put_s=grouped, lifecycle_s=lifecycles,
    )


async def _single_puts(ledger: EtcdLedger, seconds: float, pause_s: float = 0.0) -> list[float]:
    latencies = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        await ledger.commit(Txn((), (Put(PREFIX + b"single", VALUE),)))
        latencies.append(1000 * (time.monotonic() - began))
        if pause_s:
            await asyncio.sleep(pause_s)
    return latencies


async def _in_transactions(ledger: EtcdLedger, seconds: float, size: int) -> float:
    keys = [PREFIX + b"%06d" % number for number in range(KEYS)]
    numbers = count()
    began = time.monotonic()
    end = began + seconds
    done = 0

    async def writer() -> None:
        nonlocal done
        while time.monotonic() < end:
            start = next(numbers) * size % (KEYS - size)
            await ledger.commit(Txn((), tuple([Put(key, VALUE) for key in keys[start : start + size]])))
            done += size

    await asyncio.gather(*(writer() for _ in range(TRANSACTIONS_AT_ONCE)))
    return done / (time.monotonic() - began)


async def _lifecycles(ledger: EtcdLedger, seconds: float) -> float:
    """The writes that a bundle of 60 small jobs costs: body, token, receipt; token to claim; claim and body to result.
    Deletes are counted as puts of a small value here: etcd logs either."""
    size = OPS_MAX // 3
    bodies = [Put(PREFIX + b"body%03d" % number, BODY) for number in range(size)]
    tokens = [Put(PREFIX + b"token%03d" % number, VALUE) for number in range(size)]
    receipts = [Put(PREFIX + b"receipt%03d" % number, VALUE) for number in range(size)]
    results = [Put(PREFIX + b"result%03d" % number, BODY[: 60 * 32]) for number in range(size)]
    steps = (
        Txn((), tuple(bodies + tokens + receipts)),
        Txn((), tuple(tokens + receipts)),
        Txn((), tuple(results + tokens + receipts)),
    )
    began = time.monotonic()
    end = began + seconds
    done = 0

    async def writer() -> None:
        nonlocal done
        while time.monotonic() < end:
            for step in steps:
                await ledger.commit(step)
            done += size

    await asyncio.gather(*(writer() for _ in range(TRANSACTIONS_AT_ONCE)))
    return done / (time.monotonic() - began)
