"""`python -m benchmarks.decisions`: what a decision of the master costs, without a store. Seconds; microseconds of CPU.

A table is fed by hand: jobs come in, are given out, are seen to be claimed, and end. Names that were used once, queues
that wait and keys of limits must not make that dearer.
"""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from collections.abc import Callable

from rota.client.model import Mode
from rota.cluster.ledger.ledger import Event, Record
from rota.cluster.master.dispatch.aggregator import Aggregator
from rota.cluster.master.dispatch.commands import GiveClaim, Split
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Member, TaskRecord, Token, claim_of, encode

KEYS = Keys("bench")


class Table:
    """A master that nodes with 2 plain slots and 100 async ones each serve."""

    def __init__(self, nodes: int = 1) -> None:
        self.picture = Picture(KEYS)
        self.aggregator = Aggregator(self.picture)
        self.picture.open()
        self.revision, self.now, self.spent_s, self.given = 10, 100.0, 0.0, 0
        self.held: list[tuple[bytes, bytes, Token]] = []
        tasks: dict[str, Mode] = {"m:async": "async", "m:sync": "sync", "m:keyed": "async"}
        member = Member("", ["*"], tasks, {"sync": 2, "async": 100}, "3.11", "0", 0.0)
        for number in range(nodes):
            self.see(False, KEYS.node(f"n{number + 1}"), encode(member))
        self.see(False, KEYS.task("m:keyed"), encode(TaskRecord("async", max_per_key=1)))

    def see(self, deleted: bool, key: bytes, value: bytes = b"") -> None:
        self.revision += 1
        event = Event(deleted, Record(key, value, self.revision, self.revision, 1, 1))
        began = time.process_time()
        self.picture.apply([event], self.revision, self.now)
        self.spent_s += time.process_time() - began

    def job(self, queue: str, task: str = "m:async", count: int = 1, key: str = "") -> None:
        mode: Mode = "sync" if task == "m:sync" else "async"
        token = Token(task, queue, 0, self.revision, count, mode, 0, key=key)
        self.see(False, KEYS.job(queue, 0, token.order, f"b{self.revision}"), encode(token))

    def decide(self) -> int:
        """One round; what is given out is seen to be claimed."""
        began = time.process_time()
        commands = self.aggregator.decide(self.now)
        self.spent_s += time.process_time() - began
        for command in commands:
            if isinstance(command, GiveClaim):
                item, claim = command.item, KEYS.claim(command.node.name, command.item.bundle)
                self.aggregator.settle(
                    item, command.node, command.held, applied=True, token_stale=False, doubtful_at=None, now=self.now
                )
                self.see(True, item.key)
                self.see(False, claim, encode(claim_of(item.token, 5)))
                self.held.append((claim, item.key, item.token))
            elif isinstance(command, Split):
                raise SystemExit("nothing is to be split here")
        self.given += len(commands)
        return len(commands)

    def end(self, count: int = 1_000_000) -> None:
        self.now += 0.002
        for claim, _, _ in self.held[:count]:
            self.see(True, claim)
        del self.held[:count]

    def run_all(self) -> None:
        while self.decide() or self.held:
            self.end()

    def cost(self, what: Callable[[], None], per: int) -> float:
        """Microseconds for each of so many."""
        self.spent_s = 0.0
        gc.collect()
        what()
        return 1e6 * self.spent_s / per


def burst(table: Table, jobs: int = 3_000) -> float:
    def play() -> None:
        for _ in range(jobs):
            table.job("default")
        table.run_all()

    return table.cost(play, jobs)


def refill(table: Table, rounds: int = 3_000) -> float:
    """All slots are taken and more waits: one job ends, and the next is given out."""
    for _ in range(rounds + 700):
        table.job("default")
    while table.decide():
        pass

    def play() -> None:
        for _ in range(rounds):
            table.end(1)
            while table.decide():
                pass

    cost = table.cost(play, rounds)
    table.run_all()
    return cost


def names_used_once(table: Table, names: int) -> float:
    def play() -> None:
        for number in range(names):
            table.job(f"tenant-{number}")
            table.run_all()

    return table.cost(play, names)


def idle(table: Table, rounds: int = 200) -> float:
    return table.cost(lambda: [table.decide() for _ in range(rounds)] and None, rounds)


def waiting(names: int) -> tuple[float, float]:
    """As many queues wait for plain slots, which are taken; async slots are idle. A round in which nothing can be done,
    and one for a slot that has come free."""
    table = Table()
    for number in range(names):
        table.job(f"tenant-{number}", "m:sync")
    table.decide()
    nothing = idle(table, 20)

    def one_by_one() -> None:
        for _ in range(50):
            table.end(1)
            table.decide()

    return nothing, table.cost(one_by_one, 50)


def keys(names: int) -> float:
    """One queue, a job for each key."""
    table = Table()
    for number in range(names):
        table.job("default", "m:keyed", key=str(number))
    return table.cost(table.run_all, names)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument("--names", type=int, default=20_000)
    names = parser.parse_args().names
    table = Table()
    print(f"a lone job of a burst, nothing else known:      {burst(table):10.1f} us")
    print(f"a round with nothing to do:                     {idle(table):10.1f} us")
    print(f"a slot is filled again, of a hundred:           {refill(table):10.1f} us")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    names_used_once(table, names // 10)
    gc.collect()
    kept = (tracemalloc.get_traced_memory()[0] - before) / 1024
    print(f"kept of {names // 10:,} queue names used once:           {kept:10.0f} KiB")
    tracemalloc.stop()
    print(f"a lone job in a queue of its own, {names:,} times: {names_used_once(table, names):10.1f} us")
    print(f"a lone job of a burst after that:               {burst(table):10.1f} us")
    print(f"a round with nothing to do after that:          {idle(table):10.1f} us")
    nothing, one = waiting(names)
    print(f"{names:,} queues wait: a round with nothing to do: {nothing:10.1f} us")
    print(f"{names:,} queues wait: one slot comes free:        {one:10.1f} us")
    print(f"one queue, {names:,} keys of a limit, each:        {keys(names):10.1f} us")


if __name__ == "__main__":
    main()
