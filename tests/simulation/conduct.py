"""What the store's history alone does not show, or only of a whole queue: exclusiveness, order, limits, and how long
things take.

    S15 a job runs in one place at a time              Q1  a serial queue has one claim, of one job
    M1  what is not a member writes nothing            Q2  it gives out its head, and appends at its end
    L1  all is done in time after the last fault       Q3  a blocked head blocks, one that retries waits
    L2  claims of the dead are moved in time           Q4  a limit holds at every revision
    L4  a job does not wait while a node has a free slot for it, and a master is there (`slots.py`)
    L10 a queue of which nothing runs does not wait while a node has a spare slot (`slots.py`)
    L8  nothing goes to and fro without end
    L11 of what is over the master keeps nothing (`kept.py`)
    X1  a bundle begins with its enqueue only where nothing stands before it; X2, X3: flags of queues (`express.py`)
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Iterable, Iterator
from heapq import merge
from itertools import pairwise

import msgspec

from rota.client.ids import index_at
from rota.cluster.ledger.ledger import Event
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, Member, Token, claim_in, decode
from rota.cluster.state.splitting import piece_name

from .blame import Blame
from .codes import Codes
from .express import Ahead
from .fairness import Turns
from .loop import EPOCH_S
from .plans import CLUSTER, GOOD, GUARD_WAKES_S, QUEUE_RECORDS, SERIAL, TASKS
from .scripted import Run
from .sharing import Shares
from .slots import Held, Slots
from .trust import HAND, Trust
from .twins import Alone
from .world import History, Spell

CLAIMS_MAX = 20
"""Of one bundle or piece: whatever goes wrong in a run, it does not go wrong as often as this."""

OVERLAP_S_MAX = 0.001
RECOVERY_S_MAX = 1.0
"""L2, with a healthy network, counted from when a master could know."""

UNSERVED_S_MAX = 1.0
"""L4."""

STARVED_S_MAX = 2.0
"""L10: a queue waits for half a second before it may have one."""

DUE_SKEW_S = 0.01


class Conduct:
    """One fold over a history. `violations` are lines of text."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.keys = Keys(CLUSTER)
        self.violations: list[str] = []
        self._members: dict[str, Member] = {}
        self._claims: dict[bytes, Held] = {}
        self._unreadable: dict[bytes, Held] = {}    # claims that somebody has written over, as they were before
        self._waiting: dict[bytes, Token] = {}
        self._serial: list[bytes] = []          # keys of the serial queue's jobs, in order
        self._last_order = 0
        self._candidates: dict[bytes, tuple[int, str]] = {}
        self._paused: set[str] = set()
        self._claimed: dict[bytes, int] = {}
        self._slots = Slots(self.keys)
        self._own: set[tuple[str, str]] = set()     # (bundle, node) of claims that an enqueue brought along
        self._revision = 0

    def judge(self) -> list[str]:
        calm = self._calm_spells()
        trust = Trust(self.keys, self.history.tampered, self._say)
        codes = Codes(self.keys, self.history.orders, self.history.code_changes, self._say)
        blame = Blame(self.keys, self._say)
        shares, turns = Shares(self.keys, self._say), Turns(self.keys, self._say)
        alone, ahead = Alone(self.keys, self._say), Ahead(self.keys, self.history.orders, self._say)
        for entry in self.history.journal:
            self._revision = entry.revision
            if calm is not None:
                calm.until(entry.at)
            self._check_author(entry)
            self._count_claims(entry)
            trust.see(entry, self._members, self._own)
            codes.see(entry, self._members)
            blame.see(entry, self._members, self._claims)
            alone.see(entry)
            ahead.see(entry)
            shares.see(entry, self._members)
            turns.see(entry)
            self._check_serial(entry)
            for change in entry.changes:
                self._take(change.event)
            self._check_limits()
            if calm is not None:
                calm.see(entry)
        alone.finish(self.history.existing)
        self._check_overlaps()
        if self.history.settle_s > self.history.settle_s_max:
            self._say("L1", f"it took {self.history.settle_s:.1f} s until all was done, "
                            f"and may take {self.history.settle_s_max:.1f} s")
        for what in self.history.kept:
            self._say("L11", f"all is over, and the master keeps {what}")
        return self.violations

    def _say(self, rule: str, text: str) -> None:
        self.violations.append(f"{rule} at revision {self._revision}: {text}")

    # -- the state after a revision ----------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        keys, key, value = self.keys, event.record.key, event.record.value
        if key.startswith(keys.claims):
            self._take_claim(event)
        elif key.startswith(keys.jobs):
            token = None if event.deleted else decode(Token, value)
            if key.startswith(keys.queue_jobs(SERIAL)):
                if key in self._waiting:
                    self._serial.remove(key)
                if token is not None:
                    insort(self._serial, key)
            if token is None or TASKS[token.task].rate is not None:     # (what a rate holds back waits for it)
                self._waiting.pop(key, None)
            else:
                self._waiting[key] = token
        elif key.startswith(keys.bodies):
            self._slots.stored(key, None if event.deleted else value)
        elif key.startswith(keys.nodes):
            member = None if event.deleted else decode(Member, value)
            name = key[len(keys.nodes):].decode()
            if event.deleted:
                self._members.pop(name, None)
            elif member is None:        # somebody has written over it: it is a member still, and gets nothing
                self._members[name] = msgspec.structs.replace(self._members[name], state="unreadable")
            else:
                self._members[name] = member
        elif key.startswith(keys.master):
            if event.deleted:
                self._candidates.pop(key, None)
            else:
                self._candidates[key] = (event.record.create_revision, value.decode())
        elif key.startswith(keys.queues):
            name = key[len(keys.queues):].decode()
            if not event.deleted and b'"paused":true' in value:
                self._paused.add(name)
            else:
                self._paused.discard(name)

    def _take_claim(self, event: Event) -> None:
        key, revision = event.record.key, event.record.create_revision
        claim = None if event.deleted else claim_in(event.record.value)
        written_over = self._unreadable.pop(key, None)
        if claim is not None:
            node = key[len(self.keys.claims):].decode().partition("/")[0]
            self._claims[key] = Held(node, claim, revision)
            return
        known = self._claims.pop(key, None) or written_over
        if known is not None and not event.deleted and known.revision == revision:
            self._unreadable[key] = known

    @property
    def master(self) -> str:
        return min(self._candidates.values())[1] if self._candidates else ""

    # -- safety ------------------------------------------------------------------------------------------------------

    def _check_author(self, entry: Entry) -> None:
        """M1: what a dead node sent may arrive late, and must not apply then."""
        if entry.txn is None or entry.writer in ("setup", HAND):
            return
        mine = f"{entry.writer}-"
        if any(name.startswith(mine) for name in self._members):
            return
        if not any(change.event.record.key.startswith(self.keys.nodes + mine.encode()) for change in entry.changes):
            self._say("M1", f"{entry.writer} wrote {entry.changes[0].event.record.key.decode()}, and is no member")

    def _count_claims(self, entry: Entry) -> None:
        """L8: nothing goes to and fro for ever."""
        for change in entry.changes:
            key = change.event.record.key
            if change.previous is None and key.startswith(self.keys.claims):
                name = key.rpartition(b"/")[2]
                receipt = self.keys.receipt(name.decode())
                if any(other.event.record.key == receipt for other in entry.changes):
                    node = key[len(self.keys.claims):].decode().partition("/")[0]
                    self._own.add((name.decode(), node))
                self._claimed[name] = self._claimed.get(name, 0) + 1
                if self._claimed[name] == CLAIMS_MAX + 1:
                    self._say("L8", f"{name.decode()} was claimed over {CLAIMS_MAX} times")

    def _check_serial(self, entry: Entry) -> None:
        """Q1, Q2 and Q3, against the state before this revision."""
        keys, prefix = self.keys, self.keys.queue_jobs(SERIAL)
        wall_ms = (EPOCH_S + entry.at + DUE_SKEW_S) * 1000
        left = [change.event.record.key for change in entry.changes
                if change.event.deleted and change.event.record.key.startswith(prefix)]
        for change in entry.changes:
            record, new = change.event.record, change.previous is None and not change.event.deleted
            if new and record.key.startswith(prefix) and self._comes_in(entry, record.key.rpartition(b"/")[2]):
                token = decode(Token, record.value)
                if token is not None and token.order <= self._last_order:
                    self._say("Q2", f"{record.key.decode()} was appended behind order {self._last_order}")
                self._last_order = max(self._last_order, token.order if token is not None else 0)
            if not new or not record.key.startswith(keys.claims):
                continue
            claim = decode(Claim, record.value)
            if claim is None or claim.queue != SERIAL:
                continue
            others = [key.decode() for key, held in self._claims.items() if held.claim.queue == SERIAL]
            if others or claim.pending > 1:
                self._say("Q1", f"{record.key.decode()} ({claim.pending} jobs) was claimed beside {others}")
            name = record.key.rpartition(b"/")[2]
            source = next((key for key in left if key.rpartition(b"/")[2] == name), None)
            if source is None:
                continue
            if self._serial and source != self._serial[0]:
                self._say("Q2", f"{source.decode()} was claimed, and the head is {self._serial[0].decode()}")
            if sibling := self._earlier_sibling(source):
                self._say("Q2", f"{source.decode()} was claimed, and {sibling.decode()} comes first")
            if claim.blocked or claim.not_before > wall_ms:
                self._say("Q3", f"{source.decode()} was claimed, and it is blocked, or not due")

    def _comes_in(self, entry: Entry, name: bytes) -> bool:
        """Whether this bundle is enqueued here, or has become due, or waits for nothing more, or is run again from the
        failed set; it is not handed back."""
        keys = self.keys
        return any(
            other.event.record.key == keys.receipt(name.decode())
            or (other.event.deleted and other.event.record.key.startswith((keys.scheduled, keys.awaiting))
                and other.event.record.key.rpartition(b"/")[2] == name)
            or (other.event.deleted and (failed := keys.parse_failed(other.event.record.key)) is not None
                and piece_name(failed[1], [failed[2]]).encode() == name)
            for other in entry.changes
        )

    def _earlier_sibling(self, key: bytes) -> bytes | None:
        """A job of the same bundle, at the same place in the queue, with a lower index."""
        place, dot, index = key.rpartition(b".")
        for other in self._serial if dot else ():
            if other.startswith(place + dot) and index_at(other[len(place) + 1:].decode()) < index_at(index.decode()):
                return other
        return None

    def _check_limits(self) -> None:
        """Q4, over all claims: those of the dead count until they have been taken over."""
        jobs: dict[tuple[str, ...], int] = {}
        for held in self._claims.values():
            claim = held.claim
            for what in ((claim.task,), (claim.task, claim.key), ("queue", claim.queue)):
                jobs[what] = jobs.get(what, 0) + claim.pending
        for what, number in jobs.items():
            limit = _limit_of(what)
            if limit is not None and number > limit:
                self._say("Q4", f"{number} jobs of {' '.join(what)} are claimed, {limit} may be")

    def _check_overlaps(self) -> None:
        """S15. (The clocks of the simulation are exact: nothing may overlap but what the store itself has broken.)"""
        starts: dict[tuple[str, int], tuple[float, str]] = {}
        stays: dict[str, list[tuple[float, float, str]]] = {}
        excused = self._goes_on_after_a_freeze
        for run in self.history.runs:
            if not run.fence and (run.job.partition("/")[0], run.node) not in self._own:
                continue            # it counts for nothing: no claim came to be, or there is none
            if run.what == "start":
                starts[run.job, run.fence] = (run.at, run.node)
            elif (run.job, run.fence) in starts:
                began, node = starts.pop((run.job, run.fence))
                stays.setdefault(run.job, []).append((began, run.at, node))
        for (job, _), (began, node) in starts.items():
            stays.setdefault(job, []).append((began, float("inf"), node))
        for job, some in stays.items():
            some.sort()
            for (began, end, node), (start, _, other) in pairwise(some):
                if end - start > OVERLAP_S_MAX and node not in self.history.betrayed and not excused(began, end, node):
                    self._say("S15", f"job {job} ran on {node or 'a node'} until {end:.3f} s, "
                                     f"and on {other or 'a node'} from {start:.3f} s")

    def _goes_on_after_a_freeze(self, began: float, end: float, node: str) -> bool:
        """What ran when its machine began to stand still may go on until the guard wakes up, too; nothing may begin."""
        return any(
            began <= freeze.at <= end <= freeze.until + GUARD_WAKES_S and node.startswith(f"{freeze.process}-")
            for freeze in self.history.frozen
        )

    # -- time --------------------------------------------------------------------------------------------------------

    def _calm_spells(self) -> Clocks | None:
        return Clocks(self) if self.history.plan.faults is GOOD else None

    def unserved(self, at: float, up: Container[str]) -> dict[bytes, str]:
        """What waits though there is a slot for it, on a node whose process is up. (Others may be members still.)"""
        members = {node: member for node, member in self._members.items() if node.rpartition("-")[0] in up}
        return self._slots.waiting(
            members, self._waiting, self._claims, self._unreadable, self._serial[0] if self._serial_is_idle() else b"",
            self._paused, _limits_of, (EPOCH_S + at) * 1000,
        )

    def _serial_is_idle(self) -> bool:
        return bool(self._serial) and not any(held.claim.queue == SERIAL for held in self._claims.values())

    def starved(self, at: float, up: Container[str]) -> dict[bytes, str]:
        """What waits of queues of which nothing runs, though there is a spare slot for it."""
        members = {node: member for node, member in self._members.items() if node.rpartition("-")[0] in up}
        claims = self._claims | self._unreadable
        return self._slots.starved(members, self._waiting, claims, self._paused, _limits_of)

    def take_run(self, run: Run) -> None:
        self._slots.take(run)

    def orphan(self) -> str | None:
        for key, held in self._claims.items():
            if held.node not in self._members:
                return key.decode()
        return None


def _limits_of(token: Token) -> Iterator[tuple[tuple[str, ...], int | None]]:
    for what in ((token.task,), (token.task, token.key), ("queue", token.queue)):
        yield what, _limit_of(what)


def _limit_of(what: tuple[str, ...]) -> int | None:
    """How many jobs of a task, of a task with a key, or of a queue may be claimed."""
    match what:
        case ("queue", name):
            settings = QUEUE_RECORDS.get(name)
            return settings.max_concurrency if settings is not None else None
        case (task,):
            return TASKS[task].max_concurrency
        case (task, key):
            return TASKS[task].max_per_key if key else None
    raise AssertionError(what)


def _bound_of(rule: str) -> float:
    return {"L10": STARVED_S_MAX, "L4": UNSERVED_S_MAX}.get(rule, RECOVERY_S_MAX)


class Clocks:
    """L2 and L4: how long an orphan lies, or a job waits for nothing, while the master and all nodes are well. Any
    disturbance (somebody is cut off, leaves or dies; another master) starts the clocks again."""

    def __init__(self, conduct: Conduct) -> None:
        self._conduct = conduct
        history = conduct.history
        self._happenings: Iterator[Spell | Run] = merge(history.spells, history.runs, key=lambda what: what.at)
        self._next = next(self._happenings, None)
        self._states: dict[str, str] = {}
        self._master = ""
        self._since: dict[tuple[str, bytes], float] = {}        # (rule, key) -> since when
        self._what: dict[tuple[str, bytes], str] = {}
        self._said: set[tuple[str, bytes]] = set()

    def until(self, now: float) -> None:
        """Nothing was written until now: what held then has held all the time, unless something else has happened."""
        while self._next is not None and self._next.at <= now:
            self._check(self._next.at)
            if isinstance(self._next, Run):
                self._conduct.take_run(self._next)
                self._look(self._next.at)
            else:
                self._states[self._next.process] = self._next.state
                self._since = dict.fromkeys(self._since, self._next.at)
            self._next = next(self._happenings, None)
        self._check(now)

    def see(self, entry: Entry) -> None:
        if self._conduct.master != self._master:
            self._master = self._conduct.master
            self._since = {}
        self._look(entry.at)

    def _look(self, at: float) -> None:
        orphan = self._conduct.orphan()
        up = [process for process, state in self._states.items() if state == "up"]
        now = {("L4", key): text for key, text in self._conduct.unserved(at, up).items()}
        now |= {("L10", key): text for key, text in self._conduct.starved(at, up).items()}
        if orphan is not None:
            now["L2", b""] = orphan
        self._since = {what: self._since.get(what, at) for what in now}
        self._what = now

    def _well(self) -> bool:
        master = self._master.partition("-")[0]
        return self._states.get(master) == "up" and "troubled" not in self._states.values()

    def _check(self, now: float) -> None:
        for what, since in self._since.items():
            if now - since > _bound_of(what[0]) and what not in self._said and self._well():
                self._said.add(what)
                self._conduct._say(what[0], f"for {now - since:.2f} s: {self._what[what]}; master {self._master}")


def conduct_of(history: History) -> Iterable[str]:
    return Conduct(history).judge()
