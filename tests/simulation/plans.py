"""What happens in a seed: how large the cluster is, what people ask of it, and what goes wrong."""

from __future__ import annotations

import random

import msgspec

from rota.client.model import Mode, Rate, TaskInfo
from rota.cluster.state.records import QueueRecord, TaskRecord

from .faults import CALM, ROUGH, Faults

CLUSTER = "sim"
TTL_S = 2
ATTEMPTS_MAX = 3
RETRY_WINDOW_S = 30.0
"""How long a client tries to enqueue a bundle."""

QUEUES = ("q1", "q2")
SERIAL = "s1"
NARROW = "narrow"
BOUNDED, BOUND = "bounded", 6
FAIR, FAIR_TASK = "fair", "m:async"
"""Tenants enqueue jobs of this task there."""
QUEUE_RECORDS = {
    SERIAL: QueueRecord(serial=True), NARROW: QueueRecord(max_concurrency=2), BOUNDED: QueueRecord(max_waiting=BOUND),
}

TASKS = {
    "m:sync": TaskInfo("m:sync", "sync", max_attempts=ATTEMPTS_MAX),
    "m:async": TaskInfo("m:async", "async", max_attempts=ATTEMPTS_MAX),
    "m:limited": TaskInfo("m:limited", "async", max_attempts=ATTEMPTS_MAX, max_concurrency=2),
    "m:keyed": TaskInfo("m:keyed", "async", max_attempts=ATTEMPTS_MAX, max_per_key=2),
    "m:once": TaskInfo("m:once", "sync", max_attempts=ATTEMPTS_MAX, on_orphan="fail"),
    "m:patient": TaskInfo("m:patient", "sync", max_attempts=ATTEMPTS_MAX, requeue_delay_s=1.5),
    "m:poison": TaskInfo("m:poison", "sync", max_attempts=ATTEMPTS_MAX),
    "m:crash": TaskInfo("m:crash", "async", max_attempts=ATTEMPTS_MAX),
    "m:turns": TaskInfo("m:turns", "sync", max_attempts=ATTEMPTS_MAX),
    "m:heavy": TaskInfo("m:heavy", "sync", max_attempts=ATTEMPTS_MAX, weight=2),
    "m:wide": TaskInfo("m:wide", "async", max_attempts=ATTEMPTS_MAX, weight=3),
    "m:paced": TaskInfo("m:paced", "async", max_attempts=ATTEMPTS_MAX, rate=Rate(4, 1.0, 2)),
}
TASK_RECORDS = {
    name: TaskRecord(
        info.mode, info.queue, info.max_concurrency, info.max_per_key, info.on_orphan, info.requeue_delay_s,
        rate=info.rate, weight=info.weight,
    )
    for name, info in TASKS.items()
}
"""Written before the first node joins, as the queues' are; nodes that register their tasks keep what they find."""

TURNS = "m:turns"
"""`def` in the code of some nodes, `async def` in that of others."""

HEAVY, WIDE = "m:heavy", "m:wide"

KEYS = ("ann", "bob")

POISON = "m:poison"
"""One of its jobs kills the node that runs it."""

CRASH = "m:crash"
"""The second job of each bundle kills its runner, and with it whatever `async def` jobs run there."""

CAPACITY: dict[Mode, int] = {"sync": 2, "async": 4}
GUARD_WAKES_S = 0.3
"""At the latest so long after a machine that stood still goes on; its runners are the first."""

SPARE = 1
"""Of each mode, for queues of which nothing runs."""

GOOD = msgspec.structs.replace(CALM, late_s=(0.0, 3.0))
BAD = msgspec.structs.replace(ROUGH, late_s=(0.0, 3.0))
"""Networks."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run consists of. Times in seconds, deeds by how often."""

    nodes: int = 3
    clients: int = 2
    bundles: int = 7                # of each client
    trouble_s: float = 8.0          # how long things go wrong
    faults: Faults = BAD
    crashes: int = 2
    lost_machines: int = 1
    cuts: int = 3
    outages: int = 0                # of the whole store; leases start again after it
    lost_leases: int = 0            # that the store drops early
    compactions: int = 2
    drains: int = 1
    ambushes: int = 1               # in wait for the moment at which a feature hangs in the balance
    freezes: int = 0                # of a machine with everything on it
    poison: int = 0                 # bundles with a job that kills its node
    crashing: int = 0               # bundles with a job that kills its runner
    operator: bool = True           # a person retries, skips, cancels, pauses
    failures: bool = True           # jobs fail and retry
    keys: bool = False              # jobs are signed, and nodes have different keys
    codes: bool = False             # nodes have different code, and sizes
    twins: bool = False             # jobs of which there must not be two, and such as expire
    sharers: bool = False           # heavy jobs, tenants, a queue that takes so many only
    hasty: bool = False             # jobs one at a time, that need not wait for others
    waiters: bool = False           # jobs that wait for jobs
    outbox: bool = False            # an application enqueues in its database's transactions
    exchanges: int = 0              # by a writer of the store, of two bundles' bodies
    wide: int = 0                   # bundles that hold more jobs than a split makes pieces; they take long to check
    damages: int = 0                # by the same, of records, so that they cannot be read
    schedules: bool = False         # a person has some

    @property
    def quiet(self) -> bool:
        """Nothing whatever goes wrong: each job runs exactly once."""
        return not (
            self.crashes or self.lost_machines or self.cuts or self.outages or self.lost_leases or self.drains
            or self.ambushes or self.poison or self.crashing or self.operator or self.failures or self.exchanges
            or self.freezes or self.schedules or self.damages or self.faults is not GOOD
        )


QUIET = Plan(
    faults=GOOD, crashes=0, lost_machines=0, cuts=0, compactions=0, drains=0, ambushes=0, operator=False, failures=False
)


def plan_of(seed: int) -> Plan:
    """Some seeds are quiet; in a third of them the network is good, and only nodes come and go."""
    rng = random.Random(seed * 7919 + 1)
    if seed % 20 == 0:
        return msgspec.structs.replace(QUIET, nodes=rng.choice((1, 3)))
    plan = Plan(
        nodes=rng.choice((3, 3, 3, 4)),
        clients=rng.choice((1, 2, 3)),
        faults=BAD if seed % 3 else GOOD,
        crashes=rng.randrange(4),
        lost_machines=rng.randrange(2),
        cuts=rng.randrange(4),
        outages=int(rng.random() < 0.25),
        lost_leases=int(rng.random() < 0.2),
        compactions=rng.randrange(3),
        drains=rng.randrange(2),
        poison=int(rng.random() < 0.1),
        operator=rng.random() < 0.7,
        ambushes=rng.choice((1, 1, 2)),
        crashing=int(rng.random() < 0.2),
        keys=rng.random() < 0.35,
        freezes=int(rng.random() < 0.25),
        exchanges=rng.choice((0, 0, 0, 0, 1, 3)),
        codes=rng.random() < 0.4,
        schedules=rng.random() < 0.4,
        twins=seed % 3 == 1,
        waiters=seed % 3 == 2,
        sharers=seed % 6 == 3,
        wide=int(seed % 50 == 23),
        outbox=seed % 3 == 0,
        hasty=seed % 8 == 5,
        damages=rng.choice((0, 0, 0, 4, 1)),
    )
    if plan.hasty:                  # where little else goes on, hardly anything has to wait
        plan = msgspec.structs.replace(plan, bundles=2)
    if plan.twins or plan.waiters or plan.exchanges:    # whose key is free, who waits for what, and whose body is whose
        plan = msgspec.structs.replace(plan, damages=0)
    if plan.keys or plan.codes:     # what a template is signed with, and whose code has its task, is another matter
        plan = msgspec.structs.replace(plan, schedules=False, outbox=False)
    if plan.damages:                # which row was moved shows in records
        plan = msgspec.structs.replace(plan, outbox=False)
    if plan.codes:                  # some nodes are smaller
        plan = msgspec.structs.replace(plan, sharers=False)
    return msgspec.structs.replace(plan, codes=False) if plan.keys else plan    # some node can run everything
