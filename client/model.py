"""Values that travel: what client, node and runner must agree on. No I/O, no behaviour beyond encoding.

Stored forms carry a schema number `v`; a reader takes its own and the one before, and skips fields it does not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes that are no record: anybody may have written them."""

JOBS_PER_BUNDLE_MAX = 480
"""What is done to so many one by one does not fit a transaction of 128 operations: it goes in levels (decision 35)."""

JOBS_PER_BUNDLE = 60
"""Of small calls, so that their work spreads over the nodes; and all that releases before 35 can read."""

BUNDLE_BYTES_MAX = 256 * 1024
"""Payload bytes of one bundle, and so of one job."""

PRIORITY_MIN, PRIORITY_MAX = -100, 100
DURATION_S_MAX = 100 * 365 * 86_400.0
ATTEMPTS_MAX = 1_000_000
WEIGHT_MAX = 10_000
LABELS_MAX = 100
LOG_LINES_MAX = 1_000
"""Log lines that are kept of one job, the last ones."""

Text: TypeAlias = Annotated[str, Meta(max_length=256)]
Moment: TypeAlias = Annotated[float, Meta(ge=0, le=1e12)]               # seconds since 1970
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=DURATION_S_MAX)]
"""Fields of what is stored say what they may be: a decoder refuses what is out of range (and NaN)."""

Mode = Literal["async", "sync"]
Level = Literal["durable", "delayed", "none"]
Codec = Literal["pickle", "cloudpickle", "json"]
OnFull = Literal["refuse", "wait"]
ON_FULLS: tuple[OnFull, ...] = ("refuse", "wait")
OnOrphan = Literal["requeue", "fail"]
ON_ORPHANS: tuple[OnOrphan, ...] = ("requeue", "fail")


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one enqueue may say beyond its task's own options. None: as the task says."""

    max_attempts: Annotated[int, Meta(ge=1, le=ATTEMPTS_MAX)] | None = None
    timeout_s: Seconds | None = None
    keep_result_s: Seconds | None = None
    keep_finished_s: Seconds | None = None
    backoff_base_s: Seconds | None = None
    backoff_cap_s: Seconds | None = None
    retry_delays_s: tuple[Seconds, ...] = ()      # after attempt 1, 2, …; the last one after all further attempts
    keep_log: Annotated[int, Meta(ge=0, le=LOG_LINES_MAX)] | None = None


NO_OPTIONS = Options()


HEADER_SCHEMA = 2
"""Of what is enqueued job by job: a header says priority, key and delay, too, and its tags cover them."""

HEADER_SCHEMA_MAX = 3
"""Of a bundle that is signed as a whole, for a cluster of which each node can read that (decision 38)."""


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """The head of a body. `indexes` are the jobs it holds (of the bundle as enqueued), `sizes` their payload bytes,
    `tags` their signatures, 16 bytes each, or of all together; b"" if unsigned."""

    bundle: Text
    task: Text
    queue: Text
    mode: Mode
    indexes: list[int]
    sizes: list[int]
    enqueued_at: Moment
    codec: Codec = "pickle"
    python: Text = ""           # "3.11" if the payload can only be read there (cloudpickled code)
    function: Text = ""          # sha256 of code shipped by value, below functions/
    options: Options = Options()
    key_id: Text = ""
    tags: bytes = b""
    v: int = 1                  # what the release before left away; what is written now says `HEADER_SCHEMA` or its max
    priority: Annotated[int, Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)] = 0
    key: Text = ""              # what its task's limit per key is counted by
    delay_s: Seconds = 0.0
    flow: Text = ""             # the flow that it belongs to
    only: list[int] = []        # of a bundle signed as a whole that could not be cut for want of its key: who is meant

    @property
    def signed_whole(self) -> bool:
        """Whether `tags` is one signature of all its jobs."""
        return self.v > HEADER_SCHEMA


class Rate(msgspec.Struct, frozen=True, omit_defaults=True):
    """`count` jobs may begin in `per_s` seconds, and `burst` at once when none has for long."""

    count: Annotated[int, Meta(ge=1, le=1_000_000)]
    per_s: Annotated[float, Meta(gt=0, le=31 * 86_400.0)]
    burst: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


class ScheduleInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a schedule fires, and how: what `@task(cron=…)` declares, and what is put at run time."""

    cron: str | None = None
    tz: str | None = None
    every_s: float | None = None
    jitter_s: float = 0.0
    catch_up: str = "latest"
    overlap: str = "allow"
    priority: int = 0


class Parameter(msgspec.Struct, frozen=True, array_like=True):
    """One of a task's parameters. `kind`: as Python counts them (`inspect.Parameter.kind`)."""

    name: Text
    kind: Annotated[int, Meta(ge=0, le=4)]
    required: bool


class TaskInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a runner tells of a task it knows. `retry` is what the node needs to retry a job whose runner died."""

    name: str
    mode: Mode
    queue: str = "default"
    max_attempts: int = 5
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 3600.0
    timeout_s: float | None = None
    keep_result_s: float = 3600.0
    keep_finished_s: float | None = None    # None: as its node says
    cancel_grace_s: float = 2.0
    max_concurrency: int | None = None      # jobs at a time in the whole cluster
    max_per_key: int | None = None          # of them, with equal keys
    on_orphan: OnOrphan = "requeue"
    requeue_delay_s: float = 0.0
    parameters: tuple[Parameter, ...] | None = None     # None: not known
    schedule: ScheduleInfo | None = None
    keep_log: int = 0                       # lines of a job's log that are kept with it
    rate: Rate | None = None                # of its jobs in the whole cluster
    rate_per_key: Rate | None = None        # of those with equal keys
    requires: tuple[str, ...] = ()          # labels that a node must have to run it
    weight: int = 1                         # slots that one of its jobs takes
    batch: int = 0                          # its function gets up to so many jobs at once; 0: one
    batch_wait_s: float = 0.0               # how long the first of them waits for more


class QueueInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a runner tells of a queue that its app declares. None: not said."""

    name: str
    serial: bool | None = None
    max_concurrency: int | None = None
    rate: str | None = None
    max_waiting: int | None = None
    on_full: OnFull | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it says something of."""
        settings = {
            "serial": self.serial, "max_concurrency": self.max_concurrency, "rate": self.rate,
            "max_waiting": self.max_waiting, "on_full": self.on_full,
        }
        return {name: value for name, value in settings.items() if value is not None}


Status = Literal["ok", "failed", "retry", "snooze", "sleep", "wait", "cancelled", "expired"]
"""`sleep` and `wait`: it has given its slot back, and goes on later, when so much time is over or other jobs have
ended (`value`: which)."""


EXPIRED = "it had not begun by the time that its enqueue or its task said"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """How one run of one job ended. `value` is the pickled result; `error` one line, `traceback` text."""

    index: int
    status: Status
    value: bytes = b""
    error: str = ""
    traceback: str = ""
    delay_s: float = 0.0        # retry, snooze: how long to wait
    codec: Codec = "pickle"     # of `value`
    ran_s: float = 0.0          # how long the attempt took; 0 where it did not run, or its runner did not live to say


class ResultEntry(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """One job's terminal outcome as stored below results/ and pushed to who waits. Signed by the node."""

    index: int
    status: Literal["ok", "failed", "cancelled", "expired"]
    value: bytes = b""
    error: str = ""
    traceback: str = ""
    attempts: int = 1
    codec: Codec = "pickle"
    tag: bytes = b""


STEPS_MAX = 1_000
STEPS_BYTES_MAX = 1024 * 1024
"""Of one job: what is remembered of it."""

StepKind = Literal["step", "sleep", "wait"]


class Step(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """What a job remembers: what a step returned; or, of a sleep or of a wait for other jobs, until when it lasts at
    the most (`ended_ms`)."""

    name: Text
    value: bytes = b""
    codec: Codec = "pickle"
    began_ms: Annotated[int, Meta(ge=0, le=2**53)] = 0
    ended_ms: Annotated[int, Meta(ge=0, le=2**53)] = 0
    kind: StepKind = "step"


class Past(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """An attempt that is over. Times in ms since 1970; `began_ms` 0: that is not known, for it took less than a second,
    or its node is lost. `how` it ended, one line."""

    attempt: Annotated[int, Meta(ge=0, le=2 * ATTEMPTS_MAX)]
    node: Text
    began_ms: Annotated[int, Meta(ge=0, le=2**53)]
    ended_ms: Annotated[int, Meta(ge=0, le=2**53)]
    how: Text


PAST_MAX = 10
"""Attempts that are remembered of a job, the last ones."""

History: TypeAlias = Annotated[tuple[Past, ...], Meta(max_length=PAST_MAX)]


RESULTS_SCHEMA_MAX = 2
"""Of results that are signed together: of bundles that are signed as a whole."""


class Results(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Outcomes of some jobs of a bundle. What is beside the entries is to be shown to people; it is not signed. Each
    entry has a signature, or (`v` 2) `tag` is that of all."""

    bundle: str
    entries: list[ResultEntry]
    key_id: str = ""
    task: str = ""
    queue: str = ""
    node: str = ""
    began_ms: int = 0
    at_ms: int = 0
    past: History = ()
    stamp: str = ""             # signs `past`, which tells of errors
    v: int = 1
    tag: bytes = b""


UPSTREAM_MAX = 10_000
"""Jobs that one job can wait for."""

OnUpstream = Literal["block", "cancel", "run"]
JobBits: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{0,120}\Z")]      # hex: one bit for each job of a bundle


class Upstream(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """Jobs of one bundle that another job waits for: bitmaps in hex, bit i = index i. `wanted`: those whose results it
    is given. `own`: they are stored with it, as a section of a flow."""

    bundle: Annotated[str, Meta(max_length=64)]
    jobs: JobBits
    wanted: JobBits = ""
    own: bool = False


FlowPartKind = Literal["whole", "first", "more", "last"]


class FlowTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a job that is enqueued with a section of a flow (all that one block enqueues). Nothing of a section begins
    before its end is stored, which has its graph (`calls/graphs.py`). `part`: all bundles of a "whole" section come in
    one request, and are stored in one transaction; else a bundle is the "first" of it, the "last", or comes between."""

    id: Annotated[str, Meta(max_length=64)]
    section: Annotated[str, Meta(max_length=64)]
    part: FlowPartKind = "more"
    name: Text = ""             # of a flow, with the end of its first section (which is called as the flow is)
    keep_s: Seconds = 3600.0    # how long it is kept when it is over, likewise
    jobs: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    graph: bytes = b""


Until = Literal["ended", "begun", "time"]
OnConflict = Literal["existing", "raise", "replace"]


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What few enqueues say beyond where they go. `unique`: the key that this job wants for itself, "": none; held
    `until` the job has ended, has begun, or for `unique_for_s`. `expires_s`: it must have begun by then, 0: never mind.
    `remember_s`: how long a repeat is recognised at the least, 0: as its node says. `after`: what it waits for, and
    `on_upstream` what is done when one of those does not end well. `requires`: labels that a node must have, beside
    those of the task; `weight`: slots that each job takes, 0: as its task says; `fair_key`: whose it is, so that these
    take turns in their queue; `rate_key`: what a rate per key counts it by, "": by the key of the enqueue."""

    unique: str = ""
    until: Until = "ended"
    unique_for_s: Seconds = 0.0
    on_conflict: OnConflict = "existing"
    expires_s: Seconds = 0.0
    remember_s: Seconds = 0.0
    after: Annotated[tuple[Upstream, ...], Meta(max_length=UPSTREAM_MAX)] = ()
    on_upstream: OnUpstream = "block"
    requires: Annotated[tuple[Text, ...], Meta(max_length=LABELS_MAX)] = ()
    weight: Annotated[int, Meta(ge=0, le=WEIGHT_MAX)] = 0
    fair_key: Text = ""
    rate_key: Text = ""
    flow: FlowTerms | None = None


NO_TERMS = Terms()


class Enqueue(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One bundle on its way to a node. What is not in the (signed) body is what the node itself needs to know."""

    bundle: str
    task: str
    queue: str
    count: int
    mode: Mode
    body: bytes
    priority: int = 0
    delay_s: float = 0.0
    level: Level = "durable"
    python: str = ""
    function: str = ""
    key: str = ""               # what its task's limit per key is counted by
    terms: Terms | None = None


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A bundle is stored. `revision` is the store's at that moment, `order` its place in its queue. `existing`: nothing
    was stored, for a job (the first of `bundle`) has the key that was to be unique."""

    bundle: str
    revision: int
    order: int
    level: Level = "durable"
    existing: bool = False
