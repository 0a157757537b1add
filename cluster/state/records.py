"""The public records below `/rota/<cluster>/`: small JSON, one struct each. Pure.

Anybody who can write to the store can write anything into it, so decoding is total: a field is checked where it is read
(the constraints stand with its type), what is no record gives None, and nothing behind this page meets a number out of
range. Readers that take a key, or part of one, also hold the record against it. (docs/decisions/0020)

A **token** stands for a bundle and moves from state to state (`jobs/`, `scheduled/`, `claims/`); it is in exactly one
place. A **claim** is a token under a node, with the fence of the master that put it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from rota.client.errors import InvalidJob
from rota.client.ids import parse_job_id
from rota.client.model import (
    ATTEMPTS_MAX,
    HEADER_SCHEMA,
    JOBS_PER_BUNDLE,
    JOBS_PER_BUNDLE_MAX,
    LABELS_MAX,
    PAST_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    UNREADABLE,
    UPSTREAM_MAX,
    WEIGHT_MAX,
    Header,
    History,
    Mode,
    Moment,
    OnFull,
    OnOrphan,
    OnUpstream,
    Parameter,
    Past,
    Rate,
    Results,
    Seconds,
    Terms,
    Text,
    Upstream,
)
from rota.client.options.checks import KEY_CHARS_MAX
from rota.client.wire.codec import decode_header
from rota.client.wire.views import FailedFilter, LogLine, OperationState, Verb

from ..ledger.ledger import Record
from .keys import BUNDLE, ORDER_MAX, Keys, is_name, record_id

SCHEMA = 1

Count: TypeAlias = Annotated[int, Meta(ge=0, le=JOBS_PER_BUNDLE_MAX)]       # of jobs of one bundle
Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]
Attempt: TypeAlias = Annotated[int, Meta(ge=0, le=2 * ATTEMPTS_MAX)]
Priority: TypeAlias = Annotated[int, Meta(ge=PRIORITY_MIN, le=PRIORITY_MAX)]
Place: TypeAlias = Annotated[int, Meta(ge=0, le=ORDER_MAX)]         # an order, or ms since 1970: 16 digits in a key
Bitmap: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{0,120}\Z")]     # hex: one bit for each job of a bundle
Bundle: TypeAlias = Annotated[str, Meta(pattern=rf"^{BUNDLE}\Z")]      # or a piece of one
Weight: TypeAlias = Annotated[int, Meta(ge=1, le=WEIGHT_MAX)]
Schema: TypeAlias = Annotated[int, Meta(ge=1, le=SCHEMA + 1)]       # ours, and the next release's


def schema() -> int:
    """The number that every record carries. A default that is made anew is written even where defaults are not."""
    return SCHEMA


class Token(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """`count` jobs lie in the body; `done` is the bitmap (hex, bit i = index i of the bundle as enqueued) of those that
    need no further run. `orphanings` counts lost nodes, `lost` those that were lost while this suspect was started."""

    task: Text
    queue: str                  # checked against the token's key, or as a name
    priority: Priority
    order: Place
    count: Annotated[int, Meta(ge=1, le=JOBS_PER_BUNDLE_MAX)]
    mode: Mode
    at: Place                   # ms since 1970 of the enqueue, by the taking node's clock
    attempt: Attempt = 1
    done: Bitmap = ""
    orphanings: Number = 0
    lost: Number = 0
    not_before: Place = 0       # ms since 1970
    python: Text = ""
    function: Text = ""
    key: Annotated[str, Meta(max_length=KEY_CHARS_MAX)] = ""    # what its task's limit per key is counted by
    blocked: bool = False       # in a serial queue: it failed for good, and its queue waits for a person
    error: str = ""             # of its last attempt, one line
    past: History = ()          # attempts that are over
    stamp: Text = ""            # by which node's key `error` and `past` were said (words.py)
    signed: Text | None = None  # the mark of the key it is signed with (`id#fingerprint`), "": unsigned, None: not said
    unique: Annotated[str, Meta(max_length=KEY_CHARS_MAX)] = ""     # what it has for itself until it has ended
    until_begun: bool = False   # or has begun
    expires: Place = 0          # ms since 1970: it does not begin after that; 0: whenever
    inputs: bool = False        # results of other jobs belong into its arguments: they lie below `inputs/`
    steps: bool = False         # its jobs remember what they have done: it lies below `steps/`
    part: Bitmap = ""           # of a piece of several jobs: which of its bundle's those are, done or not
    late: Bitmap = ""           # of those in `done`, jobs of which a step may have come after they had ended
    weight: Weight = 1          # slots that each of its jobs takes
    fair: Annotated[str, Meta(max_length=KEY_CHARS_MAX)] = ""       # whose it is: these take turns in their queue
    rate_key: Annotated[str, Meta(max_length=KEY_CHARS_MAX)] = ""   # what a rate per key counts it by; "": by `key`
    requires: Annotated[tuple[Text, ...], Meta(max_length=LABELS_MAX)] = ()     # labels, beside those of its task
    calm: bool = False          # it came in a stream that nobody waited for: it may wait a moment for others
    v: Schema = msgspec.field(default_factory=schema)

    @property
    def done_bits(self) -> int:
        return int(self.done, 16) if self.done else 0

    @property
    def late_indexes(self) -> list[int]:
        late = int(self.late, 16) & self.done_bits if self.late else 0
        return [index for index in range(late.bit_length()) if late >> index & 1]

    @property
    def pending(self) -> int:
        return self.count - self.done_bits.bit_count()

    def and_past(self, node: str, began_ms: int, ended_ms: int, how: str) -> History:
        """Its attempts that are over, this one too."""
        return (*self.past, Past(self.attempt, node[:256], began_ms, ended_ms, how[:HOW_CHARS_MAX]))[-PAST_MAX:]

    @property
    def rated_by(self) -> str:
        """What a rate per key counts it by."""
        return self.rate_key or self.key

    @property
    def untouched(self) -> bool:
        """No attempt of it has begun, as far as its token can tell."""
        return self.attempt == 1 and not (self.past or self.orphanings or self.blocked or self.steps)

    @property
    def suspect(self) -> bool:
        """Its node was lost once: it is run in a bundle of one, and its start is recorded before it happens."""
        return self.orphanings > 0


class Claim(Token, frozen=True, omit_defaults=True, gc=False):
    """A token under a node. `fence` is the create revision of the claiming master's election key."""

    fence: Place = 0
    started: bool = False
    serial: bool = False        # of a serial queue: it retries at its place
    back: Count = 0             # jobs that the node gave back in pieces, because they run slowly; part of `done`
    slept: Bitmap = ""          # of what expires, jobs that sleep or wait for others by now: these do not any more

    @property
    def parts_ways(self) -> bool:
        """Whether some of its jobs may not expire any more, and others do: where it goes back, each do so by
        themselves."""
        return bool(self.slept and self.expires)


class Awaiting(Token, frozen=True, omit_defaults=True, gc=False):
    """A token that waits for other jobs to end well. `on_upstream` says what is done when one does not."""

    upstream: Annotated[tuple[Upstream, ...], Meta(max_length=UPSTREAM_MAX)] = ()
    on_upstream: OnUpstream = "block"
    due: Place = 0              # ms since 1970: not before then, whatever has ended
    flow: Text = ""             # the flow that it belongs to
    section: Text = ""          # of that, and it waits until that is stored as a whole
    until: Place = 0            # ms since 1970: it runs and waits then for what has ended by then; 0: for all


class Kind(Protocol):
    """What decides which nodes have the code of a job. `mode` counts for code shipped by value (`function`) only."""

    @property
    def task(self) -> str: ...
    @property
    def mode(self) -> Mode | None: ...
    @property
    def python(self) -> str: ...
    @property
    def function(self) -> str | bool: ...


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node's lease-bound record. It changes only with its state, never with load."""

    address: str
    queues: list[str]
    tasks: dict[str, Mode]
    capacity: dict[str, Number]
    python: str
    version: str
    since: Moment
    state: str = "active"       # or "draining"
    functions: bool = False     # runs code shipped by value
    schedules: list[str] = []       # that its code declares
    keys: list[str] | None = None   # the marks of its signing keys; [] takes what is unsigned; None: not said
    labels: list[str] = []          # what it has: tasks that require others are not among its `tasks`
    spare: dict[str, Number] = {}   # slots beyond its capacity, for queues of which nothing runs
    jobs_per_bundle: Number = JOBS_PER_BUNDLE       # that it can read; of the release before if it says nothing
    header_schema: Number = HEADER_SCHEMA           # likewise
    flags: bool = False         # puts flags with its tokens (`state/nonempty`); the release before does not
    v: Schema = msgspec.field(default_factory=schema)

    def serves(self, queue: str) -> bool:
        return "*" in self.queues or queue in self.queues

    def mode_of(self, kind: Kind) -> Mode | None:
        """How this node runs jobs of that kind: as its own code says, whatever was enqueued (decision 0016). None: it
        does not have their code."""
        if kind.function:
            return kind.mode if self.functions and self.python == kind.python else None
        return self.tasks.get(kind.task) if kind.python in ("", self.python) else None

    def has(self, labels: Sequence[str]) -> bool:
        return not labels or set(labels) <= set(self.labels)

    def slots(self, kind: Kind) -> int:
        """How many jobs of that kind it runs at a time."""
        mode = self.mode_of(kind)
        return self.capacity.get(mode, 0) if mode is not None else 0

    def can_verify(self, signed: str | None) -> bool:
        """Whether it has the key of a token (`Token.signed`). An id without a fingerprint fits every key of that id.
        A token that says nothing is of the release before: the node finds out. A node of that release says nothing,
        too, and is given only such tokens: it may not be able to read others."""
        if signed is None:
            return True
        if self.keys is None:
            return False
        if not signed:
            return not self.keys
        return signed in self.keys or signed in [mark.partition("#")[0] for mark in self.keys]


class TaskRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task that some node has registered; stays when its nodes are away."""

    mode: Mode
    queue: str = "default"
    max_concurrency: Limit | None = None        # jobs at a time in the whole cluster
    max_per_key: Limit | None = None            # of them, with equal keys
    on_orphan: OnOrphan = "requeue"             # what becomes of a job whose node was lost while it may have run
    requeue_delay_s: Seconds = 0.0              # how long it waits then
    parameters: Annotated[tuple[Parameter, ...], Meta(max_length=100)] | None = None        # None: not known
    rate: Rate | None = None                    # of jobs that begin, in the whole cluster
    rate_per_key: Rate | None = None            # of them, with equal keys
    requires: Annotated[tuple[Text, ...], Meta(max_length=LABELS_MAX)] = ()     # labels that a node must have
    weight: Weight = 1                          # slots that each of its jobs takes
    v: Schema = msgspec.field(default_factory=schema)


class QueueRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Settings of a queue. A queue without any has no record."""

    paused: bool = False
    serial: bool = False                        # one at a time, in order; a failing job blocks the queue
    max_concurrency: Limit | None = None
    rate: Rate | None = None
    max_waiting: Limit | None = None            # jobs that may wait in it: what is enqueued beyond that is refused
    on_full: OnFull = "refuse"                  # or who enqueues waits
    v: Schema = msgspec.field(default_factory=schema)


class BoundRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a queue with a bound, how many jobs were ever enqueued to it: each enqueue counts on, and is guarded by it."""

    enqueued: Number = 0
    v: Schema = msgspec.field(default_factory=schema)


class RateRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a rate, jobs may have begun as if it were used up to then (ms since 1970): written before they do."""

    until: Place
    v: Schema = msgspec.field(default_factory=schema)


class FailedRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job in the failed set. Its body and traceback lie below `/rota-data/`."""

    id: str                     # `<bundle>/<index>`, as its key has it: not what people are shown
    task: str
    queue: str
    error: str
    attempts: Attempt
    node: str
    at: Moment
    reason: str = "error"       # or one of `quarantine.ADVICE`, "skipped", "volatile"
    stamp: Text = ""            # signs all of it (words.py)
    v: Schema = msgspec.field(default_factory=schema)


class FinishedRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Jobs of one bundle that ended well, where their task or enqueue says `keep_finished`. Their body lies below
    `/rota-data/`; both go when their lease ends."""

    bundle: str
    indexes: Annotated[list[Annotated[int, Meta(ge=0, lt=JOBS_PER_BUNDLE_MAX)]], Meta(max_length=JOBS_PER_BUNDLE_MAX)]
    task: str
    queue: str
    attempts: Attempt
    node: str
    at: Moment
    v: Schema = msgspec.field(default_factory=schema)
    enqueued_at: Moment = 0.0


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The private part of a failed job (MessagePack below `/rota-data/`): enough to look at it and to run it again."""

    body: bytes
    traceback: str
    token: bytes
    stamp: str = ""             # signs the traceback
    v: Schema = msgspec.field(default_factory=schema)


class RunningJob(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """A job that runs on a node, since when (ms since 1970). `volatile`: of level `none`, so it is nowhere else."""

    bundle: Text
    index: Annotated[int, Meta(ge=0, lt=JOBS_PER_BUNDLE_MAX)]
    since_ms: Place
    attempt: Attempt
    task: Text
    queue: Text
    volatile: bool = False


class RunningRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says of the jobs that have run on it for a second, on its lease. `more`: how many it leaves out."""

    jobs: list[RunningJob]
    more: Number = 0
    v: Schema = msgspec.field(default_factory=schema)


class ProgressRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a job is, as it said itself."""

    done: Annotated[float, Meta(ge=0, le=1e15)]
    total: Annotated[float, Meta(ge=0, le=1e15)] | None = None
    note: Text = ""
    at_ms: Number = 0
    attempt: Number = 0
    v: Schema = msgspec.field(default_factory=schema)


class LogRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last lines of the log of a job's attempt. `dropped`: how many came before them."""

    lines: list[LogLine]
    attempt: Number = 0
    dropped: Number = 0
    v: Schema = msgspec.field(default_factory=schema)


class OperationRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bulk operation: something done to many jobs, which the master carries out. Below `operations/` until it has
    ended, then, for an hour, below `operations-ended/`."""

    verb: Verb
    which: FailedFilter
    at: Moment
    expected: Number | None = None  # of `empty`: how many jobs its owner believes there are
    state: OperationState = "waiting"
    since: Number = 0               # the store's revision when it began: what came later is not its affair
    total: Number = 0               # jobs, when it began
    done: Number = 0
    left: Number = 0                # jobs that fit, and with which it could not be done
    node: str = ""                  # who does it
    why: str = ""                   # refused: why
    ended_at: Moment = 0.0
    v: Schema = msgspec.field(default_factory=schema)


class FlowRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A flow: below `flows/` until all of its jobs have ended, then, for `keep_s`, below `flows-ended/`."""

    name: Text
    at: Moment
    keep_s: Seconds = 3600.0
    jobs: Number = 0            # of its first section; of all, when it is over
    ended_at: Moment = 0.0
    badly: Number = 0           # when it is over: jobs that did not end well
    v: Schema = msgspec.field(default_factory=schema)


class SectionRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A section of a flow is stored."""

    jobs: Number
    v: Schema = msgspec.field(default_factory=schema)


class ReceiptRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An enqueue happened. `digest` is that of the body, so that a repeat is told from a collision. `jobs`: how many
    there were; 0: not said."""

    digest: str
    order: Place
    priority: Priority = 0
    jobs: Count = 0
    v: Schema = msgspec.field(default_factory=schema)


HOW_CHARS_MAX = 200
_ORDER = re.compile(rb"[0-9]{1,15}")       # one digit less than keys have: there is always room for the next
_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}
_decode_failure = msgspec.msgpack.Decoder(Failure)
_decode_results = msgspec.msgpack.Decoder(Results)


def encode(record: msgspec.Struct) -> bytes:
    return _encoder.encode(record)


def decode(kind: type[_T], value: bytes) -> _T | None:
    """None for bytes that are no such record: garbage, a number out of range, or a schema from after the next
    release."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    record: _T | None = _try(decoder, value)
    if isinstance(record, Token) and record.done and record.pending < 0:
        return None
    return record


def _try(decoder: Any, value: bytes) -> Any:
    try:
        return decoder.decode(value)
    except UNREADABLE:
        return None


def token_in(queue: str, value: bytes) -> Token | None:
    """The token that waits in a queue, below `jobs/` or `scheduled/`. One that says of itself that it belongs to
    another queue is none (it would be put there), nor is one that has nothing to run."""
    token = decode(Token, value)
    return token if token is not None and token.queue == queue and token.pending else None


def waiting_at(keys: Keys, record: Record) -> Token | None:
    """The token that a record below `jobs/`, `scheduled/` or `awaiting/` is. None too for a key that rota did not
    write."""
    if record.key.startswith(keys.awaiting):
        return awaiting_at(keys, record)
    if record.key.startswith(keys.scheduled):
        due = keys.parse_due(record.key)
        return token_in(due[1], record.value) if due is not None else None
    job = keys.parse_job(record.key)
    return token_in(job.queue, record.value) if job is not None else None


def awaiting_at(keys: Keys, record: Record) -> Awaiting | None:
    """The token that a record below `awaiting/` is."""
    parsed, token = keys.parse_awaits(record.key), decode(Awaiting, record.value)
    return token if token is not None and parsed is not None and token.queue == parsed[0] and token.pending else None


def claim_in(value: bytes) -> Claim | None:
    """The claim below `claims/`, whose key does not name its queue."""
    claim = decode(Claim, value)
    return claim if claim is not None and is_name(claim.queue) else None


def failed_at(keys: Keys, record: Record) -> FailedRecord | None:
    """A record of the failed set. One that cannot be read is shown under what its key names: it can be looked at,
    retried and deleted like any other. None for a key that rota did not write."""
    parsed = keys.parse_failed(record.key)
    if parsed is None:
        return None
    queue, bundle, index = parsed
    failed = decode(FailedRecord, record.value)
    if failed is None or (failed.id, failed.queue) != (record_id(bundle, index), queue):
        return FailedRecord(
            record_id(bundle, index), "", queue, "its record in the failed set cannot be read", 0, "", 0.0, "unreadable"
        )
    return failed


def operation_in(value: bytes) -> OperationRecord | None:
    """A bulk operation; None too for one that names jobs by what is no job id."""
    operation = decode(OperationRecord, value)
    try:
        for job in operation.which.ids if operation is not None else ():
            parse_job_id(job)
    except ValueError:
        return None
    return operation


def tail_of(record: Record) -> int:
    """The order of the last job of a serial queue. An order is a revision that its enqueue had seen, so where somebody
    wrote something else, the revision of that is behind all that came before."""
    if _ORDER.fullmatch(record.value):
        return int(record.value)
    return record.mod_revision


def header_of(body: bytes) -> Header | None:
    """The head of a body; None for bytes that are none. Not verified: it says where a job belongs, not that it may
    run."""
    try:
        header, _ = decode_header(body)
    except InvalidJob:
        return None
    return header if is_name(header.queue) else None


def results_in(value: bytes) -> Results:
    """A record below `results/`, unverified; without entries if it cannot be read."""
    results: Results | None = _try(_decode_results, value)
    return results if results is not None else Results("", [])


def failure_in(value: bytes) -> Failure:
    """The private part of a failed job; an empty one for bytes that are none."""
    failure: Failure | None = _try(_decode_failure, value)
    return failure if failure is not None else Failure(b"", "", b"")


def bits(indexes: Iterable[int]) -> int:
    if isinstance(indexes, list) and indexes:
        first: int = indexes[0]
        if indexes == list(range(first, first + len(indexes))):     # as most are: those of a whole bundle
            return ((1 << len(indexes)) - 1) << first
    total = 0
    for index in indexes:
        total |= 1 << index
    return total


def hex_bits(done: int) -> str:
    return f"{done:x}" if done else ""


_fields_of_token = attrgetter(*Token.__struct_fields__)


def claim_of(token: Token, fence: int, *, serial: bool = False) -> Claim:
    return Claim(*_fields_of_token(token), fence, False, serial)  # type: ignore[call-arg]      # (mypy counts a starred list as any number)


def due_by(due_ms: int, expires_ms: int) -> int:
    """When to look at a token again that is due then, or expires before."""
    return min(due_ms, expires_ms) if expires_ms else due_ms


def awaiting_of(token: Token, terms: Terms, due_ms: int) -> Awaiting:
    """The token of what waits for others first. `due_ms`: and until then, or 0."""
    flow, section = (terms.flow.id, terms.flow.section) if terms.flow is not None else ("", "")
    made = Awaiting(*_fields_of_token(token), terms.after, terms.on_upstream, due_ms, flow, section)  # type: ignore[call-arg]
    return msgspec.structs.replace(made, inputs=any(one.wanted for one in terms.after))


def begun(claim: Claim, *, started: bool) -> Claim:
    """A claim whose jobs are about to begin: what it has for itself until then, it has no longer."""
    unique = "" if claim.until_begun else claim.unique
    return msgspec.structs.replace(claim, started=claim.started or started, unique=unique)


def token_of(claim: Claim | Awaiting) -> Token:
    """The token inside a claim, as it goes back to its place; or inside what waited for others."""
    return Token(*_fields_of_token(claim))
