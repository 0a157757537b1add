"""`python -m benchmarks.wakeups`: what a job costs its node: transactions, turns of its event loop, callbacks, tasks.

A whole node in memory (`rota.testing`): port, intake, master, executor, outcomes; the store is the one in memory, and
jobs run on the node's own loop. Turns are what a lone job pays for, transactions what a busy cluster pays for. They
are counted, not timed: the least of many is the same in every run, and `tests/test_hotpath.py` holds it to a limit.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from typing import Any

from rota.client.api.clients import Client
from rota.testing import MemoryCluster

from . import jobs

BUNDLE = 60
WARM, TIMES = 5, 12
QUIET_S = 0.02
KINDS = ("transactions", "turns", "callbacks", "tasks")


def lone(client: Client) -> None:
    """One job, to its result."""
    client.enqueue(jobs.noop, {}).result(timeout=30)


def bundle(client: Client) -> None:
    """A bundle of 60, to the last result."""
    client.enqueue_many(jobs.noop, repeat(({},), BUNDLE)).results(timeout=30)


def given(client: Client) -> None:
    """One job that the master gives out: it says more than where it goes, so it does not begin with its enqueue."""
    client.enqueue(jobs.noop.using(fair_key="ann"), {}).result(timeout=30)


def given_bundle(client: Client) -> None:
    """Likewise, a bundle of 60."""
    client.enqueue_many(jobs.noop.using(fair_key="ann"), repeat(({},), BUNDLE)).results(timeout=30)


WAYS: dict[str, Callable[[Client], None]] = {
    "lone": lone, "bundle": bundle, "given": given, "given-bundle": given_bundle,
}


@contextmanager
def counted(cluster: MemoryCluster) -> Iterator[Counter[str]]:
    """What happens on the cluster's loop from here on."""
    found: Counter[str] = Counter()
    loop: Any = cluster._loop
    ledger: Any = cluster._ledger
    there = threading.get_ident()

    def counting(what: Any, name: str, kind: str) -> Callable[[], None]:
        real = getattr(what, name)

        def counts(*args: Any, **named: Any) -> Any:
            if threading.get_ident() != there:
                found[kind] += 1
            return real(*args, **named)

        setattr(what, name, counts)
        return lambda: delattr(what, name)

    undo = [
        counting(ledger, "commit", "transactions"), counting(loop._selector, "select", "turns"),
        counting(loop, "call_soon", "callbacks"), counting(loop, "create_task", "tasks"),
    ]
    try:
        yield found
    finally:
        for step in undo:
            step()


def least(way: str, times: int = TIMES, enough: Mapping[str, int] | None = None) -> dict[str, int]:
    """The least of each kind, over so many; of fewer, once that is no more than `enough`. (What is ready together, on
    a machine that has time, takes more turns on one that has none.)"""
    seen: list[dict[str, int]] = []
    with MemoryCluster() as cluster:
        for number in range(WARM + times):
            with counted(cluster) as found:
                WAYS[way](cluster.client)
                time.sleep(QUIET_S)     # what follows an outcome is its, too
            if number >= WARM:
                seen.append(dict(found))
            if seen and enough is not None and all(count <= enough[kind] for kind, count in _least(seen).items()):
                break
    return _least(seen)


def _least(seen: list[dict[str, int]]) -> dict[str, int]:
    return {kind: min(one.get(kind, 0) for one in seen) for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wakeups", description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    times = parser.parse_args().times
    for way in WAYS:
        found = least(way, times)
        print(f"{way:13}" + "".join(f"{found[kind]:6} {kind}" for kind in KINDS))


if __name__ == "__main__":
    main()
