"""What a node tells about its cluster, for people and programs: the JSON of the HTTP port, the tables of the CLI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from ..model import Mode, OnFull, OnUpstream, Parameter, ScheduleInfo, StepKind

Place = Literal[
    "waiting", "blocked", "retrying", "scheduled", "awaiting", "claimed", "running", "failed", "finished", "unknown"
]
"""`blocked`: the head of a serial queue that failed for good, for which all behind it wait. `retrying`: it failed, and
is tried again later. `awaiting`: it waits for other jobs to end. `claimed`: a node has it, but has not begun it (or
just has)."""


PLACES: tuple[Place, ...] = (
    "running", "claimed", "waiting", "blocked", "retrying", "scheduled", "awaiting", "failed", "finished"
)
"""Where jobs can be listed, in the order of the list."""


class AttemptView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt of a job: where it ran, from when to when (seconds since 1970; None: not known, or it goes on), and
    how it ended, in one line. One that was lost with its node, or interrupted, is made again under its number."""

    attempt: int
    node: str
    began_at: float | None = None
    ended_at: float | None = None
    outcome: str = ""


class ProgressView(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a job is, as it said with `rota.progress`: `done` of `total` (None: not known), and a note. `at`: when,
    in seconds since 1970."""

    done: float
    total: float | None = None
    note: str = ""
    at: float = 0.0

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None where the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None


class StepView(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a job remembers: a step that it has done, from when to when (seconds since 1970), or a sleep, until when."""

    name: str
    kind: StepKind = "step"
    began_at: float = 0.0
    ended_at: float = 0.0
    bytes: int = 0


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """One line of a job's log. `at`: seconds since 1970; `level`: as `logging` names it."""

    at: float
    level: str
    text: str


class LogView(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a job's log (`keep_log`): the last lines of the last attempt that wrote any. `dropped`: how many
    came before them."""

    lines: list[LogLine] = []
    attempt: int = 0
    dropped: int = 0


EventKind = Literal["state", "progress", "log"]


class JobEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """News of a job. kind "state": `place`, `attempt`, `node` and `why` say where it is now; "progress": `progress`;
    "log": `line`. `at`: seconds since 1970."""

    kind: EventKind
    at: float
    place: Place = "unknown"
    attempt: int = 0
    node: str = ""
    why: str = ""
    progress: ProgressView | None = None
    line: LogLine | None = None


class EventsPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """News of a job. `next`: what to go on after; `over`: it has ended, nothing more comes."""

    events: list[JobEvent] = []
    next: str = ""
    over: bool = False


class JobView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a job is, and why it waits there (`why`, one sentence). `history` has its attempts, the last ten, the one
    that runs at the end. `enqueued_at` of one at the place `unknown`: it is stored, and moves now."""

    id: str
    place: Place
    task: str = ""
    queue: str = ""
    attempt: int = 0
    node: str = ""
    why: str = ""
    due: float | None = None
    enqueued_at: float | None = None
    finished_at: float | None = None
    error: str = ""
    traceback: str = ""
    began_at: float | None = None
    history: list[AttemptView] = []
    progress: ProgressView | None = None
    steps: list[StepView] = []


class JobsFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which jobs of a list, beyond place, queue and task: those with a `key` (`max_per_key` counts by it), and those
    that require a `label` of their node (both told of jobs that have not ended); those of a time, in seconds since
    1970; None: any; and those whose task has `task_part` in its name, in whatever case."""

    key: str = ""
    since: float | None = None
    until: float | None = None
    label: str = ""
    task_part: str = ""

    def takes(self, view: JobView) -> bool:
        if self.task_part and self.task_part.lower() not in view.task.lower():
            return False
        if self.since is None and self.until is None:
            return True
        at = view.finished_at or view.enqueued_at or view.began_at
        if at is None:
            return False
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


ANY_JOB = JobsFilter()


class JobsPage(msgspec.Struct, frozen=True):
    """A part of a list of jobs. `next` is what to go on after, "" at the end. A part may be short, or empty, and the
    list go on: so much was looked through."""

    jobs: list[JobView]
    next: str = ""

    def __iter__(self) -> Iterator[JobView]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


class NodeView(msgspec.Struct, frozen=True, omit_defaults=True):
    node: str
    address: str
    state: str
    master: bool
    queues: list[str]
    tasks: list[str]
    capacity: dict[str, int]
    claims: int
    python: str
    version: str
    since: float
    keys: list[str] | None = None   # the marks of its signing keys (`id#fingerprint`), the one it signs with last
    labels: list[str] = []          # what it has, and tasks may require


class TaskView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task that some node has registered. `signature` is how it is called, as far as is known; `nodes` are those that
    know it now."""

    name: str
    mode: Mode
    queue: str
    signature: str = ""
    max_concurrency: int | None = None
    max_per_key: int | None = None
    nodes: list[str] = []
    parameters: tuple[Parameter, ...] | None = None
    rate: str | None = None
    rate_per_key: str | None = None
    requires: tuple[str, ...] = ()
    weight: int = 1


class QueueView(msgspec.Struct, frozen=True, omit_defaults=True):
    """`waiting`, `claimed` (a node runs them, or is about to), `scheduled`, `awaiting` (they wait for other jobs to
    end) and `failed` count jobs, `running` those that have run for a second; `exact` is False where counting stopped at
    a limit: then `at_least` names the counts that may be higher.
    `oldest_s` is the age of the job that has waited longest, in seconds. `blocked` is the id of the job that blocks a
    serial queue, `why` what it failed of and what a person can do."""

    queue: str
    waiting: int = 0
    claimed: int = 0
    scheduled: int = 0
    failed: int = 0
    oldest_s: float | None = None
    exact: bool = True
    running: int = 0
    paused: bool = False
    serial: bool = False
    max_concurrency: int | None = None
    blocked: str = ""
    why: str = ""
    at_least: list[str] = []
    rate: str | None = None
    max_waiting: int | None = None
    on_full: OnFull = "refuse"
    awaiting: int = 0


class FailedView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job that failed for good. `reason` is "error" or what else went wrong; "blocked" is the head of a serial queue,
    which stays at its place until a person retries or skips it."""

    id: str
    task: str
    queue: str
    error: str
    attempts: int
    node: str
    failed_at: float
    reason: str = "error"
    traceback: str = ""


class FinishedView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job that ended well and is kept, as its task or enqueue asks for (`keep_finished`)."""

    id: str
    task: str
    queue: str
    attempts: int
    node: str
    finished_at: float
    enqueued_at: float | None = None


class FailedFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which jobs of the failed set: all that fit every field given. `error` is a part of the error's text. `all` must
    be said where no field is."""

    ids: list[str] = []
    queue: str = ""
    task: str = ""
    error: str = ""
    all: bool = False

    @property
    def words(self) -> str:
        """As a person would say it."""
        if self.all:
            return "all"
        parts = [f"{len(self.ids):,} named jobs"] if len(self.ids) > 1 else [f"job {job}" for job in self.ids]
        filters = {"queue": self.queue, "task": self.task, "error": self.error}
        return ", ".join(parts + [f"{name} {value!r}" for name, value in filters.items() if value])


Verb = Literal["retry", "delete", "empty", "cancel"]
OperationState = Literal["waiting", "running", "done", "refused"]


class OperationView(msgspec.Struct, frozen=True):
    """A bulk operation: something that is done to many jobs, one after the other, by the master. It goes on whatever
    becomes of who asked for it, and of that master.

    `what` says in words which jobs. Of `total` jobs (as it began) `count` are done so far; `left` could not be done,
    and are where they were. What came into the cluster after its start is not its affair. `state` is "waiting" (for the
    master, or for operations before it), "running", "done", or "refused": nothing was done, and `why` says why not."""

    id: str
    verb: Verb
    what: str
    state: OperationState
    count: int = 0
    total: int = 0
    left: int = 0
    why: str = ""
    node: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "refused")


class QueueSettings(msgspec.Struct, frozen=True):
    """`max_concurrency`, `max_waiting` None: no limit."""

    paused: bool
    serial: bool
    max_concurrency: int | None
    rate: str | None = None
    max_waiting: int | None = None
    on_full: OnFull = "refuse"


class StatsView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Totals over the cluster; rates are those of the answering node, over the last ten seconds. `at_least` names the
    totals that may be higher: counting stopped at a limit."""

    revision: int
    master: str
    nodes: int
    waiting: int
    claimed: int
    scheduled: int
    failed: int
    oldest_s: float | None
    enqueued_per_s: float
    finished_per_s: float
    at_least: list[str] = []
    awaiting: int = 0


class ScheduleView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule. Moments are seconds since 1970. `when` is its timetable in words; `next` is None for one that is
    paused or never due again. `stale`: code declared it, and no node's code does now; it goes on until it is deleted.
    `last_place` is where the job of the last tick is (see `JobView`); "unknown" if it has ended and left nothing."""

    name: str
    task: str
    queue: str
    when: str
    cron: str = ""
    tz: str = ""
    every_s: float = 0.0
    next: float | None = None
    last: float | None = None
    last_job: str = ""
    last_place: str = ""
    paused: bool = False
    declared: bool = False
    stale: bool = False
    catch_up: str = "latest"
    overlap: str = "allow"
    jitter_s: float = 0.0
    priority: int = 0
    fired: int = 0
    skipped: int = 0
    pending: int = 0


class NewSchedule(ScheduleInfo, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A schedule as it is put. `template`: the signed body that its jobs are made of."""

    template: bytes
    declared: bool = False


FlowState = Literal["running", "stuck", "done", "failed"]
FlowJobState = Literal["awaiting", "waiting", "claimed", "running", "ok", "failed", "cancelled"]
FLOW_JOB_STATES: tuple[FlowJobState, ...] = ("ok", "running", "claimed", "waiting", "awaiting", "failed", "cancelled")


class FlowPartView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Jobs of a flow that are alike: of one task and queue, which wait for the same jobs. `states`: one for each.
    `after`: the parts (places in the flow's list) that it waits for."""

    task: str
    queue: str
    ids: list[str]
    states: list[FlowJobState]
    after: list[int] = []
    on_upstream: OnUpstream = "block"


class FlowView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A flow. `state`: "running"; "stuck": jobs of it have failed, and nothing can go on before a person retries or
    deletes them; "done": all of its jobs have ended well; "failed": all have ended, some of them not well. `counts`:
    jobs by state. `parts`: in the order of their enqueues, without what was not asked for."""

    id: str
    name: str
    state: FlowState
    jobs: int
    started_at: float
    ended_at: float | None = None
    counts: dict[str, int] = {}
    parts: list[FlowPartView] = []
    last: list[str] = []
    """The jobs that none of the others waits for, in order."""
    failed: list[str] = []
    """The first of those in the failed set."""

    @property
    def is_over(self) -> bool:
        """Whether all of its jobs have ended."""
        return self.ended_at is not None


class FlowsPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of the list of flows, the newest first. `next`: what to go on after; "": at the end."""

    flows: list[FlowView]
    next: str = ""


class FlowDone(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one call of cancel or retry. `left`: jobs that it has not come to: ask again."""

    done: int = 0
    asked: int = 0
    left: int = 0


class FlowResults(msgspec.Struct, frozen=True, omit_defaults=True):
    """Signed results, by bundle (MessagePack, not JSON). `next`: what to go on after; "": at the end."""

    results: list[tuple[str, bytes]]
    next: str = ""
class TurnAsked(msgspec.Struct, frozen=True):
    """What a relay says when it asks for its turn, or leaves it. Counts are for people: rows that wait and that were
    set aside, those it has moved, and when the oldest that waits was written (ms since 1970)."""

    holder: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    leave: bool = False
    moved: Annotated[int, msgspec.Meta(ge=0)] = 0
    waiting: Annotated[int, msgspec.Meta(ge=0)] = 0
    aside: Annotated[int, msgspec.Meta(ge=0)] = 0
    oldest_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


class OutboxTurn(msgspec.Struct, frozen=True):
    """Whose turn it is to move the rows of an outbox. If it is `yours`, for so many seconds from when it was asked for,
    unless it is asked for again."""

    yours: bool
    holder: str
    ttl_s: float


class OutboxView(msgspec.Struct, frozen=True):
    """An outbox that has a relay now, as that told a few seconds ago. Times in seconds since 1970."""

    name: str
    relay: str
    since: float
    moved: int
    waiting: int
    aside: int
    oldest: float | None
