"""`python -m benchmarks.features`: what each feature costs per job that uses it, without a store. Seconds of CPU.

Three things, each beside what a plain job costs: the CPU that a client spends on one enqueue (up to the frame), the CPU
that the master spends until it has given a job out and seen it end, and how many operations a job is in the store, from
its enqueue to its end (receipt, body, token, claim, result, and what the feature adds).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import rota
from rota.cluster.ledger.commits import Write, created
from rota.cluster.master.dispatch.commands import GiveClaim
from rota.cluster.state import moves
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Member, TaskRecord, Token, claim_of, encode
from rota.cluster.state.uniques import Hold

from .decisions import Table
from .report import table_of, wide_console

KEYS = Keys("bench")
JOBS, QUICK_JOBS = 8_000, 400
ROUND = 20


def nothing(number: int) -> None:
    """What is enqueued."""


class Feature(NamedTuple):
    """`using`: said at the enqueue; `token`: what of it the master sees, by the job's number."""

    name: str
    using: dict[str, object]
    token: Callable[[int], dict[str, object]] = lambda number: {}
    hold: bool = False
    bound: bool = False


FEATURES = (
    Feature("plain", {}),
    Feature("unique_key", {"unique_key": "ann"}, lambda number: {"unique": f"key {number}"}, hold=True),
    Feature("expires", {"expires": 60.0}, lambda number: {"expires": 10**12}),
    Feature("fair_key", {"fair_key": "ann"}, lambda number: {"fair": f"tenant {number % 10}"}),
    Feature("weight", {"weight": 2}, lambda number: {"weight": 2}),
    Feature("requires", {"requires": ("gpu",)}, lambda number: {"requires": ("gpu",)}),
    Feature("key, max_per_key", {"key": "ann"}, lambda number: {"task": "m:keyed", "key": f"key {number % 50}"}),
    Feature("headers", {"headers": {"tenant": "ann"}}),
    Feature("Queue(max_waiting)", {}, bound=True),
)


def client_us(feature: Feature, jobs: int) -> float:
    task = rota.NamedTask("m:async").using(**feature.using)  # type: ignore[arg-type]
    began = time.process_time()
    for number in range(jobs):
        task.order((number,), {})
    return (time.process_time() - began) / jobs * 1e6


def master_us(feature: Feature, jobs: int) -> float:
    """Some wait at a time, are given out, and end."""
    table = Table()
    table.see(False, KEYS.node("n1"), _member())
    table.see(False, KEYS.task("m:keyed"), encode(TaskRecord("async", max_per_key=1)))
    table.spent_s, done, ended = 0.0, 0, 0
    while done < jobs:
        for number in range(done, done + ROUND):
            fields = {"task": "m:async"} | feature.token(number)
            token = Token(queue="q", priority=0, order=table.revision, count=1, mode="async", at=0, **fields)  # type: ignore[arg-type]
            table.see(False, KEYS.job("q", 0, token.order, f"b{number}"), encode(token))
        given = -1
        while given:
            given = _round(table)
            ended += given
        done += ROUND
    assert ended == done
    return table.spent_s / done * 1e6


def _member() -> bytes:
    return encode(Member(
        "", ["*"], {"m:async": "async", "m:keyed": "async"}, {"async": 100}, "3.11", "0", 0.0, labels=["gpu"]
    ))


def _round(table: Table) -> int:
    """What is decided is done at once, and ends."""
    began = time.process_time()
    commands = table.aggregator.decide(table.now)
    table.spent_s += time.process_time() - began
    given = [command for command in commands if isinstance(command, GiveClaim)]
    for command in given:
        name, token = command.item.bundle, command.item.token
        table.aggregator.settle(
            command.item, command.node, command.held, applied=True, token_stale=False, doubtful_at=None, now=table.now
        )
        table.see(True, command.item.key)
        claim = KEYS.claim(command.node.name, name)
        table.see(False, claim, encode(claim_of(token, 5)))
        table.see(True, claim)
    return len(given)


def operations(feature: Feature) -> tuple[int, int]:
    """(operations, conditions) of the enqueue."""
    token = Token("m:async", "q", 0, 1, 1, "async", 0, **feature.token(1))  # type: ignore[arg-type]
    hold = Hold(created(KEYS.unique("m:async", "key"), 0)) if feature.hold else None
    bound = moves.Bound(created(KEYS.bound("q"), 0), 0) if feature.bound else None
    write: Write = moves.enqueue(KEYS, (), "b", token, b"", "", 0, hold=hold, bound=bound)
    return len(write.ops), len(write.conditions)


def rows(jobs: int) -> Iterable[list[str]]:
    for feature in FEATURES:
        if "task" in feature.token(0):
            ops, conditions = 3, 1
        else:
            ops, conditions = operations(feature)
        client = min(client_us(feature, jobs // 2) for _ in range(3))
        master = min(master_us(feature, jobs // 2) for _ in range(3))
        yield [feature.name, f"{client:.1f}", f"{master:.1f}", str(ops), str(conditions)]


def run() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="does it work at all")
    jobs = QUICK_JOBS if parser.parse_args().quick else JOBS
    columns = ("a job with", "client µs", "master µs", "puts of its enqueue", "conditions")
    wide_console().print(table_of("What a feature costs per job that uses it", columns, list(rows(jobs))))


if __name__ == "__main__":
    run()
