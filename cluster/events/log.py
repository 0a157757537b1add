"""The log listens: one line for each event that an operator should read, with the event's name and fields beside it.

The text is for people and may change. The name (`record.event`) and the fields (`record.fields`) are for programs.
"""

from __future__ import annotations

import logging

import msgspec

from . import records as r
from .hub import Events

log = logging.getLogger("rota.events")

LINES: dict[type[r.ClusterEvent], tuple[int, str]] = {
    r.NodeJoined: (logging.INFO, "joined cluster {cluster} as {node}"),
    r.JoinFailed: (logging.WARNING, "cannot join the cluster yet: {error}"),
    r.KeepaliveFailed: (logging.WARNING, "the lease of {node} is not being renewed: {error}"),
    r.StoreLost: (logging.ERROR, "the store does not serve this node: {error}"),
    r.StoreBack: (logging.WARNING, "the store serves this node again, after {away_s:.0f} s"),
    r.KeepaliveResumed: (
        logging.INFO, "the lease of {node} is renewed again, after {failures} failures in {away_s:g} s"
    ),
    r.LeaseExpired: (
        logging.WARNING,
        "the lease's deadline has passed: nothing is started until the store answers; runners are killed",
    ),
    r.LeaseSurvived: (logging.INFO, "the lease has survived"),
    r.IdentityEnded: (logging.WARNING, "{why}; what ran here is dead, and a new identity joins"),
    r.RevokeFailed: (logging.WARNING, "the old lease could not be revoked: it will run out"),
    r.NodeLeaving: (logging.INFO, "{node} is leaving: running jobs have {grace_s:.0f} s"),
    r.NodeLeft: (logging.INFO, "{node} has left"),
    r.BundlesHandedBack: (logging.INFO, "handed back {bundles} bundles ({why})"),
    r.BecameMaster: (logging.INFO, "{node} is master, fence {fence}"),
    r.MastershipEnded: (logging.WARNING, "mastership has ended: {why}"),
    r.SnapshotRetaken: (logging.WARNING, "the master starts again from a fresh snapshot: {why}"),
    r.TookOver: (logging.INFO, "took over {claims} claims of {node}"),
    r.NodeGone: (logging.WARNING, "{node} is gone: it has not said that it leaves"),
    r.FailedDropped: (logging.WARNING, "dropped {jobs} failed jobs that were kept for {kept_s:g} s (--keep-failed)"),
    r.StrayFound: (
        logging.WARNING,
        "{count} records of the cluster are not rota's or cannot be read, {key} among them: `rota doctor` names them",
    ),
    r.OverwriteMended: (logging.WARNING, "somebody has written over {key}: it is put right"),
    r.StrangerDeposed: (logging.WARNING, "{key} stood for election and is no member: it is deleted"),
    r.ScheduleRefused: (logging.ERROR, "schedule {schedule} cannot be fired: {why}"),
    r.ScheduleSkipped: (logging.INFO, "schedule {schedule}: {ticks} ticks made no job: {why}"),
    r.BulkStarted: (logging.INFO, "operation {operation} begins: {verb} {what}, {jobs} jobs"),
    r.BulkEnded: (logging.INFO, "operation {operation} is over: {verb}, {jobs} jobs done {note}"),
    r.BundleRefused: (logging.WARNING, "bundle {bundle} is refused: {why}"),
    r.KeyMissing: (
        logging.WARNING,
        "bundle {bundle} goes back to its queue, and so do others: its key {key_id!r} is not here ('': it is "
        "unsigned); `rota nodes` shows who has which keys",
    ),
    r.BundleExpired: (logging.INFO, "bundle {bundle} of task {task} in queue {queue} has expired, {jobs} jobs"),
    r.OutcomeVoid: (logging.WARNING, "an outcome of bundle {bundle} is void: the claim has ended"),
    r.VolatileFailed: (logging.ERROR, "job {job}, without persistence, failed for good: {error}"),
    r.VolatileLost: (logging.ERROR, "{jobs} jobs without persistence are lost"),
}
"""What is not here (what happens to every job) is for metrics and streams, not for the log."""


def attach(events: Events) -> None:
    """Log what happens on a node from now on."""
    events.listen(write, LINES)


def write(event: r.ClusterEvent) -> None:
    level, template = LINES[type(event)]
    if log.isEnabledFor(level):
        fields = msgspec.structs.asdict(event)
        log.log(level, "%s", template.format_map(fields), extra={"event": event.name, "fields": fields})
