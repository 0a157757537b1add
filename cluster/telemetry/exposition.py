"""What a node has counted, as Prometheus reads it. Made when it is scraped; nothing is kept for it.

The names are stable: they do not change between releases. docs/metrics.md explains each; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .depths import Depth
from .figures import Figures
from .metered import SIZES, StoreFigures
from .tally import BUCKETS_S, Distribution, Tally

QUEUES_MAX = 200
"""Queues with figures of their own: those with the most jobs waiting. The others are one, `(others)`."""

OTHERS = "(others)"
STATES = ("waiting", "claimed", "scheduled", "awaiting", "failed")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown. `depth` is the master's: of all nodes, one counts the queues."""

    cluster: str
    version: str
    figures: Figures
    tally: Tally
    store: StoreFigures
    members: int
    enqueued: int
    depth: Depth | None


def exposition(snapshot: Snapshot) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Rota(snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Rota(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot
        yield from _node(snapshot)
        yield from _jobs(snapshot.tally, snapshot.enqueued)
        yield from _masters(snapshot.tally)
        yield from _store(snapshot.store)
        if snapshot.depth is not None:
            yield from _queues(snapshot.depth)


def _node(snapshot: Snapshot) -> Iterator[Metric]:
    figures = snapshot.figures
    info = GaugeMetricFamily(
        "rota_node_info", "1; its labels say which node this is.", labels=["cluster", "node", "version"]
    )
    info.add_metric([_plain(snapshot.cluster), _plain(figures.node), snapshot.version], 1)
    yield info
    yield _gauge("rota_ready", "1 if the node can work, as /readyz says.", figures.why_not_ready is None)
    yield _gauge("rota_master", "1 on the master.", figures.is_master)
    yield _gauge("rota_members", "Members of the cluster, as this node knows them.", snapshot.members)
    yield _gauge("rota_runners_busy", "Jobs that this node's runners have begun.", figures.running)
    capacity = GaugeMetricFamily(
        "rota_runners_capacity", "Jobs that this node's runners can run at a time.", labels=["mode"]
    )
    for mode, size in figures.capacity.items():
        capacity.add_metric([mode], size)
    yield capacity
    if figures.lease_margin_s is not None:
        yield _gauge(
            "rota_lease_margin_seconds",
            "Until the deadline of this node's lease: at 0 its runners are killed.", figures.lease_margin_s,
        )
    if figures.lease_ttl_s is not None:
        yield _gauge("rota_lease_ttl_seconds", "How long a renewed lease of this node runs.", figures.lease_ttl_s)
    yield _gauge("rota_commit_backlog", "Writes that wait for the next commit.", figures.commit_backlog)


def _jobs(tally: Tally, enqueued: int) -> Iterator[Metric]:
    yield CounterMetricFamily("rota_jobs_enqueued", "Jobs that this node has stored for clients.", value=enqueued)
    ended = CounterMetricFamily(
        "rota_jobs_ended", "Runs of jobs that ended on this node: ok, failed, retry, snooze, cancelled, expired.",
        labels=["task", "outcome"],
    )
    for task, outcomes in tally.ended.items():
        for outcome, count in outcomes.items():
            ended.add_metric([_plain(task), outcome], count)
    yield ended
    yield _durations("rota_job_run_seconds", "How long one attempt of a job took.", "task", tally.ran)
    yield _durations(
        "rota_job_wait_seconds", "From a job's first enqueue to the hand-over to a runner.", "queue",
        tally.waited,
    )


def _masters(tally: Tally) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "rota_elections", "How often this node became master.", value=tally.events.get("became_master", 0)
    )
    takeovers = HistogramMetricFamily(
        "rota_takeover_seconds",
        "How long it took to move the claims of a lost node back to their queues. Counted by the master that did it.",
    )
    takeovers.add_metric([], _buckets(tally.takeovers), tally.takeovers.total_s)
    yield takeovers
    yield CounterMetricFamily(
        "rota_takeover_claims", "Claims that were moved back from lost nodes.", value=tally.takeover_claims
    )
    if tally.last_takeover_s is not None:
        yield _gauge(
            "rota_last_takeover_seconds", "How long the last takeover took that this node made.", tally.last_takeover_s
        )
    events = CounterMetricFamily(
        "rota_events", "What happened on this node, by the stable name of the event.", labels=["event"]
    )
    for name, count in sorted(tally.events.items()):
        events.add_metric([name], count)
    yield events


def _store(store: StoreFigures) -> Iterator[Metric]:
    commits = HistogramMetricFamily("rota_commit_seconds", "How long etcd took over a commit of this node.")
    commits.add_metric([], _buckets(store.commits), store.commits.total_s)
    yield commits
    sizes = HistogramMetricFamily("rota_commit_operations", "Operations in one commit.")
    sizes.add_metric([], _cumulated(SIZES, store.operations), store.operations_total)
    yield sizes
    yield CounterMetricFamily(
        "rota_commit_bytes", "Bytes of values that this node has written.", value=store.bytes_total
    )
    yield CounterMetricFamily(
        "rota_commits_refused", "Commits of which a condition did not hold: they were sorted out and tried again.",
        value=store.refused,
    )
    errors = CounterMetricFamily(
        "rota_store_errors", "Calls that etcd did not carry out, by call and class of error.", labels=["call", "error"]
    )
    for (call, error), count in sorted(store.errors.items()):
        errors.add_metric([call, error], count)
    yield errors
    status = store.status
    if status is None:
        return
    yield _gauge("rota_store_bytes", "Size of etcd's database file.", status.bytes_total)
    yield _gauge("rota_store_in_use_bytes", "Of it, what is in use.", status.bytes_in_use)
    if status.quota_bytes is not None:
        yield _gauge("rota_store_quota_bytes", "etcd's quota.", status.quota_bytes)
    yield _gauge("rota_store_full", "1 while etcd's NOSPACE alarm is on.", status.no_space)
    yield _gauge("rota_store_revision", "The store's revision.", status.revision)


def _queues(depth: Depth) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "rota_queue_jobs", "Jobs of a queue by where they are. Said by the master.", labels=["queue", "state"]
    )
    oldest = GaugeMetricFamily(
        "rota_queue_oldest_seconds", "How long the oldest job of a queue has waited. Said by the master.",
        labels=["queue"],
    )
    rows = sorted(depth.rows, key=lambda row: -row.waiting)
    for row in rows[:QUEUES_MAX]:
        for state in STATES:
            jobs.add_metric([_plain(row.queue), state], getattr(row, state))
        oldest.add_metric([_plain(row.queue)], row.oldest_s or 0.0)
    rest = rows[QUEUES_MAX:]
    if rest:
        for state in STATES:
            jobs.add_metric([OTHERS, state], sum(getattr(row, state) for row in rest))
        oldest.add_metric([OTHERS], max(row.oldest_s or 0.0 for row in rest))
    yield jobs
    yield oldest
    yield _gauge(
        "rota_queue_jobs_at_least",
        "1 if counting stopped at a limit, so that some queue holds more than rota_queue_jobs says.", depth.at_least,
    )
    yield GaugeMetricFamily(
        "rota_queue_counted_timestamp_seconds", "When the queues were counted.", value=depth.at
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _durations(name: str, text: str, label: str, table: dict[str, Distribution]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=[label])
    for key, distribution in table.items():
        family.add_metric([_plain(key)], _buckets(distribution), distribution.total_s)
    return family


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    return _cumulated(BUCKETS_S, distribution.counts)


def _cumulated(bounds: Iterable[float], counts: list[int]) -> list[tuple[str, float]]:
    total, found = 0, []
    for bound, count in zip([*(str(float(bound)) for bound in bounds), "+Inf"], counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found


def _plain(text: str) -> str:
    """A label is UTF-8; lone surrogates are not."""
    return text.encode("utf-8", "backslashreplace").decode()
