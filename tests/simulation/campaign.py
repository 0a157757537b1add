"""Many seeds over several processes, and a verdict on each."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator

import msgspec

from rota.cluster.state.keys import Keys

from . import relays
from .checker import Checker
from .conduct import DUE_SKEW_S, Conduct
from .damage import forgotten
from .loop import EPOCH_S
from .plans import ATTEMPTS_MAX, CLUSTER, CRASH, GOOD, TASKS
from .terms import Terms
from .world import History, simulate

TWICE = 50
"""Every so many seeds one is run twice: both must do the same."""

SHOWN_MAX = 5


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a seed. `problems` is empty if all is well."""

    seed: int
    problems: list[str]
    revisions: int = 0
    jobs: int = 0
    runs: int = 0
    takeovers: int = 0
    faults: dict[str, int] = {}
    deeds: dict[str, int] = {}
    settle_s: float = 0.0
    cpu_s: float = 0.0


def judge(history: History) -> list[str]:
    """Everything that is wrong with a run."""
    checker = Checker(
        CLUSTER, wall_of=lambda at: EPOCH_S + at, due_skew_s=DUE_SKEW_S, attempts_max=lambda task: ATTEMPTS_MAX,
        modes_change=history.plan.codes,
    )
    checker.feed(history.journal)
    orders = history.orders | checker.ticks.orders
    checker.expiries.finish(history.runs, checker.again)
    violations = checker.finish(
        acked_at=history.acknowledged,
        invoked=orders,
        runs=history.runs,
        drained=True,
        quiet=history.plan.quiet,
        orders=orders,
        betrayed=history.betrayed,
        doings=history.doings,
    )
    terms = Terms(
        TASKS, orders, again=checker.again, orphaned=checker.orphaned, own=checker.own,
        killings=[killing for killing in history.killings if killing[0] <= history.ended_at], slack_s=DUE_SKEW_S,
        kills=lambda job, order: order.task == CRASH and job[1] == 1, changes=history.code_changes,
    )
    problems = [*map(str, violations), *Conduct(history).judge(), *terms.judge(history.runs)]
    calm = history.plan.faults is GOOD and not history.plan.lost_leases
    problems += relays.check(history.rows, history.journal, Keys(CLUSTER), in_order=calm)
    rest = [text for text in problems if not any(bundle in text for bundle in history.damaged)]
    return rest + forgotten(history, Keys(CLUSTER))


def try_seed(seed: int) -> Verdict:
    """Run a seed and judge it. Whatever goes wrong in the run is a problem of the seed; what goes wrong in judging it
    is one of ours, and raised."""
    began = time.process_time()
    try:
        history = simulate(seed)
    except Exception as error:
        return Verdict(seed=seed, problems=[_in_short(error)], cpu_s=time.process_time() - began)
    problems = judge(history)
    if seed % TWICE == 0 and simulate(seed).digest() != history.digest():
        problems.append("two runs of this seed were not the same")
    return Verdict(
        seed=seed, problems=problems, revisions=len(history.journal), jobs=sum(map(len, history.invoked.values())),
        runs=sum(run.what == "start" for run in history.runs), takeovers=_takeovers(history), faults=history.faults,
        deeds=history.deeds, settle_s=history.settle_s, cpu_s=time.process_time() - began,
    )


def _in_short(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error}" + (f" ({frames[-1].name})" if frames else "")


def _takeovers(history: History) -> int:
    """Claims that came back from the dead."""
    return sum(
        b'"orphanings":' in change.event.record.value and b"/jobs/" in change.event.record.key
        for entry in history.journal for change in entry.changes
    )


def _prepare() -> None:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # the parent's business
    gc.freeze()


def run(
    seeds: Iterable[int], *, jobs: int = 2, stop: Callable[[Verdict], bool] = lambda _: False,
    setup: Callable[[], None] = lambda: None,
) -> Iterator[Verdict]:
    """The verdicts as they come; ends early after one that `stop` says yes to."""
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, _start, (setup,), maxtasksperchild=20) as pool:
        for verdict in pool.imap_unordered(try_seed, seeds, chunksize=1):
            yield verdict
            if stop(verdict):
                return


def _start(setup: Callable[[], None]) -> None:
    _prepare()
    setup()


class Summary:
    """Adds up verdicts; says how it goes, and in the end a table."""

    def __init__(self, seeds: int, say: Callable[[str], None] = print) -> None:
        self.seeds = seeds
        self.failed: list[Verdict] = []
        self.done = 0
        self._say = say
        self._began = time.monotonic()
        self._said = self._began
        self._totals = {"revisions": 0, "jobs": 0, "runs": 0, "takeovers": 0}
        self._faults: dict[str, int] = {}
        self._deeds: dict[str, int] = {}
        self._settle: list[tuple[float, int]] = []
        self._cpu_s = 0.0

    def add(self, verdict: Verdict) -> None:
        self.done += 1
        if verdict.problems:
            self.failed.append(verdict)
            self._say(f"python -m tests.simulation --seed {verdict.seed}    # {verdict.problems[0][:300]}")
        for name in self._totals:
            self._totals[name] += getattr(verdict, name)
        for table, more in ((self._faults, verdict.faults), (self._deeds, verdict.deeds)):
            for what, count in more.items():
                table[what] = table.get(what, 0) + count
        self._settle.append((verdict.settle_s, verdict.seed))
        self._cpu_s += verdict.cpu_s
        now = time.monotonic()
        if now - self._said > 10.0:
            self._said = now
            rate = self.done / (now - self._began)
            self._say(f"{self.done:,} of {self.seeds:,} seeds, {rate:.1f} a second, {len(self.failed)} failed")

    def table(self) -> str:
        took_s = time.monotonic() - self._began
        longest_s, longest = max(self._settle, default=(0.0, 0))
        rows = [
            ("seeds", f"{self.done:,} in {took_s:.0f} s, {1000 * self._cpu_s / max(self.done, 1):.0f} ms of CPU each"),
            ("failed", f"{len(self.failed)}"),
            *((name, f"{count:,}") for name, count in self._totals.items()),
            ("longest to settle", f"{longest_s:.1f} s (seed {longest})"),
            *((f"  {what}", f"{count:,}") for what, count in sorted(self._deeds.items())),
            *((f"  {what}", f"{count:,}") for what, count in sorted(self._faults.items())),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
