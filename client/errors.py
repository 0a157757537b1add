"""Everything rota raises.

    RotaError
    ├── ConfigError                 a setting is wrong; the message says which and what to do
    ├── Unreachable                 no node answered at the given addresses
    ├── Unauthorized                the node refused the bearer token
    ├── ProtocolMismatch            client and node speak different versions
    ├── ClientClosed                the client was closed, or the process is about to end
    ├── NotInJob                    a job asked for what a job cannot have: a view of the cluster, …
    ├── KeyMissing                  it is sealed, and the encryption key for it is not here
    ├── OffloadUnavailable          the object store with a large payload cannot be reached from here
    ├── EnqueueError                nothing was stored, unless it says otherwise
    │   ├── UnknownTask             no node has ever registered this task
    │   ├── InvalidJob              a bad queue name, option, delay, …
    │   ├── NotSerializable         arguments (or a function) that cannot be pickled
    │   ├── JobTooLarge             over the size limit
    │   ├── SignatureRefused        unsigned, or signed with a key the cluster does not know
    │   ├── JobExists               another job has the unique key; `job_id` says which
    │   ├── QueueFull               as many jobs wait in its queue as may wait there
    │   ├── Overloaded              the node or the store asks to come back later
    │   ├── EnqueueUnknown          the retry window passed without a definite answer: it may be stored
    │   └── PartlyEnqueued          enqueue_many stored some of its jobs; `job_ids` says which
    ├── JobError                    about one job
    │   ├── JobUnknown              no such job, or its result has expired
    │   ├── JobFailed               it ended in the failed set; carries the error and the traceback as text
    │   ├── JobCancelled
    │   ├── JobExpired              it had not begun by the time that its enqueue said
    │   ├── ResultTimeout           (also a TimeoutError) no result within the time asked for
    │   └── ResultInvalid           the result's signature or encoding is wrong
    ├── FlowUnknown                 no such flow, or it ended long ago
    ├── FlowStuck                   a flow cannot go on: jobs of it have failed, and wait for a person
    ├── OperationUnknown            no such bulk operation, or it ended long ago
    └── LedgerError                 the store; never reaches a client
        ├── LedgerUnavailable       certainly not applied: no endpoint could be reached
        │   └── LedgerDenied        authentication or permission: a fault that passes when somebody mends it
        ├── WriteUnknown            the write may or may not apply, now or later: repeat the same transaction
        ├── StoreBusy               refused for now ("too many requests"): back off
        ├── Compacted               the revision asked for is gone
        ├── StoreRewound            the store was restored from a backup, or is another one
        ├── LeaseGone
        ├── NoSpace                 the store's quota is used up: nothing can be put until it is raised or freed
        ├── TransactionTooLarge     bytes or operations over the server's limits
        ├── TransactionInvalid      refused as malformed (a duplicate key, …)
        └── StoreTooOld             an etcd release that rota refuses
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

from .ids import job_id


class Portable(BaseException):
    """An exception that reaches another process as it is: its class, its text, its attributes, whatever its constructor
    takes. (Python's own way calls the constructor with the text.)"""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, {name: _portable(value) for name, value in vars(self).items()})


class RotaError(Portable, Exception):
    """The root of rota's errors. All of them can be pickled."""


class ConfigError(RotaError):
    """A setting is wrong."""


class Unreachable(RotaError):
    """No node answered."""


class Unauthorized(RotaError):
    """The node refused the bearer token."""


class ProtocolMismatch(RotaError):
    """Client and node speak different versions of the protocol."""


class ClientClosed(RotaError):
    """The client was closed, or the process is about to end: nobody answers any more."""


class KeyMissing(RotaError):
    """A payload is sealed, and the encryption key for it is not here, or is another one of that name. A job then waits
    for a runner that has the key."""

    key_id: str = ""

    def __init__(self, text: str, key_id: str = "") -> None:
        super().__init__(text)
        self.key_id = key_id


class OffloadUnavailable(RotaError):
    """A payload lies in an object store that cannot be reached from here, or that this process was not told of. A job
    waits then."""


class NotInJob(RotaError):
    """A job asked for what a job cannot have, such as a view of the cluster. That would not change the next time: a job
    that fails with this is not tried again."""


class EnqueueError(RotaError):
    """A job was not stored."""


class UnknownTask(EnqueueError):
    """No node has ever registered this task."""


class InvalidJob(EnqueueError):
    """A queue name, an option or a delay is not valid."""

    repeats: str = ""
    """The bundle of which the cluster has one already, with other contents; "": that is not why."""


class NotSerializable(EnqueueError):
    """Arguments or a function cannot be serialized."""


class JobTooLarge(EnqueueError):
    """Arguments are over the size limit."""

    size_bytes: int = 0
    bytes_max: int = 0

    def __init__(self, size_bytes: int, bytes_max: int, what: str = "the arguments of this job") -> None:
        super().__init__(
            f"{what} take {size_bytes:,} bytes; the limit is {bytes_max:,}. "
            "Put large data into a file, an object store or a database, and enqueue its address."
        )
        self.size_bytes = size_bytes
        self.bytes_max = bytes_max


class SignatureRefused(EnqueueError):
    """A job is unsigned, or signed with a key that the cluster does not know.

    `unknown_key`: the id of a key that is not known where it was checked, "" if there was no signature; None if the key
    is known, and the signature is not what it should be.
    """

    unknown_key: str | None = None

    def __init__(self, message: str, unknown_key: str | None = None) -> None:
        super().__init__(message)
        self.unknown_key = unknown_key


class JobExists(EnqueueError):
    """Another job has the unique key, and the enqueue asked for an error in that case (`on_conflict="raise"`)."""

    def __init__(self, message: str, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class QueueFull(EnqueueError):
    """As many jobs wait in the queue as may wait there (`rota.Queue(max_waiting=…)`). `retry_after_s`: when to try
    again at the earliest. `waits`: the queue has `on_full="wait"`, and there was no room within the retry window."""

    retry_after_s: float = 1.0
    waits: bool = False

    def __init__(self, message: str, retry_after_s: float = 1.0, *, waits: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.waits = waits


class Overloaded(EnqueueError):
    """The node or the store cannot take more now."""

    retry_after_s: float = 1.0

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EnqueueUnknown(EnqueueError):
    """No definite answer came within the retry window: the jobs of this bundle may be stored, now or later."""

    bundle: str = ""

    def __init__(self, bundle: str) -> None:
        super().__init__(
            f"no node gave a definite answer about bundle {bundle} within the retry window: it may be stored. "
            f"Look with `rota job {job_id(bundle, 0)}` before enqueueing again."
        )
        self.bundle = bundle


class PartlyEnqueued(EnqueueError):
    """`enqueue_many`, or a pipeline, stored some of its jobs and not all. `job_ids` are those that are stored for
    certain, `cause` is the first error: in arguments, or an answer (after `EnqueueUnknown` more may be stored)."""

    def __init__(self, job_ids: list[str], cause: Exception) -> None:
        self.job_ids = job_ids
        self.cause = cause
        super().__init__(f"{len(self.job_ids):,} jobs are stored, then came {type(cause).__name__}: {cause}")


class JobError(RotaError):
    """About one job."""

    job_id: str = ""

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class JobUnknown(JobError):
    """There is no such job, or its result has expired."""


class JobFailed(JobError):
    """The job ended in the failed set. The error travels as text and is never rebuilt as a class."""

    def __init__(self, job_id: str, error: str, traceback: str = "", attempts: int = 1) -> None:
        super().__init__(f"job {job_id} failed after {attempts} attempt(s): {error}", job_id)
        self.error = error
        self.traceback = traceback
        self.attempts = attempts


class JobCancelled(JobError):
    """The job was cancelled."""


class JobExpired(JobError):
    """The job had not begun by the time that its enqueue or its task said (`expires`): it will not run."""


class ResultTimeout(JobError, TimeoutError):
    """No result within the time asked for. The job goes on."""


class ResultInvalid(JobError):
    """A stored result is not what a node of this cluster wrote."""


class FlowUnknown(RotaError):
    """There is no such flow, or it ended too long ago."""


class FlowStuck(RotaError):
    """A flow cannot go on: some of its jobs have failed for good. `flow.retry()` runs them again; `job_ids` names the
    first of them."""

    def __init__(self, flow: str, job_ids: list[str], count: int) -> None:
        more = f" and {count - len(job_ids):,} more" if count > len(job_ids) else ""
        super().__init__(
            f"flow {flow} cannot go on: job {', '.join(job_ids)}{more} failed; flow.retry() runs them again; "
            "to give it up, delete them from the failed set, and flow.cancel() the rest"
        )
        self.flow = flow
        self.job_ids = job_ids


class OperationUnknown(RotaError):
    """There is no such bulk operation, or it ended more than an hour ago."""


class LedgerError(RotaError):
    """The store."""


class LedgerUnavailable(LedgerError):
    """Certainly not applied: no endpoint could be reached."""


class LedgerDenied(LedgerUnavailable):
    """Authentication failed, or permission is missing: whoever can wait waits until that is mended."""


class WriteUnknown(LedgerError):
    """The write may or may not apply, now or later. Repeat the same guarded transaction."""


class StoreBusy(LedgerError):
    """Refused for now; back off and try again."""


class Compacted(LedgerError):
    """The revision asked for has been compacted."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"the store's history before revision {revision} is gone")
        self.revision = revision


class StoreRewound(LedgerError):
    """The store went back in time (restored from a backup), or is another store."""


class LeaseGone(LedgerError):
    """There is no such lease."""


class NoSpace(LedgerError):
    """The store's quota is used up."""


class TransactionTooLarge(LedgerError):
    """More bytes or operations than the server accepts."""


class TransactionInvalid(LedgerError):
    """The server refused the transaction as malformed."""


class StoreTooOld(LedgerError):
    """This release of etcd is refused."""


def _rebuilt(kind: type[Portable], args: tuple[Any, ...], attributes: dict[str, Any]) -> Portable:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(attributes)
    return error


def _portable(value: object) -> object:
    """An attribute: somebody else's exception that cannot be rebuilt elsewhere goes as text."""
    if not isinstance(value, BaseException):
        return value
    try:
        copy.copy(value)
        pickle.dumps(value)
    except Exception:
        return RotaError(f"{type(value).__qualname__}: {value}")
    return value
