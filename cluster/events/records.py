"""What can happen on a node, one small record each. Pure.

An event is emitted once, at the place where it happens, after it has happened. The tag is its stable name: it stands in
every log line, metric and stream, and does not change between releases; fields are only ever added. Times in seconds.
"""

from __future__ import annotations

import msgspec


class ClusterEvent(msgspec.Struct, frozen=True, gc=False, tag_field="event"):
    """The base of all. `name` is the stable name of its kind."""

    @property
    def name(self) -> str:
        return str(self.__struct_config__.tag)


# -- membership ------------------------------------------------------------------------------------------------------


class NodeJoined(ClusterEvent, frozen=True, gc=False, tag="node_joined"):
    """This process has become a member, under a new identity."""

    node: str
    cluster: str


class JoinFailed(ClusterEvent, frozen=True, gc=False, tag="join_failed"):
    """The store did not let this process join; it tries again. Of failures in a row, the first."""

    error: str


class KeepaliveFailed(ClusterEvent, frozen=True, gc=False, tag="keepalive_failed"):
    """The lease was not renewed; it is tried again until its deadline. Of failures in a row, the first."""

    node: str
    error: str


class StoreLost(ClusterEvent, frozen=True, gc=False, tag="store_lost"):
    """The store does not serve this node: it does not answer, or refuses it. Said once, until it does again."""

    error: str


class StoreBack(ClusterEvent, frozen=True, gc=False, tag="store_back"):
    """The store serves this node again."""

    away_s: float


class KeepaliveResumed(ClusterEvent, frozen=True, gc=False, tag="keepalive_resumed"):
    """The lease is renewed again, after so many failures in so many seconds."""

    node: str
    failures: int
    away_s: float


class LeaseExpired(ClusterEvent, frozen=True, gc=False, tag="lease_expired"):
    """The lease's deadline has passed by this node's clock: its runners are killed and nothing is started."""

    node: str


class LeaseSurvived(ClusterEvent, frozen=True, gc=False, tag="lease_survived"):
    """The store answered again before it had dropped the lease: the identity goes on."""

    node: str


class IdentityEnded(ClusterEvent, frozen=True, gc=False, tag="identity_ended"):
    """The member key is gone, or the store refused this identity: a new one joins."""

    node: str
    why: str


class RevokeFailed(ClusterEvent, frozen=True, gc=False, tag="revoke_failed"):
    """The lease of an ended identity could not be revoked: it will run out."""

    node: str


class NodeLeaving(ClusterEvent, frozen=True, gc=False, tag="node_leaving"):
    """This node drains: running jobs have `grace_s` to end."""

    node: str
    grace_s: float


class NodeLeft(ClusterEvent, frozen=True, gc=False, tag="node_left"):
    """This node has drained. `error`: why the store could not be told, if so; the lease will run out."""

    node: str
    error: str = ""


class BundlesHandedBack(ClusterEvent, frozen=True, gc=False, tag="bundles_handed_back"):
    """What lay under this node went back to its queues. `why`: "outage" or "drain"."""

    node: str
    bundles: int
    why: str


# -- mastership ------------------------------------------------------------------------------------------------------


class BecameMaster(ClusterEvent, frozen=True, gc=False, tag="became_master"):
    """This node was elected. `fence`: the create revision that guards every write of the term."""

    node: str
    fence: int


class MastershipEnded(ClusterEvent, frozen=True, gc=False, tag="mastership_ended"):
    node: str
    why: str


class SnapshotRetaken(ClusterEvent, frozen=True, gc=False, tag="snapshot_retaken"):
    """The master looks at everything afresh, within its term."""

    why: str


class TookOver(ClusterEvent, frozen=True, gc=False, tag="took_over"):
    """The claims of a node that is no member any more went back to their queues."""

    node: str
    claims: int
    duration_s: float


class NodeGone(ClusterEvent, frozen=True, gc=False, tag="node_gone"):
    """A node is a member no more, and had not said that it leaves. Said by the master."""

    node: str


class FailedDropped(ClusterEvent, frozen=True, gc=False, tag="failed_dropped"):
    """Failed jobs older than `--keep-failed` were dropped."""

    jobs: int
    kept_s: float


# -- what others wrote into the store -------------------------------------------------------------------------------


class StrayFound(ClusterEvent, frozen=True, gc=False, tag="stray_found"):
    """The master has met keys that rota did not write, or records that cannot be read. Said now and then, of all since
    the last time; `key` is one of them. Tokens among them are set aside, the others left alone."""

    key: str
    count: int


class OverwriteMended(ClusterEvent, frozen=True, gc=False, tag="overwrite_mended"):
    """Somebody wrote over a record that only this node may write; it is put right."""

    key: str


class StrangerDeposed(ClusterEvent, frozen=True, gc=False, tag="stranger_deposed"):
    """A candidacy that stands on no membership was deleted."""

    key: str


class ScheduleRefused(ClusterEvent, frozen=True, gc=False, tag="schedule_refused"):
    """What a schedule's jobs are made of cannot be verified here: it is not fired until it changes."""

    schedule: str
    why: str


class ScheduleSkipped(ClusterEvent, frozen=True, gc=False, tag="schedule_skipped"):
    """Ticks of a schedule made no job."""

    schedule: str
    ticks: int
    why: str


# -- what people ask for ---------------------------------------------------------------------------------------------


class BulkStarted(ClusterEvent, frozen=True, gc=False, tag="bulk_started"):
    """The master has begun a bulk operation: something that is done to many jobs."""

    operation: str
    verb: str
    what: str
    jobs: int


class BulkEnded(ClusterEvent, frozen=True, gc=False, tag="bulk_ended"):
    """A bulk operation is over. `note`: what was not done, and why."""

    operation: str
    verb: str
    jobs: int
    note: str = ""


# -- jobs ------------------------------------------------------------------------------------------------------------


class BundleTaken(ClusterEvent, frozen=True, gc=False, tag="bundle_taken"):
    """This node was given a bundle and hands it to its runners. `waited_s`: since its enqueue, by this node's clock."""

    bundle: str
    task: str
    queue: str
    jobs: int
    attempt: int
    waited_s: float


class JobStarted(ClusterEvent, frozen=True, gc=False, tag="job_started"):
    """A runner has begun a job. Runners tell only while somebody listens to this kind."""

    bundle: str
    index: int
    task: str
    queue: str
    attempt: int


class JobEnded(ClusterEvent, frozen=True, gc=False, tag="job_ended"):
    """One run of a job ended here. `outcome`: ok, failed, retry, snooze, cancelled or expired. `ran_s`: how long,
    by its runner's clock; 0 where it did not run, or its runner died with it."""

    bundle: str
    index: int
    task: str
    queue: str
    attempt: int
    outcome: str
    error: str = ""
    ran_s: float = 0.0


class BundleExpired(ClusterEvent, frozen=True, gc=False, tag="bundle_expired"):
    """The master has ended jobs that had not begun by the time that was said. (What a node ends: `JobEnded`.)"""

    bundle: str
    task: str
    queue: str
    jobs: int


class JobSetAside(ClusterEvent, frozen=True, gc=False, tag="job_set_aside"):
    """This node has put a job into the failed set (or blocked its serial queue with it) that no runner has seen fail:
    its node was lost, or it cannot be read or verified."""

    bundle: str
    index: int
    task: str
    queue: str
    attempt: int
    error: str


class BundleRefused(ClusterEvent, frozen=True, gc=False, tag="bundle_refused"):
    """What a bundle needs cannot be read or verified here."""

    bundle: str
    why: str


class KeyMissing(ClusterEvent, frozen=True, gc=False, tag="key_missing"):
    """A bundle went back to its queue, because it is signed with a key that is not here (or, "", is unsigned, and here
    is a key). Others like it do so too: this is emitted once for each key."""

    bundle: str
    key_id: str


class OutcomeVoid(ClusterEvent, frozen=True, gc=False, tag="outcome_void"):
    """A bundle was run here, but its claim had ended: whatever came of it does not count."""

    bundle: str


class VolatileFailed(ClusterEvent, frozen=True, gc=False, tag="volatile_failed"):
    """A job without persistence has failed for good."""

    job: str
    error: str


class VolatileLost(ClusterEvent, frozen=True, gc=False, tag="volatile_lost"):
    """Jobs without persistence ended with the runners that held them."""

    jobs: int


OF_EVERY_JOB: tuple[type[ClusterEvent], ...] = (BundleTaken, JobStarted, JobEnded)
"""Kinds that come as often as jobs do; all others are rare."""
