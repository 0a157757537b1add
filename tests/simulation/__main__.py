"""`python -m tests.simulation`: run a range of seeds, or show one."""

from __future__ import annotations

import argparse
import logging
import sys

from .campaign import SHOWN_MAX, Summary, judge, run
from .world import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--seed", type=int, help="run this one only, and tell what happens in it")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return show(arguments.seed)
    summary = Summary(arguments.seeds, lambda line: print(line, flush=True))
    for verdict in run(range(arguments.first, arguments.first + arguments.seeds), jobs=arguments.jobs):
        summary.add(verdict)
    print(summary.table())
    return 1 if summary.failed else 0


def show(seed: int) -> int:
    """A seed's timeline, with what the nodes log, and its verdict."""
    notes: list[str] = []
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_IntoNotes(notes)])
    try:
        history = simulate(seed, notes=notes)
    except Exception:
        print("\n".join(notes))
        raise
    print(history.plan)
    print("\n".join(notes))
    problems = judge(history)
    for problem in problems[:SHOWN_MAX]:
        print(problem)
    if len(problems) > SHOWN_MAX:
        print(f"and {len(problems) - SHOWN_MAX} more")
    print(f"seed {seed}: {len(problems)} problems; trace {history.digest()}")
    return 1 if problems else 0


class _IntoNotes(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.append(f"{'':17}log: {record.getMessage()[:200]}")


if __name__ == "__main__":
    sys.exit(main())
