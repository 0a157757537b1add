"""The verdict on a run: one fold over the store's whole history, since revisions order everything (faults.md 5.2).

    S1  each job is in exactly one place, or has ended          S9   only the holder of a claim ends it
    S2  no job from nowhere                                     S10  one end per job, never changed
    S3  a bundle is enqueued once                               S11  attempts and losses count up, within bounds
    S4  one claim per bundle                                    S12  nothing runs without its claim
    S5  a master's write carries the fence of the elected       S13  each claim runs a job once at most
    S6  fences never decrease                                   S14  a job that ended well has run to its end
    S7  claims are for members                                  S16  nothing leaves `scheduled/` before it is due
    S8  only the dead lose claims to the master                 S18  leases only where they belong
    S19 nothing outside the cluster's roots                     S21  acknowledged means committed
    S22 each tick of a schedule makes one job (`ticks.py`)
    F1  what waits for other jobs is released when they have ended (`flows.py`); F3, F4: flows (`sections.py`)
    D1–D3 what jobs remember (`memories.py`); E1 when they expire (`expiry.py`)
    S20 what only a person may do, the master does for an operation that goes on
    R2  a token leaves its place guarded by what it was there   R7   a repeated write cannot apply twice

A bundle of level `delayed` brings its own claim along (S5), and may start before that is stored: such a start counts
for nothing unless the claim comes to be (S12). One of level `durable` may bring it along, too (`express.py`). Bundles
of level `none` do not appear at all (S2).

Feed it the journal of a `MemoryStore` (`feed`, as often as you like), then `finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

import msgspec

from rota.cluster.ledger.ledger import Condition, Put, Target, Txn
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.master.duties.takeover import LOSSES_MAX
from rota.cluster.state.keys import Keys, whole
from rota.cluster.state.records import Claim, Token

from .expiry import Expiries
from .flows import check_release, may_cancel
from .history import Actor, Job, Move, Order, Place, Step, World, whereabouts
from .memories import Doing, Memories
from .sections import SectionsSeen
from .ticks import Ticks
from .trust import HAND

LEASED = ("nodes/", "master/", "running/", "progress/", "rates/", "outboxes/", "express")
KEYS_PER_LEASE_MAX = 2_000


class Violation(msgspec.Struct, frozen=True):
    rule: str
    revision: int
    text: str

    def __str__(self) -> str:
        return f"{self.rule} at revision {self.revision}: {self.text}"


class Run(Protocol):
    """What a runner says: a job ("<bundle>/<index>") started or ended, under the claim that was created at `fence`."""

    @property
    def what(self) -> str:
        """"start", "end", "killed" or "crashed"."""
        ...

    @property
    def at(self) -> float:
        """On the store's clock."""
        ...

    @property
    def job(self) -> str: ...

    @property
    def node(self) -> str:
        """The identity it ran under, "" if that is not known."""
        ...

    @property
    def fence(self) -> int:
        """0: it began before its claim was stored, or has none."""
        ...

    @property
    def attempt(self) -> int: ...


class _Held(msgspec.Struct):
    """A claim, over its life."""

    place: Place
    jobs: set[Job]
    since: float
    until: float = float("inf")


class Checker:
    """Folds; collects violations. `wall_of` turns the store's clock into wall time; `due_skew_s` is by how much
    clocks may differ; `modes_change`: nodes do not all have the same code."""

    def __init__(
        self,
        cluster: str,
        *,
        wall_of: Callable[[float], float] | None = None,
        due_skew_s: float = 0.0,
        attempts_max: Callable[[str], int] | None = None,
        modes_change: bool = False,
    ) -> None:
        self.keys = Keys(cluster)
        self.world = World(self.keys)
        self.violations: list[Violation] = []
        self.revision = 0
        self.enqueued: dict[str, int] = {}      # bundle -> the revision that made it
        self.ended: dict[Job, str] = {}         # "ok", "failed", "cancelled", or "unknown" where no result is kept
        self.not_well: set[Job] = set()         # those that did not end well, once; a person may have revived them
        self.claims: dict[int, list[_Held]] = {}    # by create revision (one transaction makes many)
        self.own: dict[tuple[str, str], _Held] = {}     # (bundle, node): claims that an enqueue brought along
        self.again: dict[Job, list[float]] = {}     # when a person had it run again
        self.orphaned: dict[Job, list[tuple[float, str]]] = {}  # when which node that held it was lost
        self._left: dict[str, float] = {}           # node -> when its membership ended
        self._ended_ok: dict[Job, int] = {}         # the claim under which a job ended well
        self._open: dict[bytes, _Held] = {}
        self._fence = 0
        self._lease_keys: dict[int, int] = {}
        self._wall_of = wall_of
        self._due_skew_s = due_skew_s
        self._attempts_max = attempts_max
        self._modes_change = modes_change
        self.ticks = Ticks(self.keys, self._say)
        self.sections = SectionsSeen(self.keys, self._say)
        self.memories = Memories(self.keys, self._say)
        self.expiries = Expiries(self._say, wall_of or (lambda at: at), due_skew_s)

    def feed(self, journal: Iterable[Entry]) -> None:
        """Fold what has come since the last time. (Entries that were seen are passed over.)"""
        for entry in journal:
            if entry.revision > self.revision:
                self._step(entry)

    def finish(
        self,
        *,
        acked: Iterable[str] = (),
        acked_at: Mapping[str, int] | None = None,
        invoked: Iterable[str] | None = None,
        runs: Iterable[Run] = (),
        drained: bool = False,
        quiet: bool = False,
        orders: Mapping[str, Order] | None = None,
        betrayed: Collection[str] = (),
        doings: Iterable[Doing] = (),
    ) -> list[Violation]:
        """Judge what only shows at the end. `acked`: bundles whose enqueue was acknowledged, `acked_at`: at which
        revision; `invoked`: all bundles that clients tried; `drained`: everything must have ended; `quiet`: without
        faults and retries, so every job ran exactly once; `orders`: what clients asked for, by bundle; `betrayed`:
        nodes whose lease the store has dropped early; `doings`: what runs did by steps."""
        self._orders = orders or {}
        self._betrayed = betrayed
        self._check_clients(acked, acked_at or {}, invoked)
        self._check_levels()
        starts = self._check_runs(runs)
        self.memories.finish(doings, self.world.where, self.ended)
        for job in sorted(self._jobs()):
            if drained and job not in self.ended:
                places = whereabouts(self.world.where.get(job, {}).values())
                self._say("S1", f"job {_name(job)} has not ended: it is in {places}")
            if quiet and starts.get(job, 0) != 1:
                self._say("S13", f"job {_name(job)} was started {starts.get(job, 0)} times in a quiet run")
        return self.violations

    def _jobs(self) -> set[Job]:
        return set(self.ended) | set(self.world.where)

    def _say(self, rule: str, text: str) -> None:
        self.violations.append(Violation(rule, self.revision, text))

    # -- one revision ------------------------------------------------------------------------------------------------

    def _step(self, entry: Entry) -> None:
        self.revision = entry.revision
        if entry.writer == HAND:
            self.world.apply(entry)         # somebody has the store's password, and no manners
            return
        self._check_borders(entry)
        if not any(change.event.record.key.startswith((self.keys.root, self.keys.data)) for change in entry.changes):
            return
        members, master = dict(self.world.members), self.world.master()
        actor = Actor(self.keys, entry.txn)
        step = self.world.apply(entry)
        self._left.update((node, entry.at) for node in members if node not in self.world.members)
        self._check_fence(actor, master)
        fired = self.ticks.see(entry, actor)
        self.sections.see_first(entry)
        for before, after in step.changed:
            self._check_token(before, after, step, actor, members, master)
        for move in step.moves:
            self._check_move(move, step, actor, members, fired)
        for bundle in sorted(fired):
            if self.enqueued.get(bundle) != step.revision:
                self._say("S22", f"the tick of bundle {bundle} was fired once more")
        self.expiries.see(step)
        self.sections.see(entry, step, self.ended)
        self._check_records(step)
        self.memories.see(entry, self.world.where, self.ended)
        self._check_bodies(step)
        self._track_claims(step)

    def _check_borders(self, entry: Entry) -> None:
        """S18 and S19, and what a transaction wrote against what it was guarded by."""
        for change in entry.changes:
            record = change.event.record
            key = record.key
            if not key.startswith((self.keys.root, self.keys.data)):
                self._say("S19", f"{key!r} is outside the cluster's roots")
                continue
            if change.event.deleted:
                continue
            area = key.removeprefix(self.keys.root)
            must = area.startswith(tuple(name.encode() for name in LEASED))
            may = must or key.startswith(
                (self.keys.results, self.keys.receipts, self.keys.functions, self.keys.cancels,
                 self.keys.operations_ended, self.keys.logs, self.keys.flows_open, self.keys.flows_ended,
                 *((self.keys.uniques,) if b'"until":' in record.value else ()))
            )
            if bool(record.lease) != may:
                self._say("S18", f"{key!r} {'has a' if record.lease else 'lacks its'} lease")
            if record.lease and change.previous is None:
                self._lease_keys[record.lease] = self._lease_keys.get(record.lease, 0) + 1
                if self._lease_keys[record.lease] == KEYS_PER_LEASE_MAX + 1:
                    self._say("S18", f"over {KEYS_PER_LEASE_MAX} keys hang on lease {record.lease:x}")

    def _check_fence(self, actor: Actor, master: int) -> None:
        """S5 and S6 for every write under a fence (resigning is one)."""
        if not actor.fence:
            return
        if actor.fence != master:
            self._say("S5", f"a write carries fence {actor.fence}, the elected master's is {master or 'none'}")
        if actor.fence < self._fence:
            self._say("S6", f"fence {actor.fence} after fence {self._fence}")
        self._fence = max(self._fence, actor.fence)

    def _check_token(
        self, before: Place | None, after: Place | None, step: Step, actor: Actor, members: dict[str, int],
        master: int,
    ) -> None:
        if after is not None and after.kind == "claims" and before is None:
            claim = after.token
            own = after.bundle in step.receipts and after.node in actor.members
            if isinstance(claim, Claim) and claim.fence != (0 if own else master):
                self._say("S5", f"{after} carries fence {claim.fence}, the elected master's is {master or 'none'}")
            if not actor.fence and not own:
                self._say("S5", f"claim {after} was created without a fence")
            if after.node not in members or after.node not in self.world.members:
                self._say("S7", f"claim {after} is for {after.node}, which is no member")
        if before is None:
            return
        if before.kind == "claims":
            self._check_holder(before, after, actor, members)
        elif not actor.fence and not _is_member(actor, members):
            self._say("S9", f"{before} was changed by neither the master nor a member")
        if (after is None or before.kind != "claims") and not actor.names(before):
            self._say("R2", f"{before} left its place, and nothing guarded it")
        if after is not None and _can_repeat(before, after, step.entry.txn):
            self._say("R7", f"{before} was rewritten by a transaction whose late twin would apply again")

    def _check_holder(self, before: Place, after: Place | None, actor: Actor, members: dict[str, int]) -> None:
        """S8 and S9: a claim is changed by its node, or by the master once the node is gone."""
        by_node = before.node in actor.members
        if by_node:
            if actor.members[before.node] != members.get(before.node):
                self._say("S9", f"{before} was changed by an earlier {before.node}")
            if not actor.names(before):
                self._say("S9", f"{before} was changed without being guarded by this claim")
        elif actor.fence:
            if before.node in members:
                self._say("S8", f"{before} was taken from {before.node}, which is a member")
        else:
            self._say("S9", f"{before} was changed by neither its node nor the master")
        if after is not None and after.create_revision != before.create_revision:
            self._say("R2", f"{before} was replaced in one revision")

    # -- jobs --------------------------------------------------------------------------------------------------------

    def _check_move(
        self, move: Move, step: Step, actor: Actor, members: dict[str, int], fired: Collection[str]
    ) -> None:
        job, name = move.job, _name(move.job)
        if len(move.after) > 1:
            twice = sum(place.kind == "claims" for place in move.after) > 1
            self._say("S4" if twice else "S1", f"job {name} is in {whereabouts(move.after)}")
        if move.after and not move.before:
            self._check_arrival(job, move.after[0], step, actor, fired)
        elif move.before and not move.after:
            self._check_end(job, move.before[0], step, actor)
        elif len(move.before) == len(move.after) == 1:
            self._check_way(job, name, move.before[0], move.after[0], step, actor)

    def _check_person(self, what: str, actor: Actor) -> None:
        """S20: the write of a master that nothing but a person's wish explains."""
        if actor.fence and not actor.operation:
            self._say("S20", f"{what}, by the master, and no operation that goes on says so")

    def _check_arrival(self, job: Job, place: Place, step: Step, actor: Actor, fired: Collection[str]) -> None:
        """S2, S3 and S10: a job comes to be by its enqueue, or a tick, once (or again by a person, from the failed
        set)."""
        bundle, name = job[0], _name(job)
        made = self.enqueued.get(bundle)
        if made is not None and made != step.revision and bundle in step.receipts:
            self._say("S3", f"bundle {bundle} was enqueued at {made} and again: {place}")
        elif job in self.ended:
            if job not in step.unfailed:
                self._say("S10", f"job {name} had ended ({self.ended[job]}) and is back in {place}")
            self._check_person(f"job {name} was retried", actor)
            self.again.setdefault(job, []).append(step.entry.at)
            del self.ended[job]
            return
        elif made is None and (bundle in step.receipts or bundle in fired):
            self.enqueued[bundle] = step.revision
        elif made != step.revision:
            self._say("S2", f"job {name} appeared in {place} without an enqueue")
        if place.token is not None and place.token.attempt != 1:
            self._say("S11", f"job {name} begins with attempt {place.token.attempt}")

    def _check_end(self, job: Job, place: Place, step: Step, actor: Actor) -> None:
        """S1, S9 and S10: a job leaves by an outcome of its claim, or into the failed set."""
        name = _name(job)
        if job in self.ended:
            self._say("S10", f"job {name} ended twice")
        status = step.results.get(job)
        failed = step.failed.get(job)
        if failed is None and status in (None, "failed"):       # (another piece of its bundle may be set aside)
            failed = step.quarantined(job[0])
        if failed is not None and status not in (None, "failed"):
            self._say("S10", f"job {name} is failed and {status} at once")
        held = place.kind == "claims" and place.node in actor.members
        cancelled = place.kind != "claims" and status == "cancelled"
        expired = place.kind != "claims" and status == "expired" and bool(actor.fence)
        held = held or cancelled or expired
        if cancelled and not may_cancel(self.not_well, place):
            self._check_person(f"job {name} was cancelled", actor)
        given_up = bool(actor.fence) and status is None and self.sections.is_given_up(place)
        if not held and failed is None and not given_up:
            self._say("S1", f"job {name} is gone from {place}, and nothing says why")
        if status == "failed" and failed is None:
            self._say("S1", f"job {name} failed, but is not in the failed set")
        self.ended[job] = status or ("failed" if failed else "unknown")
        if self.ended[job] not in ("ok", "unknown"):
            self.not_well.add(job)
        if status == "ok":
            self._ended_ok[job] = place.create_revision

    def _check_way(self, job: Job, name: str, before: Place, after: Place, step: Step, actor: Actor) -> None:
        """S11: what a token says may only change as its way allows. S16: nothing is early."""
        old, new = before.token, after.token
        if old is None or new is None:
            return
        way = f"{before.kind} to {after.kind}"
        if before.kind == "awaiting" and after.kind != "awaiting":
            now_ms = (self._wall_of(step.entry.at) + self._due_skew_s) * 1000 if self._wall_of is not None else 0.0
            check_release(self.ended, self.not_well, name, before, self._say, now_ms)
            self.sections.check_leaves(name, before)
            if not actor.fence:
                self._say("F1", f"job {name} was released, and not by a master")
        if way in (
            "scheduled to claims", "jobs to scheduled", "awaiting to claims", "jobs to awaiting",
            "scheduled to awaiting",
        ) or (
            way == "claims to claims" and before.node != after.node
        ):
            self._say("S1", f"job {name} went from {before} to {after}")
        taken = before.kind == "claims" and after.kind != "claims" and before.node not in actor.members
        retried = not taken and (
            way == "claims to scheduled" or (way == "claims to jobs" and isinstance(old, Claim) and old.serial)
        )
        person = not actor.fence or bool(actor.operation)
        afresh = way == "jobs to jobs" and new.attempt == 1 and person
        if not (new.attempt == old.attempt or (retried and new.attempt == old.attempt + 1) or afresh):
            self._say("S11", f"job {name}: attempt {old.attempt} became {new.attempt} from {way}")
        if self._attempts_max is not None and new.attempt > self._attempts_max(new.task):
            self._say("S11", f"job {name} is at attempt {new.attempt} of {self._attempts_max(new.task)}")
        if afresh and (old.attempt, old.blocked, old.not_before) != (1, new.blocked, new.not_before):
            self.again.setdefault(job, []).append(step.entry.at)
        blocked = isinstance(old, Claim) and old.serial and new.blocked     # lost for good: it is not run again
        orphaned = taken and not blocked
        if taken:
            self.orphaned.setdefault(job, []).append((self._left.get(before.node, step.entry.at), before.node))
        lost = old.lost + (orphaned and isinstance(old, Claim) and old.started)
        if (new.orphanings, new.lost) != (old.orphanings + orphaned, lost):
            self._say("S11", f"job {name}: {old.orphanings} orphanings and {old.lost} losses became "
                             f"{new.orphanings} and {new.lost} from {way}")
        if new.lost >= LOSSES_MAX:
            self._say("S11", f"job {name} was lost {new.lost} times and is not in the failed set")
        if self._identity(old) != self._identity(new):
            self._say("S11", f"job {name}: its task, queue, priority or mode changed from {way}")
        if old.order != new.order and way not in ("scheduled to jobs", "awaiting to jobs", "awaiting to scheduled"):
            self._say("S11", f"job {name}: its order changed from {way}")
        if way == "scheduled to jobs" and self._wall_of is not None:
            early_s = before.due_ms / 1000 - self._wall_of(step.entry.at)
            if early_s > self._due_skew_s:
                self._say("S16", f"job {name} left {before} {early_s:.3f} s before it was due")

    def _identity(self, token: Token) -> tuple[object, ...]:
        """(Where nodes have different code, the mode is that of whoever runs it; but not of code that is shipped.)"""
        mode = token.mode if token.function or not self._modes_change else ""
        return token.task, token.queue, token.priority, mode, token.at, token.python, token.function

    def _check_records(self, step: Step) -> None:
        """S3 and S10 for what is written beside the tokens."""
        ending = {move.job for move in step.moves if move.before and not move.after}
        for job, status in step.results.items():
            if job not in ending:
                self._say("S10", f"a result ({status}) of job {_name(job)}, which did not end here")
        for job, record in step.failed.items():
            if record.reason == "volatile" and job not in ending:
                self.ended[job] = "failed"      # of level `none`: it was nowhere, and is kept from here on
            if job not in ending and record.reason == "error":
                self._say("S10", f"a failed record of job {_name(job)}, which did not end here")
        for key in step.overwritten:
            self._say("S10", f"{key!r} was written before")
        for bundle in step.receipts:
            if self.enqueued.get(bundle) != step.revision:
                self._say("S3", f"a receipt of bundle {bundle}, which was not enqueued here")

    def _check_bodies(self, step: Step) -> None:
        """A token has its body, and a body its token (or somebody has to look at it)."""
        for bundle in step.bundles:
            places = [place for place in self.world.tokens.get(bundle, {}).values() if place.token is not None]
            if places and bundle not in self.world.bodies:
                self._say("S1", f"{whereabouts(places)} has no body")
            if not places and bundle in self.world.bodies and step.quarantined(whole(bundle)) is None:
                self._say("S1", f"the body of {bundle} was left behind")

    # -- claims and runs ---------------------------------------------------------------------------------------------

    def _track_claims(self, step: Step) -> None:
        for before, after in step.changed:
            if before is not None and before.kind == "claims" and before.key in self._open and (
                after is None or after.create_revision != before.create_revision
            ):
                self._open.pop(before.key).until = step.entry.at
            if after is not None and after.kind == "claims" and after.key not in self._open:
                held = _Held(after, set(), step.entry.at)
                self._open[after.key] = held
                if after.bundle in step.receipts:
                    self.own[after.bundle, after.node] = held
                self.claims.setdefault(after.create_revision, []).append(held)
        for move in step.moves:
            for place in move.after:
                if place.key in self._open:
                    self._open[place.key].jobs.add(move.job)

    def _check_clients(
        self, acked: Iterable[str], acked_at: Mapping[str, int], invoked: Iterable[str] | None
    ) -> None:
        for bundle in sorted({*acked, *acked_at} - set(self.enqueued)):
            self._say("S1", f"bundle {bundle} was acknowledged and is not there")
        for bundle, revision in acked_at.items():
            if self.enqueued.get(bundle, 0) > revision:
                self._say("S21", f"bundle {bundle} was acknowledged at {revision}: {self.enqueued[bundle]} made it")
        if invoked is not None:
            for bundle in sorted(set(self.enqueued) - set(invoked)):
                self._say("S2", f"bundle {bundle} was enqueued by nobody")

    def _check_levels(self) -> None:
        """S2 and S21: what is stored is what was asked to be, and what was refused is not. (Which enqueues bring their
        own claim along: `codes.py`, `express.py`.)"""
        for bundle, order in self._orders.items():
            made = self.enqueued.get(bundle, 0)
            if made and order.level == "none":
                self._say("S2", f"bundle {bundle} was to be kept in memory only, and was stored at {made}")
            if 0 < made <= order.refused_at:
                self._say("S21", f"bundle {bundle} was refused, and had been stored at {made}")

    def _check_runs(self, runs: Iterable[Run]) -> dict[Job, int]:
        """S11 to S14; returns how often each job was started."""
        starts: dict[Job, int] = {}
        seen: dict[tuple[str, int, str], int] = {}
        finished: set[tuple[Job, int]] = set()
        for run in runs:
            bundle, _, index = run.job.partition("/")
            job = (bundle, int(index))
            held = self._claim_of(job, run)
            claim = held.place.create_revision if held is not None else run.fence
            if run.what == "end":
                finished.add((job, claim))
            elif run.what == "crashed":
                seen[run.job, claim, run.node] -= 1         # its runner died, of whomever: it begins again
            elif run.what == "killed":
                order = self._orders.get(bundle)
                if (bundle, run.node) in self.own and order is not None and order.level == "delayed":
                    seen[run.job, claim, run.node] = 0      # what is stored after all begins again
            else:
                starts[job] = starts.get(job, 0) + 1
                self._check_start(job, run, held)
                times = seen[run.job, claim, run.node] = seen.get((run.job, claim, run.node), 0) + 1
                if times > self._starts_max(bundle, run, held):
                    self._say("S13", f"job {run.job} was started {times} times under one claim ({claim})")
        if starts:
            for job, fence in self._ended_ok.items():
                if (job, fence) not in finished:
                    self._say("S14", f"job {_name(job)} ended well, but has not run to its end under claim {fence}")
        return starts

    def _claim_of(self, job: Job, run: Run) -> _Held | None:
        """The claim a run belongs to. One that began before its claim was stored belongs to it if it came to be."""
        if not run.fence:
            held = self.own.get((job[0], run.node))
            return held if held is not None and job in held.jobs else None
        return next((held for held in self.claims.get(run.fence, ()) if job in held.jobs), None)

    def _check_start(self, job: Job, run: Run, held: _Held | None) -> None:
        """S12: nothing runs without its claim; of level `delayed`, nothing runs but where its client asked for it. And
        S11: a run is the attempt that its claim says."""
        order = self._orders.get(job[0])
        where = f"job {run.job} (claim {run.fence}) was started at {run.at:.3f} s on {run.node or 'a node'}"
        if not run.fence and order is not None and order.level != "durable":
            asked = order.asked.get(run.node.partition("-")[0])
            if asked is None or run.at < asked or (held is not None and run.at > held.until):
                self._say("S12", f"{where} without having been asked for there, or after its end")
        elif held is None or held.since > run.at or (run.node and held.place.node != run.node):
            self._say("S12", f"{where} without its claim")
        elif run.at > held.until and run.node not in self._betrayed:
            self._say("S12", f"{where} after the end of its claim, at {held.until:.3f} s")
        if held is not None and held.place.token is not None and held.place.token.attempt != run.attempt:
            self._say("S11", f"{where} as attempt {run.attempt}, and is at {held.place.token.attempt}")

    def _starts_max(self, bundle: str, run: Run, held: _Held | None) -> int:
        """Once under a claim. Where none came to be the node may be asked again if it said that it could not."""
        order = self._orders.get(bundle)
        if held is not None or order is None:
            return 1
        if order.level == "none":
            return run.attempt
        return 1 + order.overloads.get(run.node.partition("-")[0], 0)


def _can_repeat(before: Place, after: Place, txn: Txn | None) -> bool:
    """Whether the transaction that rewrote a token would do so again: no condition on the token fails now. A repeat
    that says the same, or only that a start is due, does no harm."""
    if txn is None or before.token == after.token:
        return False
    if isinstance(before.token, Claim) and msgspec.structs.replace(before.token, started=True) == after.token:
        return False
    conditions = [condition for condition in txn.conditions if condition.key == before.key]
    return all(_still_holds(condition, after) for condition in conditions) and any(
        isinstance(op, Put) and op.key == before.key for op in txn.then
    )


def _still_holds(condition: Condition, place: Place) -> bool:
    if condition.is_ != "==":
        return False
    if condition.target is Target.MOD:
        return condition.operand == place.mod_revision
    return condition.target is Target.CREATE and condition.operand == place.create_revision


def _is_member(actor: Actor, members: dict[str, int]) -> bool:
    """A member acts for a person: it takes back, skips, or retries what waits."""
    return any(members.get(node) == revision for node, revision in actor.members.items())


def _name(job: Job) -> str:
    return f"{job[0]}/{job[1]}"
