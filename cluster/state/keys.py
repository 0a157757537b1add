"""The names of keys: where each thing lies in the store. Pure; the one place that knows the layout.

Two roots per cluster: `/rota/<cluster>/` is the public face (small JSON, one watch gives one total order),
`/rota-data/<cluster>/` holds bytes that nodes store and forward without opening.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from rota.client.ids import NAME_CHARS_MAX, NAME_RULE, PIECE, is_task_name, ordinal
from rota.client.ids import is_name as is_name
from rota.client.model import PRIORITY_MAX, PRIORITY_MIN

ORDER_DIGITS = 16
"""Fixed width of `order` (a store revision) and `due` (ms since 1970), so that key order is numeric order."""


ORDER_MAX = 10**ORDER_DIGITS - 1

KEY_BYTES_SHOWN = 300

NODE_CHARS_MAX = 144
"""A name, and what tells its identities apart."""

NAMES_KEPT_MAX = 4_096
"""Of queues and nodes, so that the names in many keys are checked once."""

_NAME = r"([^/]{1,600})"        # checked when it is decoded
BUNDLE = rf"[0-9A-Za-z][0-9A-Za-z-]{{0,63}}(?:{PIECE})?"
_BUNDLE = f"({BUNDLE})"
_JOB = re.compile(rf"{_NAME}/([0-9]{{3}})/([0-9]{{{ORDER_DIGITS}}})/{_BUNDLE}".encode())
_DUE = re.compile(rf"([0-9]{{{ORDER_DIGITS}}})/{_NAME}/{_BUNDLE}".encode())
_INPUT = re.compile(rb"([0-9A-Za-z][0-9A-Za-z-]{0,63})/([0-9A-Za-z][0-9A-Za-z-]{0,63})/(!?)([1-9a-f][0-9a-f]{0,119})")
_AWAITING = re.compile(rf"{_NAME}/{_BUNDLE}".encode())
_CLAIM = re.compile(rf"{_NAME}/{_BUNDLE}".encode())
_INDEX = r"[0-9]|[1-9][0-9]|[1-3][0-9]{2}|4[0-7][0-9]"
_JOB_ID = rf"([0-9A-Za-z][0-9A-Za-z-]{{0,63}})-({_INDEX})"      # of a bundle as it was enqueued
_STEP = re.compile(rf"{_JOB_ID}/([0-9]{{4}})".encode())
_FAILED = re.compile(rf"{_NAME}/{_JOB_ID}".encode())
_CANCEL = re.compile(_JOB_ID.encode())
_WHOLE = re.compile(rb"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
_CANDIDATE = re.compile(rb"[1-9a-f][0-9a-f]{0,15}")
"""Each thing has one spelling: what reads like a key of ours but is spelt otherwise was not written by rota."""


class JobKey(msgspec.Struct, frozen=True, gc=False):
    queue: str
    priority: int
    order: int
    bundle: str


class Keys:
    """All keys of one cluster."""

    def __init__(self, cluster: str) -> None:
        if not is_name(cluster):
            raise ValueError(f"{cluster!r} is not a valid cluster name: {NAME_RULE}")
        self.cluster = cluster
        self.root = f"/rota/{cluster}/".encode()
        self.data = f"/rota-data/{cluster}/".encode()
        self.nodes = self.root + b"nodes/"
        self.master = self.root + b"master/"
        self.jobs = self.root + b"jobs/"
        self.scheduled = self.root + b"scheduled/"
        self.awaiting = self.root + b"awaiting/"
        self.claims = self.root + b"claims/"
        self.failed = self.root + b"failed/"
        self.finished = self.root + b"finished/"
        self.cancels = self.root + b"cancels/"
        self.progress = self.root + b"progress/"
        self.running = self.root + b"running/"
        self.operations = self.root + b"operations/"
        self.operations_ended = self.root + b"operations-ended/"
        self.tasks = self.root + b"tasks/"
        self.queues = self.root + b"queues/"
        self.tails = self.root + b"tails/"
        self.bounds = self.root + b"bounds/"
        self.schedules = self.root + b"schedules/"
        self.rates = self.root + b"rates/"
        self.uniques = self.root + b"unique/"
        self.flows = self.root + b"flows/"
        self.flow_sections = self.root + b"flow-sections/"
        self.flows_open = self.root + b"flows-open/"
        self.flows_ended = self.root + b"flows-ended/"
        self.outboxes = self.root + b"outboxes/"
        self.nonempty = self.root + b"nonempty/"            # queues in which jobs may wait
        self.express = self.root + b"express"               # that jobs may begin with their enqueue: one record
        self.bodies = self.data + b"bodies/"
        self.inputs = self.data + b"inputs/"
        self.results = self.data + b"results/"
        self.receipts = self.data + b"receipts/"
        self.functions = self.data + b"functions/"
        self.failures = self.data + b"failed/"
        self.finished_bodies = self.data + b"finished/"
        self.logs = self.data + b"logs/"
        self.steps = self.data + b"steps/"
        self.graphs = self.data + b"flows/"
        self.templates = self.data + b"schedules/"
        self.seen = self.data + b"seen/"                    # for people who look: nothing is decided by it
        self.seen_asked = self.seen + b"asked"
        self.seen_history = self.seen + b"history/"
        self.seen_nodes = self.seen + b"nodes/"

    def node(self, node: str) -> bytes:
        return self.nodes + node.encode()

    def candidate(self, lease: int) -> bytes:
        """etcd's own election recipe names a candidate's key by its lease, in hex."""
        return self.master + f"{lease:x}".encode()

    def job(self, queue: str, priority: int, order: int, bundle: str) -> bytes:
        return self.jobs + f"{queue}/{PRIORITY_MAX - priority:03d}/{order:0{ORDER_DIGITS}d}/{bundle}".encode()

    def lane(self, queue: str, priority: int) -> bytes:
        """The prefix of one queue's jobs at one priority."""
        return self.jobs + f"{queue}/{PRIORITY_MAX - priority:03d}/".encode()

    def lane_from(self, queue: str, priority: int, order: int) -> bytes:
        """Where the jobs of this order and later ones begin."""
        return self.lane(queue, priority) + f"{order:0{ORDER_DIGITS}d}".encode()

    def flag(self, queue: str) -> bytes:
        """That jobs may wait there: put with each token, taken away by the master when there is none."""
        return self.nonempty + queue.encode()

    def flag_of(self, job: bytes) -> bytes:
        """The flag of the queue in which a key below `jobs/` lies."""
        begin = len(self.jobs)
        end = job.find(b"/", begin)
        return self.nonempty + job[begin : end if end >= 0 else len(job)]

    def queue_jobs(self, queue: str) -> bytes:
        return self.jobs + f"{queue}/".encode()

    def due(self, due_ms: int, queue: str, bundle: str) -> bytes:
        return self.scheduled + f"{due_ms:0{ORDER_DIGITS}d}/{queue}/{bundle}".encode()

    def due_before(self, due_ms: int) -> bytes:
        """The end of the range of everything due at `due_ms` or earlier."""
        return self.scheduled + f"{due_ms + 1:0{ORDER_DIGITS}d}/".encode()

    def awaits(self, queue: str, bundle: str) -> bytes:
        """The token of what waits for other jobs."""
        return self.awaiting + f"{queue}/{bundle}".encode()

    def inputs_of(self, bundle: str) -> bytes:
        """The prefix of what a bundle has got of the jobs that it waited for."""
        return self.inputs + f"{whole(bundle)}/".encode()

    def input(self, bundle: str, upstream: str, jobs: int) -> bytes:
        """What it has got of some jobs (a bitmap) of another bundle."""
        return self.inputs_of(bundle) + f"{whole(upstream)}/{jobs:x}".encode()

    def not_well(self, bundle: str, upstream: str, jobs: int) -> bytes:
        """That jobs of another bundle, for which it waits, were seen not to end well."""
        return self.inputs_of(bundle) + f"{whole(upstream)}/!{jobs:x}".encode()

    def parse_input(self, key: bytes) -> tuple[str, str, int, bool] | None:
        """(bundle that waited, bundle that it waited for, bitmap of jobs, whether they ended well)"""
        found = _match(_INPUT, self.inputs, key)
        if found is None:
            return None
        return found[1].decode(), found[2].decode(), int(found[4], 16), not found[3]

    def flow(self, flow: str) -> bytes:
        """A flow that is not over."""
        return self.flows + flow.encode()

    def flow_ended(self, flow: str) -> bytes:
        return self.flows_ended + flow.encode()

    def sections_of(self, flow: str) -> bytes:
        return self.flow_sections + f"{flow}/".encode()

    def section(self, flow: str, section: str) -> bytes:
        """Jobs that were stored together as a part of a flow: with this key they may begin."""
        return self.sections_of(flow) + section.encode()

    def section_open(self, section: str) -> bytes:
        """Jobs that are being stored as a section: until this key is gone, the rest may come."""
        return self.flows_open + section.encode()

    def graphs_of(self, flow: str) -> bytes:
        return self.graphs + f"{flow}/".encode()

    def graph(self, flow: str, section: str) -> bytes:
        """What a section consists of, and what waits for what in it."""
        return self.graphs_of(flow) + section.encode()

    def parse_flow(self, key: bytes) -> str | None:
        return _flow(key.removeprefix(self.flows_ended if key.startswith(self.flows_ended) else self.flows))

    def parse_section(self, key: bytes) -> tuple[str, str] | None:
        """(flow, section)"""
        flow, _, section = key.removeprefix(self.flow_sections).partition(b"/")
        named, of = _flow(flow), _flow(section)
        return (named, of) if named is not None and of is not None else None

    def parse_open(self, key: bytes) -> str | None:
        return _flow(key.removeprefix(self.flows_open))

    def claims_of(self, node: str) -> bytes:
        return self.claims + f"{node}/".encode()

    def claim(self, node: str, bundle: str) -> bytes:
        return self.claims + f"{node}/{bundle}".encode()

    def failed_job(self, queue: str, bundle: str, index: int) -> bytes:
        return self.failed + f"{queue}/{whole(bundle)}-{index}".encode()

    def failure(self, bundle: str, index: int) -> bytes:
        return self.failures + f"{whole(bundle)}-{index}".encode()

    def failures_of(self, bundle: str) -> bytes:
        """The prefix of what is kept of a bundle's failed jobs."""
        return self.failures + f"{whole(bundle)}-".encode()

    def finished_jobs(self, queue: str, bundle: str, first_index: int, fence: int) -> bytes:
        """Jobs of one bundle that ended well and are kept; named by the attempt, as results are."""
        return self.finished + f"{queue}/{_finished(bundle, first_index, fence)}".encode()

    def finished_body(self, bundle: str, first_index: int, fence: int) -> bytes:
        return self.finished_bodies + _finished(bundle, first_index, fence).encode()

    def finished_of(self, bundle: str) -> bytes:
        """The prefix of the bodies of what has ended of one bundle."""
        return self.finished_bodies + f"{whole(bundle)}-".encode()

    def task(self, task: str) -> bytes:
        return self.tasks + task.encode()

    def queue(self, queue: str) -> bytes:
        return self.queues + queue.encode()

    def bound(self, queue: str) -> bytes:
        return self.bounds + queue.encode()

    def tail(self, queue: str) -> bytes:
        return self.tails + queue.encode()

    def schedule(self, name: str) -> bytes:
        return self.schedules + name.encode()

    def unique(self, task: str, key: str) -> bytes:
        """What a job has for itself while others of its task must not have it."""
        return self.uniques + f"{task}/{key}".encode()

    def rate(self, kind: str, name: str, key: str = "") -> bytes:
        """How far a rate has been used: of a task, of a task's key, or of a queue (`kind`)."""
        return self.rates + (f"{kind}/{name}/{key}" if kind == "key" else f"{kind}/{name}").encode()

    def template(self, name: str) -> bytes:
        """What a schedule's jobs are made of."""
        return self.templates + name.encode()

    def body(self, bundle: str) -> bytes:
        return self.bodies + bundle.encode()

    def results_of(self, session: str) -> bytes:
        return self.results + f"{session}/".encode()

    def bundle_results(self, bundle: str) -> bytes:
        return self.results + f"{session_of(bundle)}/{whole(bundle)}/".encode()

    def result(self, bundle: str, first_index: int, fence: int) -> bytes:
        """Named by the attempt (its fencing token) too: a job that a person retried has results of both."""
        return self.bundle_results(bundle) + f"{ordinal(first_index)}.{fence:0{ORDER_DIGITS}d}".encode()

    def cancel(self, bundle: str, index: int) -> bytes:
        return self.cancels + f"{whole(bundle)}-{index}".encode()

    def progress_of(self, bundle: str, index: int) -> bytes:
        """How far a job is that runs, on its node's lease."""
        return self.progress + f"{whole(bundle)}-{index}".encode()

    def log_of(self, bundle: str, index: int) -> bytes:
        """The log lines that are kept of a job."""
        return self.logs + f"{whole(bundle)}-{index}".encode()

    def steps_of(self, bundle: str, index: int) -> bytes:
        """The prefix of what a job remembers of what it has done."""
        return self.steps + f"{whole(bundle)}-{index}/".encode()

    def step(self, bundle: str, index: int, number: int) -> bytes:
        return self.steps_of(bundle, index) + f"{number:04d}".encode()

    def running_on(self, node: str) -> bytes:
        return self.running + node.encode()

    def operation(self, operation: str) -> bytes:
        """A bulk operation that has not ended."""
        return self.operations + operation.encode()

    def operation_ended(self, operation: str) -> bytes:
        return self.operations_ended + operation.encode()

    def outbox(self, name: str) -> bytes:
        """Whose turn it is to move the rows of an outbox."""
        return self.outboxes + name.encode()

    def receipt(self, bundle: str) -> bytes:
        return self.receipts + bundle.encode()

    def function(self, digest: str) -> bytes:
        return self.functions + digest.encode()

    # -- reading keys: None for one that rota did not write. Such keys are left alone, and named by `rota doctor` -----

    def parse_job(self, key: bytes) -> JobKey | None:
        found = _match(_JOB, self.jobs, key)
        queue = _name(found[1]) if found is not None else None
        if found is None or queue is None:
            return None
        priority = PRIORITY_MAX - int(found[2])
        if priority < PRIORITY_MIN:
            return None
        return JobKey(queue, priority, int(found[3]), found[4].decode())

    def parse_due(self, key: bytes) -> tuple[int, str, str] | None:
        """(due in ms, queue, bundle)"""
        found = _match(_DUE, self.scheduled, key)
        queue = _name(found[2]) if found is not None else None
        return None if found is None or queue is None else (int(found[1]), queue, found[3].decode())

    def parse_awaits(self, key: bytes) -> tuple[str, str] | None:
        """(queue, bundle)"""
        found = _match(_AWAITING, self.awaiting, key)
        queue = _name(found[1]) if found is not None else None
        return None if found is None or queue is None else (queue, found[2].decode())

    def parse_claim(self, key: bytes) -> tuple[str, str] | None:
        """(node, bundle)"""
        found = _match(_CLAIM, self.claims, key)
        node = _name(found[1], NODE_CHARS_MAX) if found is not None else None
        return None if found is None or node is None else (node, found[2].decode())

    def parse_failed(self, key: bytes) -> tuple[str, str, int] | None:
        """(queue, bundle as enqueued, index)"""
        found = _match(_FAILED, self.failed, key)
        queue = _name(found[1]) if found is not None else None
        return None if found is None or queue is None else (queue, found[2].decode(), int(found[3]))

    def parse_cancel(self, key: bytes) -> tuple[str, int] | None:
        """(bundle as enqueued, index)"""
        found = _match(_CANCEL, self.cancels, key)
        return None if found is None else (found[1].decode(), int(found[2]))

    def parse_step(self, key: bytes) -> tuple[str, int, int] | None:
        """(bundle as enqueued, index, number of the step)"""
        found = _match(_STEP, self.steps, key)
        return None if found is None else (found[1].decode(), int(found[2]), int(found[3]))

    def parse_candidate(self, key: bytes) -> int | None:
        """The lease that a candidate's key is named by."""
        found = _match(_CANDIDATE, self.master, key)
        lease = int(found[0], 16) if found is not None else 0
        return lease if 0 < lease < 1 << 63 else None

    def parse_node(self, key: bytes) -> str | None:
        return _name(key.removeprefix(self.nodes), NODE_CHARS_MAX)

    def parse_flag(self, key: bytes) -> str | None:
        return _name(key.removeprefix(self.nonempty))

    def parse_queue(self, key: bytes) -> str | None:
        return _name(key.removeprefix(self.queues))

    def parse_outbox(self, key: bytes) -> str | None:
        return _name(key.removeprefix(self.outboxes))

    def parse_schedule(self, key: bytes) -> str | None:
        try:
            name = key.removeprefix(self.schedules).decode()
        except UnicodeDecodeError:
            return None
        return name if is_task_name(name) else None

    def parse_rate(self, key: bytes) -> tuple[str, str, str] | None:
        """(kind, task or queue, key)"""
        try:
            kind, _, name = key.removeprefix(self.rates).decode().partition("/")
        except UnicodeDecodeError:
            return None
        if kind != "key":
            return (kind, name, "") if kind in ("task", "queue") and name and "/" not in name else None
        task, _, of = name.partition("/")
        return (kind, task, of) if task and of else None

    def parse_unique(self, key: bytes) -> tuple[str, str] | None:
        """(task, key)"""
        try:
            task, _, unique = key.removeprefix(self.uniques).decode().partition("/")
        except UnicodeDecodeError:
            return None
        return (task, unique) if is_task_name(task) and unique else None

    def parse_task(self, key: bytes) -> str | None:
        try:
            name = key.removeprefix(self.tasks).decode()
        except UnicodeDecodeError:
            return None
        return name if is_task_name(name) else None


@lru_cache(NAMES_KEPT_MAX)
def _name(raw: bytes, chars_max: int = NAME_CHARS_MAX) -> str | None:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return None
    return name if is_name(name, chars_max) else None


def _match(pattern: re.Pattern[bytes], prefix: bytes, key: bytes) -> re.Match[bytes] | None:
    return pattern.fullmatch(key, len(prefix)) if key.startswith(prefix) else None


def _flow(raw: bytes) -> str | None:
    return raw.decode() if _WHOLE.fullmatch(raw) is not None else None


def _finished(bundle: str, first_index: int, fence: int) -> str:
    return f"{whole(bundle)}-{ordinal(first_index)}.{fence:0{ORDER_DIGITS}d}"


def shown(key: bytes) -> str:
    """A key for people: anybody may have written it."""
    return key[:KEY_BYTES_SHOWN].decode(errors="backslashreplace")


def record_id(bundle: str, index: int) -> str:
    """How records name a job, and what is stamped in them: as the keys do. (People see `rota.client.ids.job_id`.)"""
    return f"{whole(bundle)}/{index}"


def split_job(record_id: str) -> tuple[str, int]:
    """(bundle, index) of a `FailedRecord`. It need not be a job that a client could name: whoever writes to the store
    names things as he likes."""
    bundle, _, index = record_id.rpartition("/")
    return bundle, int(index)


def session_of(bundle: str) -> str:
    """The client session that made a bundle: `k3f9q2m7xa5t-0000001f.3` -> `k3f9q2m7xa5t`."""
    return bundle.partition("-")[0]


def whole(bundle: str) -> str:
    """The bundle as it was enqueued: a piece `<bundle>.<index>` without its index."""
    return bundle.partition(".")[0]
