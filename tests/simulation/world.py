"""A whole cluster in one process, in virtual time: production nodes on the ledger in memory, scripted runners, clients,
an operator, and a nemesis. Everything is drawn from one seed, so a seed is a reproduction.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import msgspec

from rota.client.model import Outcome
from rota.client.wire.keyring import UNSIGNED, Keyring
from rota.cluster.ledger import memory
from rota.cluster.ledger.ledger import Put, Record, Txn, prefix_end
from rota.cluster.ledger.memory_store import Entry, MemoryStore
from rota.cluster.master import term
from rota.cluster.master.dispatch.aggregator import Aggregator
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.node.service import Service
from rota.cluster.state.keys import Keys, shown
from rota.cluster.state.records import Token, decode, encode
from rota.worker.channel.frames import Work
from rota.worker.pool import inquest

from . import codes, trust
from .damage import exorcise
from .express import FLAGS_S, Hasty
from .flows import Waiters
from .history import Freeze, Order, indexes_of
from .kept import kept_by
from .loop import VirtualClock, run_virtual
from .memories import Doing
from .names import job_name
from .nemesis import Nemesis
from .people import Client, Operator
from .plans import (
    ATTEMPTS_MAX,
    CLUSTER,
    CRASH,
    GOOD,
    POISON,
    QUEUE_RECORDS,
    SERIAL,
    TASK_RECORDS,
    TASKS,
    TTL_S,
    Plan,
    plan_of,
)
from .process import Process
from .relays import Relays, Written
from .scripted import KILLS_ITS_RUNNER, Run
from .sections import Composers
from .sharing import Sharers
from .ticks import Timekeeper
from .twins import Twins

SETTLE_MORE_S = 20.0
"""A run that takes longer than it may (L1) goes on a little, to tell what is late from what never comes."""

PROGRESS_PERIOD_S = 4.0
"""Quiet watches report their progress less often than in production: it is most of what an idle cluster does."""

DURATIONS_S = (0.001, 0.01, 0.1, 0.5, 1.2, 3.0)
DURATION_WEIGHTS = (4, 4, 4, 4, 3, 1)
"""Of jobs. The longest outlast a lease."""

POISONINGS_MAX = 4
"""Runs that end in the death of their node: in company, and then as often as it takes to be put aside."""


CRASH_S = 6.0
"""For the company of a job that kills its runner: each of them is run again, one after the other."""


class Spell(msgspec.Struct, frozen=True):
    """From this moment on a process is "up", "troubled" (its connection is), "leaving" or "down"."""

    at: float
    process: str
    state: str


class History(msgspec.Struct, kw_only=True):
    """What is judged."""

    seed: int
    plan: Plan
    journal: list[Entry]
    runs: list[Run]
    spells: list[Spell]
    invoked: dict[str, set[str]]        # bundle -> its jobs
    acknowledged: dict[str, int]        # bundle -> at which revision; of what is stored
    orders: dict[str, Order]            # bundle -> what its client asked for
    killings: list[tuple[float, str]]   # when the runners of which process were killed, all at once
    frozen: list[Freeze]                # machines that stood still
    betrayed: set[str]                  # nodes whose lease the store dropped early
    code_changes: list[tuple[float, str]]   # when a process' code changed while it ran
    doings: list[Doing]                 # what runs did by steps
    existing: list[tuple[str, str, str]]    # bundles that enqueues were told of, and their own task and unique key
    tampered: set[str]                  # bundles whose records somebody has laid hand on
    damaged: set[str]                   # of those, the ones that cannot be read any more
    rows: list[Written]                 # of an outbox
    notes: list[str]
    faults: dict[str, int]
    deeds: dict[str, int]
    quiet_at: float                     # the last fault had healed, and the last client was done
    ended_at: float
    settle_s_max: float                 # how long the rest may take (L1)
    kept: list[str]                     # by the last master, of what is over

    @property
    def settle_s(self) -> float:
        return self.ended_at - self.quiet_at

    def digest(self) -> str:
        """Equal for two runs of one seed."""
        trace = hashlib.blake2b(digest_size=16)
        for entry in self.journal:
            for change in entry.changes:
                record = change.event.record
                trace.update(b"%d %d %s %s\n" % (entry.revision, change.event.deleted, record.key, record.value))
        for run in self.runs:
            trace.update(repr(run).encode())
        return trace.hexdigest()


class Stuck(Exception):
    """Something that had to happen did not."""


class World:
    """One run of one seed."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.plan = plan
        self.faults = GOOD              # of the network, now
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock, journal=True)
        self.keys = Keys(CLUSTER)
        self.processes: list[Process] = []
        self.runs: list[Run] = []
        self.spells: list[Spell] = []
        self.invoked: dict[str, set[str]] = {}
        self.acknowledged: dict[str, int] = {}
        self.orders: dict[str, Order] = {}
        self.killings: list[tuple[float, str]] = []
        self.left_behind: list[asyncio.Future[Any]] = []     # requests whose clients have ceased to wait
        self.betrayed: set[str] = set()
        self.frozen: list[Freeze] = []
        self.tampered: set[str] = set()
        self.damaged: set[str] = set()
        self.doings: list[Doing] = []
        self.existing: list[tuple[str, str, str]] = []
        self.rows: list[Written] = []
        self.notes: list[str] = []
        self.code_changes: list[tuple[float, str]] = []
        self.masters: list[Aggregator] = []     # what each knew, the last of them now
        self.kept: list[str] = []
        self.broken: list[str] = []     # nodes that ended by themselves, and why
        self.nemesis = Nemesis(self)
        self.operator = Operator(self)
        self.timekeeper = Timekeeper(self)
        self.waiters = Waiters(self)
        self.composers = Composers(self)
        self._scripts: dict[tuple[str, int], tuple[float, Outcome]] = {}
        self._poisonings: dict[str, int] = {}

    def new_master(self, picture: Picture) -> Aggregator:
        self.masters.append(Aggregator(picture))
        return self.masters[-1]

    def note(self, text: str) -> None:
        self.notes.append(f"{self.clock.monotonic():9.3f} @{self.store.revision:<5d} {text}")

    def spell(self, process: str, state: str) -> None:
        self.spells.append(Spell(self.clock.monotonic(), process, state))

    def add_process(self, keyring: Keyring | None = None) -> Process:
        number, others = len(self.processes), [process.keyring for process in self.processes if process.alive]
        if keyring is None:
            keyring = trust.keyring_for(self.seed, number, others) if self.plan.keys else UNSIGNED
        code = codes.code_for(self.seed, number, [process.code for process in self.processes if process.alive]) if (
            self.plan.codes
        ) else codes.WHOLE
        process = Process(self, number, keyring, code)
        self.processes.append(process)
        return process

    def any_process(self, rng: random.Random) -> Process:
        """The newest a little more often: it knows least."""
        living = [process for process in self.processes if process.alive] or self.processes
        return living[-1] if rng.random() < 0.2 else rng.choice(living)

    def any_node(self, rng: random.Random) -> Service:
        return self.any_process(rng).node

    # -- jobs --------------------------------------------------------------------------------------------------------

    def play(self, work: Work, index: int) -> tuple[float, Outcome]:
        """How long a job takes and how it ends: drawn once per job and attempt, whoever runs it."""
        return self._script(job_name(work.bundle, index), index, work.attempt)

    def script(
        self, job: str, seconds: float, attempt: int = 1, *, retry_s: float | None = None, failed: str = ""
    ) -> None:
        """For tests that need a job to take its time: an attempt ends well after so long, or is to be retried, or
        fails."""
        index = int(job.rpartition("/")[2])
        outcome = Outcome(index, "ok", b"r")
        if failed:
            outcome = Outcome(index, "failed", error=failed, traceback="trace")
        elif retry_s is not None:
            outcome = Outcome(index, "retry", error="not yet", delay_s=retry_s)
        self._scripts[job, attempt] = (seconds, outcome)

    def _script(self, job: str, index: int, attempt: int) -> tuple[float, Outcome]:
        script = self._scripts.get((job, attempt))
        if script is None:
            chance = random.Random(f"{self.seed} {job} {attempt}")
            seconds = chance.choices(DURATIONS_S, DURATION_WEIGHTS)[0] * chance.uniform(0.5, 1.5)
            if self.kills_its_runner(job):
                script = self._scripts[job, attempt] = (seconds, Outcome(index, "failed", error=KILLS_ITS_RUNNER))
                return script
            draw = chance.random() if self.plan.failures else 1.0
            if draw < 0.08 and attempt < ATTEMPTS_MAX:
                outcome = Outcome(index, "retry", error="not yet", delay_s=chance.uniform(0.1, 2.0))
            elif draw < 0.12:
                outcome = Outcome(index, "failed", error="no")
            else:
                outcome = Outcome(index, "ok", b"r")
            script = self._scripts[job, attempt] = (seconds, outcome)
        return script

    def kills_its_runner(self, job: str) -> bool:
        """In every attempt."""
        bundle, _, index = job.partition("/")
        return index == "1" and bundle in self.orders and self.orders[bundle].task == CRASH

    def is_poison(self, job: str) -> bool:
        """The middle one of three, as often as it takes."""
        if not job.endswith("/1") or self._poisonings.get(job, 0) >= POISONINGS_MAX:
            return False
        self._poisonings[job] = self._poisonings.get(job, 0) + 1
        return True

    # -- the run -----------------------------------------------------------------------------------------------------

    async def run(self) -> History:
        async with asyncio.TaskGroup() as self.group:
            quiet_at, settle_s_max, ended_at = await self._play()
        assert self.store.journal is not None
        counts: dict[str, int] = {}
        for process in self.processes:
            for what, count in process.ledger.counts.items():
                counts[what] = counts.get(what, 0) + count
        return History(
            seed=self.seed, plan=self.plan, journal=self.store.journal, runs=self.runs, spells=self.spells,
            invoked=self.invoked, acknowledged=self.acknowledged, orders=self.orders, killings=self.killings,
            frozen=self.frozen, betrayed=self.betrayed, code_changes=self.code_changes, tampered=self.tampered,
            damaged=self.damaged,
            doings=self.doings, existing=self.existing, rows=self.rows,
            notes=self.notes, faults=counts, deeds=self.nemesis.counts,
            quiet_at=quiet_at, ended_at=ended_at, settle_s_max=settle_s_max, kept=self.kept,
        )

    async def _play(self) -> tuple[float, float, float]:
        self.prepare()
        for _ in range(self.plan.nodes):
            self.add_process()
        await self.until(self.all_are_ready, 30.0, "all join")
        self._set_faults(self.plan)
        first, last = 0, self.plan.clients - 1
        clients = [
            self.group.create_task(Client(
                self, wide=self.plan.wide if number == first else 0,
                poison=self.plan.poison if number == first else 0,
                crashing=self.plan.crashing if number == last else 0,
            ).run(), name=f"client-{number}")
            for number in range(self.plan.clients)
        ]
        if self.plan.twins:
            clients.append(self.group.create_task(Twins(self).run(), name="client-twins"))
        if self.plan.sharers:
            clients.append(self.group.create_task(Sharers(self).run(), name="client-sharers"))
        if self.plan.hasty:
            clients += [self.group.create_task(Hasty(self, number).run(), name="client-hasty") for number in range(2)]
        if self.plan.waiters:
            clients.append(self.group.create_task(self.waiters.run(), name="client-waiters"))
            clients.append(self.group.create_task(self.composers.run(), name="client-composers"))
        if self.plan.outbox:
            clients.append(self.group.create_task(Relays(self).run(), name="client-relays"))
        operator = self.group.create_task(self.operator.run(), name="operator")
        if self.plan.schedules:
            timekeeper = self.group.create_task(self.timekeeper.run(), name="timekeeper")
        await self.nemesis.run()
        self._heal()
        await asyncio.gather(*clients)
        await self._end_requests()
        self.operator.calm = True
        if self.plan.schedules:
            timekeeper.cancel()
            await self.timekeeper.end()
        self.composers.end_leases()
        await self.waiters.end()
        await self.until(
            lambda: not self.records(self.keys.operations, 1), 4 * TTL_S + 10.0, "every operation has ended"
        )
        quiet_at, settle_s_max = self.clock.monotonic(), self._bound_s()
        self.note(f"all is quiet; the rest must be done within {settle_s_max:.1f} s")
        await self.until(self.is_empty, settle_s_max + SETTLE_MORE_S, "every acknowledged job has ended")
        await self.composers.end()
        ended_at = self.clock.monotonic()
        last_s = self.healed_at + GOOD.late_s[1] + 0.1
        await asyncio.sleep(max(0.5, last_s - ended_at))        # late twins have their last chance
        await self.until(self.is_empty, 4 * TTL_S + 10.0, "what came late has ended")
        nothing_said = "L13: what ended jobs said of themselves is gone"
        await self.until(lambda: not self.records(self.keys.progress, 1), 4 * TTL_S, nothing_said)
        await self.until(self._all_are_members, 3 * TTL_S, "every node that lives is a member")
        await asyncio.sleep(0.1)                                # the watches show it
        await self.until(
            lambda: not self.records(self.keys.nonempty, 1), FLAGS_S, "X3: queues that hold nothing have no flag"
        )
        newest = max(self.masters, key=lambda master: master.picture.revision)      # (others may have looked in vain)
        self.kept.extend(kept_by(newest, [
            record.key[len(self.keys.queues):].decode() for record in self.records(self.keys.queues)
        ]))
        operator.cancel()
        await asyncio.gather(*(process.leave() for process in self.processes if process.alive))
        return quiet_at, settle_s_max, ended_at

    async def _end_requests(self) -> None:
        """What clients have left behind in nodes is over: afterwards nothing new comes."""
        if self.left_behind:
            await asyncio.wait(self.left_behind, timeout=5.0)
            for request in self.left_behind:
                request.cancel()
            await asyncio.gather(*self.left_behind, return_exceptions=True)

    def prepare(self) -> None:
        """What an operator set before the first node came."""
        puts = [Put(self.keys.queue(name), encode(settings)) for name, settings in QUEUE_RECORDS.items()]
        puts += [Put(self.keys.task(name), encode(record)) for name, record in TASK_RECORDS.items()]
        self.store.commit(Txn((), tuple(puts)), "setup")

    def _set_faults(self, plan: Plan) -> None:
        self.faults = plan.faults
        for process in self.processes:
            process.ledger.faults = plan.faults

    def _heal(self) -> None:
        self.faults = GOOD
        for process in self.processes:
            if process.alive:
                process.ledger.faults = GOOD
                process.reconnect()
        exorcise(self)
        self.healed_at = self.clock.monotonic()
        self.note("the last fault is over")

    async def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        limit = self.clock.monotonic() + timeout_s
        while not condition():
            if self.broken:
                raise Stuck(self.broken[0])
            if self.clock.monotonic() > limit:
                self.note("stuck")
                raise Stuck(f"not within {timeout_s:g} s: {what}; {self._describe()}")
            await asyncio.sleep(0.05)

    # -- looking at the store ----------------------------------------------------------------------------------------

    def records(self, prefix: bytes, limit: int = 0) -> tuple[Record, ...]:
        return self.store.read(prefix, prefix_end(prefix), limit, 0, False, 0).records

    def is_empty(self) -> bool:
        keys = self.keys
        volatile = any(process.engine._parts.volatile.held for process in self.processes if process.alive)
        areas = (keys.jobs, keys.scheduled, keys.awaiting, keys.claims, keys.operations)
        return not volatile and not any(self.records(prefix, 1) for prefix in areas)

    def all_are_ready(self) -> bool:
        return all(process.node.why_not_ready() is None for process in self.processes)

    def _all_are_members(self) -> bool:
        members = {record.key for record in self.records(self.keys.nodes)}
        return {self.keys.node(process.node.node) for process in self.processes if process.alive} == members

    def is_paused(self, queue: str) -> bool:
        records = self.records(self.keys.queue(queue))
        return bool(records) and b'"paused":true' in records[0].value

    def is_blocked(self, queue: str) -> bool:
        head = self.records(self.keys.queue_jobs(queue), 1)
        token = decode(Token, head[0].value) if head else None
        return token is not None and token.blocked

    def _bound_s(self) -> float:
        """L1: the work that is left, done by one node alone, + 2 lease times + 5 s."""
        keys, work_s, serial_s, retry_s = self.keys, self._volatile_s(), 0.0, 0.0
        for prefix in (keys.jobs, keys.scheduled, keys.awaiting, keys.claims):
            for record in self.records(prefix):
                token = decode(Token, record.value)
                name = record.key.rpartition(b"/")[2].decode()
                body = self.store.read(keys.body(name), b"", 0, 0, False, 0).records
                if token is None or not body:
                    continue
                for index in indexes_of(body[0].value):
                    if token.done_bits >> index & 1:
                        continue
                    seconds, delay_s = self._rest_of(job_name(name, index), index, token.attempt)
                    retry_s = max(retry_s, TASKS[token.task].requeue_delay_s)
                    if (rate := TASKS[token.task].rate) is not None:
                        serial_s += (delay_s + rate.per_s / rate.count) + 1.0
                    if token.queue == SERIAL or token.key or token.weight > 1:
                        serial_s += seconds + delay_s + 1.0
                    else:
                        work_s += seconds + 0.05 + 0.3 * token.suspect
                        retry_s = max(retry_s, delay_s)
                    if token.task == POISON:
                        retry_s = max(retry_s, 4.0 * TTL_S)
        return work_s / 2 + serial_s + retry_s + 2 * TTL_S + 5.0

    def _volatile_s(self) -> float:
        """The work of jobs without persistence, from wherever they are to their ends."""
        return sum(
            sum(self._rest_of(job, int(job.partition("/")[2]), 1))
            for bundle, order in self.orders.items() if order.level == "none"
            for job in self.invoked[bundle] if not self._has_ended(job)
        )

    def _has_ended(self, job: str) -> bool:
        return any(run.job == job and run.outcome in ("ok", "failed") for run in self.runs)

    def _rest_of(self, job: str, index: int, attempt: int) -> tuple[float, float]:
        """Seconds of running and of waiting until a job ends, if nothing comes between."""
        seconds = delay_s = 0.0
        while True:
            more, outcome = self._script(job, index, attempt)
            seconds += more
            if outcome.error == KILLS_ITS_RUNNER and attempt < ATTEMPTS_MAX:
                seconds, delay_s = 2 * seconds, delay_s + CRASH_S
            elif outcome.status != "retry":
                return seconds, delay_s
            delay_s += outcome.delay_s
            attempt += 1

    def _describe(self) -> str:
        keys, rows = self.keys, []
        for prefix in (keys.jobs, keys.scheduled, keys.claims):
            found = self.records(prefix)
            rows.append(f"{prefix.decode()}: {len(found)} {[shown(record.key) for record in found[:3]]}")
        rows.append(f"members {[shown(record.key) for record in self.records(keys.nodes)]}")
        rows.append(f"candidates {[shown(record.value) for record in self.records(keys.master)]}")
        return "; ".join(rows)


def simulate(seed: int, plan: Plan | None = None, *, notes: list[str] | None = None) -> History:
    """Run one seed to its end. `notes` is filled as it goes, and so tells of runs that do not come to their end."""

    async def main() -> History:
        world = World(seed, plan or plan_of(seed))
        if notes is not None:
            world.notes = notes
        with patch.object(term, "Aggregator", world.new_master):
            return await world.run()

    gc.disable()        # when it strikes is no part of the seed
    try:
        with (
            patch.object(memory, "PROGRESS_PERIOD_S", PROGRESS_PERIOD_S),
            patch.object(inquest, "backoff_s", lambda info, said, attempt: 0.5 * attempt),     # without chance
        ):
            return run_virtual(main())
    finally:
        gc.enable()
        gc.collect()
