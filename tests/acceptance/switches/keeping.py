"""Switches: what is kept and for how long, what an enqueue says of its retries, and forgetting a cluster."""

from __future__ import annotations

from typing import Any

from ..switching import NEVER_S, change, switch

KEEPING = "acceptance/test_keeping.py"


@switch("B6", f"{KEEPING}: finished_jobs_are_kept_as_asked", "rota.cluster.node.outcomes.reporter",
        fails=r"assert views\.keys\(\) == .* -> AssertionError")
def keep_finished(reporter: Any) -> None:
    """Nothing is kept of jobs that ended well."""
    reporter.Reporter._keep_finished_of = lambda self, held: 0.0


@switch("B6", f"{KEEPING}: finished_jobs_are_kept_per_job_of_a_bundle", "rota.cluster.node.outcomes.settle",
        fails=r"== good -> AssertionError")
def only_good_jobs_are_kept(outcomes: Any) -> None:
    """A bundle is kept as a whole, whatever became of its jobs."""
    def whole(keep: Any) -> Any:
        def _finished(context: Any, held: Any, indexes: list[int]) -> Any:
            return keep(context, held, list(held.header.indexes))

        return _finished

    change(outcomes, "_finished", whole)


@switch("B4 E15 Q12 T43", f"{KEEPING}: an_enqueue_says_how_it_is_retried", "rota.client.options.backoff",
        fails=r"handle\.aresult\(PATIENCE_S\) == 3 -> .*ResultTimeout", patience_s=NEVER_S)
def retry_options_of_an_enqueue(backoff: Any) -> None:
    """Only the task's own backoff counts."""
    change(backoff, "delay_s", lambda delay: lambda info, said, attempt: delay(info, backoff.Options(), attempt))


@switch("E10 T13", f"{KEEPING}: test_old_failed_jobs_are_dropped_where_asked", "rota.cluster.master.duties.retention",
        fails=r"they are dropped.* -> AssertionError", patience_s=NEVER_S)
def keep_failed(retention: Any) -> None:
    """The failed set keeps everything, whatever was asked for."""
    retention.Retention._drop = lambda self, record: None


@switch("B7", f"{KEEPING}: test_reset_forgets_one_cluster_and_only_while_nobody_is_there",
        "rota.cluster.cli.manage.reset", fails=r"has nodes.* -> Failed: DID NOT RAISE")
def reset_spares_a_living_cluster(reset: Any) -> None:
    """A cluster is forgotten under the feet of its nodes."""
    change(reset, "Condition", lambda condition: lambda *_: condition(b"no such key", reset.Target.CREATE, "==", 0))
