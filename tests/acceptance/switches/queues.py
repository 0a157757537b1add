"""Switches: limits, serial queues, delays, what is stored and when."""

from __future__ import annotations

from typing import Any

from ..switching import NEVER_S, PROMISES, change, declared_otherwise, switch

# -- limits, queues, delays --------------------------------------------------------------------------------------------


@switch("E4 T6 T8", f"{PROMISES}: limits_hold_over_the_cluster", "rota.cluster.master.dispatch.limits",
        fails=r"most_at_once\(journal\) == limit -> AssertionError")
def max_concurrency(limits: Any) -> None:
    """The limit of a task is not looked at."""
    limits.Limits.left_of_task = lambda self, task: 1_000_000


@switch("E4 T8", f"{PROMISES}: limits_hold_over_the_cluster", "rota.cluster.master.dispatch.picture",
        fails=r"most_at_once\(journal\) == limit -> AssertionError")
def max_concurrency_of_a_queue(picture: Any) -> None:
    """The limit of a queue is not looked at."""
    from msgspec.structs import replace  # not at the top: the guard, which has no packages, reads this module

    def without(settings: Any) -> Any:
        def _queue_settings(self: Any, event: Any) -> None:
            settings(self, event)
            for queue in self.queues.values():
                queue.settings = replace(queue.settings, max_concurrency=None)

        return _queue_settings

    change(picture.Picture, "_queue_settings", without)


@switch("T6", "cluster/master/dispatch/test_dispatch.py: test_a_limit_holds_across_nodes_and_bundles",
        "rota.cluster.master.dispatch.picture",
        fails=r"len\(table\.given\(\)\) == 3 -> AssertionError")
def limits_count_what_runs(picture: Any) -> None:
    """A limit looks at the one bundle only, not at what runs already."""
    picture.Picture._count_jobs = lambda self, held, jobs: None


@switch("E4 T7 T8 B10", f"{PROMISES}: without_a_limit_many_run_at_once", "rota.client.tasks.task",
        fails=r"gather\(.* -> .*ResultTimeout", patience_s=NEVER_S)
def no_limit_by_default(tasks: Any) -> None:
    """A task that says nothing runs one job at a time, as Toniq's do."""
    declared_otherwise(
        tasks,
        lambda said: {"max_concurrency": 1} if said.level == "durable" and said.max_concurrency is None else {},
    )


@switch("E12", f"{PROMISES}: without_a_limit_many_run_at_once", "rota.worker.pool.runners",
        fails=r"gather\(.* -> .*ResultTimeout", patience_s=NEVER_S)
def several_runners(runners: Any) -> None:
    """A node has one runner of plain functions, whatever `--sync` says."""
    _sync_runners(runners, lambda wanted: 1)


@switch("E12", "worker/pool/test_runners.py: test_sync_jobs_share_the_runners", "rota.worker.pool.dispatch",
        fails=r"len\(rig\.outcomes\) == 10\) -> TimeoutError", patience_s=NEVER_S)
def runners_help_each_other(dispatch: Any) -> None:
    """What waits behind a job that takes long waits for it."""
    dispatch.Dispatch.steal = lambda self, now: None


@switch("E13", f"{PROMISES}: a_runner_runs_one_plain_job_at_a_time", "rota.worker.pool.runners",
        fails=r"most_at_once\(journal\) <= 6 .* -> AssertionError")
def as_many_runners_as_asked(runners: Any) -> None:
    """A node has three times as many runners of plain functions as `--sync` says."""
    _sync_runners(runners, lambda wanted: 3 * wanted)


def _sync_runners(runners: Any, count: Any) -> None:
    def counted(init: Any) -> Any:
        def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
            wanted = count(config.sync_runners)
            from msgspec.structs import replace

            init(self, replace(config, sync_runners=wanted), *args, **kwargs)

        return __init__

    change(runners.RunnerPool, "__init__", counted)


@switch("T14", f"{PROMISES}: a_limit_is_named", "rota.cluster.admin.reasons",
        fails=r"await until\(.* -> AssertionError: not within .* it says so", patience_s=NEVER_S)
def why_a_job_waits(reasons: Any) -> None:
    """The status of a job does not name the limit that holds it back."""
    async def _held_back(self: Any, token: Any, task: Any, queue: Any, able: Any) -> str:
        return "others come before it"

    reasons.Reasons._held_back = _held_back


@switch("T14", "acceptance/test_cli.py: test_where_a_job_is_and_why", "rota.cluster.admin.jobs",
        fails=r"== .scheduled. -> AssertionError")
def where_a_job_is(jobs: Any) -> None:
    """A job is waiting, wherever it is."""
    def waiting(look: Any) -> Any:
        async def _view(self: Any, *arguments: Any) -> Any:
            from msgspec.structs import replace

            return replace(await look(self, *arguments), place="waiting")

        return _view

    change(jobs.Jobs, "_view", waiting)


@switch("E14 Q2", f"{PROMISES}: a_serial_queue_waits_for_success", "rota.cluster.state.moves",
        fails=r"the second job blocks. -> |the second job blocks.\) -> AssertionError: not within", patience_s=NEVER_S)
def a_failure_blocks(moves: Any) -> None:
    """A job that has failed for good leaves its serial queue, as it leaves any other."""
    change(moves, "claim", lambda claim: lambda *arguments, serial, **more: claim(*arguments, serial=False, **more))


@switch("E14 Q2", "cluster/master/dispatch/test_dispatch.py: test_the_head_of_a_serial_queue_blocks_whatever_its_state",
        "rota.cluster.master.dispatch.picture", fails=r"table\.given\(\) == \[\] -> AssertionError")
def serial_queues(picture: Any) -> None:
    """A serial queue is as any other."""
    picture.Picture._queue_settings = lambda self, event: None


@switch("E14", f"{PROMISES}: a_serial_queue_waits_for_success", "rota.cluster.admin.operations",
        fails=r"handle in handles\] == \[1, 2, 3\] -> .*ResultTimeout", patience_s=NEVER_S)
def retry_head(operations: Any) -> None:
    """The head of a serial queue is found, and not retried."""
    _head_untouched(operations)


@switch("Q2", f"{PROMISES}: a_head_can_be_skipped", "rota.cluster.admin.operations",
        fails=r"after\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def skip_head(operations: Any) -> None:
    """The head of a serial queue is found, and not skipped."""
    _head_untouched(operations)


def _head_untouched(operations: Any) -> None:
    from rota.cluster.ledger.commits import Verdict

    def looking(head: Any) -> Any:
        async def _head(self: Any, queue: str, verb: str) -> Any:
            class Deaf:
                async def submit(self_, write: Any) -> Any:
                    return Verdict(True, 1)

            commits, self._commits = self._commits, Deaf()
            try:
                return await head(self, queue, verb)
            finally:
                self._commits = commits

        return _head

    change(operations.Operations, "head", looking)


@switch("Q5", f"{PROMISES}: a_serial_queue_waits_for_success", "rota.cluster.master.dispatch.aggregator",
        fails=r"other\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def queues_are_isolated(aggregator: Any) -> None:
    """A queue that is blocked holds up all others."""
    def together(choose: Any) -> Any:
        def _next(self: Any, queue: Any, now: float) -> Any:
            heads = [
                lane.items[place] for other in self.queues.values() if other.settings.serial
                for window in other.windows.values() for place, lane in window.places.items()
            ]
            return None if any(head.token.blocked for head in heads) else choose(self, queue, now)

        return _next

    change(aggregator.Aggregator, "_next", together)


@switch("Q5", "cluster/master/dispatch/test_dispatch.py: test_queues_take_turns", "rota.cluster.master.dispatch.turns",
        fails=r"assert .small. in .* -> AssertionError")
def queues_take_turns(turns: Any) -> None:
    """The first queue gives out all it has before another has its turn."""
    turns.Turns.served = lambda self, queue: None


@switch("T18", f"{PROMISES}: jobs_start_by_priority_and_in_order", "rota.cluster.master.dispatch.aggregator",
        fails=r"assert started == .* -> AssertionError")
def priorities(aggregator: Any) -> None:
    """The lowest priority goes first."""
    aggregator.Queue.by_priority = lambda self: sorted(self.windows.items())


@switch("T18", f"{PROMISES}: jobs_start_by_priority_and_in_order", "rota.cluster.state.keys",
        fails=r"assert started == .* -> AssertionError")
def order_of_enqueue(keys: Any) -> None:
    """The last one enqueued goes first."""
    def backwards(job: Any) -> Any:
        return lambda self, queue, priority, order, bundle: job(self, queue, priority, 10**9 - order, bundle)

    change(keys.Keys, "job", backwards)


@switch("T18", "cluster/master/dispatch/test_dispatch.py: test_jobs_go_out_in_key_order_up_to_the_slots",
        "rota.cluster.master.dispatch.aggregator",
        fails=r"assert table\.given\(\) == .* -> AssertionError")
def slots_are_counted(aggregator: Any) -> None:
    """A node is given whatever there is."""
    aggregator.NodeLoad.room = lambda self, mode, now: 1_000
    aggregator.NodeLoad.idle = lambda self, mode: 1_000


@switch("Q11 B5", f"{PROMISES}: a_lone_job_starts_at_once", "rota.cluster.master.term",
        fails=r"sorted\(waits\)\[3\] < 0\.5.* -> AssertionError")
def watches_not_polling(master: Any) -> None:
    """The master looks for work once a second."""
    import asyncio

    master.TICK_S = 1.0

    def sleepy(see: Any) -> Any:
        def _see(self: Any, changes: Any) -> None:
            bell, self._wake = self._wake, asyncio.Event()
            see(self, changes)
            self._wake = bell

        return _see

    change(master.Master, "_see", sleepy)


@switch("B5 X12", f"{PROMISES}: delays_of_all_kinds", "rota.cluster.master.duties.scheduler",
        fails=r"handle\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def due_jobs_are_moved(scheduler: Any) -> None:
    """What is due stays scheduled."""
    async def move_due(self: Any) -> None:
        self._next_ms = None

    scheduler.Scheduler.move_due = move_due


@switch("B5 X12", f"{PROMISES}: delays_of_all_kinds", "rota.client.calls.order",
        fails=r">= asked \+ timedelta.* -> AssertionError")
def delays(order: Any) -> None:
    """Nothing waits."""
    change(order.Routed, "using", lambda using: lambda self, run_after=None, **said: using(self, **said))


# -- persistence -------------------------------------------------------------------------------------------------------


@switch("E2 T23 T36", f"{PROMISES}: an_enqueue_returns_when_the_job_is_stored", "rota.cluster.node.intake.intake",
        fails=r"bundle_of\(handle\)\.encode\(\) in .* -> AssertionError")
def stored_before_the_answer(intake: Any) -> None:
    """An enqueue is acknowledged a second before it is stored."""
    import asyncio

    late: set[Any] = set()

    def hasty(enqueue: Any) -> Any:
        async def _enqueue(self: Any, bundles: list[Any], seen: int) -> list[Any]:
            async def store() -> None:
                await asyncio.sleep(1.0)
                await enqueue(self, bundles, seen)

            late.add(asyncio.create_task(store()))
            return [intake.Receipt(bundle.bundle, 1, 1, bundle.level) for bundle in bundles]

        return _enqueue

    change(intake.Intake, "enqueue", hasty)


@switch("T9", f"{PROMISES}: levels_of_persistence", "rota.client.tasks.task",
        fails=r"run\(app\.fleeting\) == .none. -> AssertionError")
def level_per_task(tasks: Any) -> None:
    """The level that a task asks for is not heard."""
    declared_otherwise(tasks, lambda said: {"level": "durable"})


@switch("T10 T45", f"{PROMISES}: levels_of_persistence", "rota.client.calls.order",
        fails=r"level=.delayed.\)\) == .delayed. -> AssertionError")
def level_per_enqueue(order: Any) -> None:
    """The level that an enqueue asks for is not heard."""
    change(order.Routed, "using", lambda using: lambda self, level=None, **said: using(self, **said))


@switch("T9 T10 T45 T47", f"{PROMISES}: what_each_level_stores", "rota.cluster.node.intake.intake",
        fails=r"stored\(.none.\) == \(0, 0\) -> AssertionError")
def level_none(intake: Any) -> None:
    """Jobs of level none are stored as any other."""
    _all_durable(intake, "none")


@switch("T45 T46", f"{PROMISES}: what_each_level_stores", "rota.cluster.node.intake.intake",
        fails=r"assert 0 < body == claim -> AssertionError")
def level_delayed(intake: Any) -> None:
    """Jobs of level delayed are stored first, and wait for the master."""
    _all_durable(intake, "delayed")


def _all_durable(intake: Any, level: str) -> None:
    def storing(enqueue: Any) -> Any:
        async def _enqueue(self: Any, bundles: list[Any], seen: int) -> Any:
            from msgspec.structs import replace

            bundles = [replace(bundle, level="durable") if bundle.level == level else bundle for bundle in bundles]
            return await enqueue(self, bundles, seen)

        return _enqueue

    change(intake.Intake, "enqueue", storing)


@switch("T12", f"{PROMISES}: the_store_is_used_sparingly", "rota.client.model",
        fails=r"keys_written\(rig\) - before <= 25 -> AssertionError")
def bundles(model: Any) -> None:
    """Every job travels alone."""
    model.JOBS_PER_BUNDLE = model.JOBS_PER_BUNDLE_MAX = 1


@switch("T36", "client/transports/test_connection.py: test_no_definite_answer_within_the_window",
        "rota.client.transports.connection", fails=r"rota\.enqueue\(add, 1\) -> .*LinkLost")
def the_unknown_is_named(connection: Any) -> None:
    """An enqueue of unknown fate looks like one that never left."""
    connection.UNSURE = ()


@switch("E6 T38", "conformance/test_transactions.py: test_a_transaction_is_one_revision", "rota.cluster.ledger.memory",
        fails=r"== before \+ 1 -> AssertionError")
def both_stores_are_alike(memory: Any) -> None:
    """In the memory store each operation is a transaction of its own."""
    def piecemeal(commit: Any) -> Any:
        async def _commit(self: Any, txn: Any) -> Any:
            for op in txn.then[:-1]:
                await commit(self, memory.Txn((), (op,)))
            return await commit(self, memory.Txn(txn.conditions, txn.then[-1:], txn.orelse))

        return _commit

    change(memory.MemoryLedger, "commit", piecemeal)


@switch("T24", "conformance/test_watches.py: test_history_first_then_what_comes", "rota.cluster.ledger.memory",
        fails=r"until\(watch, second\).* -> ")
def watches_begin_with_history(memory: Any) -> None:
    """A watch tells only what comes."""
    def from_now(watch: Any) -> Any:
        return lambda self, key, range_end=b"", *, from_revision, **named: watch(
            self, key, range_end, from_revision=max(from_revision, self.store.revision), **named
        )

    change(memory.MemoryLedger, "watch", from_now)


@switch("T44", "cluster/ledger/test_etcd_faults.py: test_a_watch_survives_cuts", "rota.cluster.ledger.watching",
        fails=r"collect\(watch, 2 \* total\) -> ")
def watches_are_resumed(watching: Any) -> None:
    """A watch whose stream was cut has ended."""
    def final(read: Any) -> Any:
        async def _read_stream(self: Any, endpoint: Any) -> None:
            try:
                await read(self, endpoint)
            except (watching.errors.LedgerUnavailable, watching.errors.WriteUnknown) as error:
                raise watching.errors.LedgerDenied(str(error)) from None

        return _read_stream

    change(watching.EtcdWatch, "_read_stream", final)


@switch("T35", "client/transports/test_connection.py: test_waiting_for_results_survives_a_node",
        "rota.client.transports.following", fails=r"follow_calls\) == 1\) -> ", patience_s=NEVER_S)
def clients_follow_on(following: Any) -> None:
    """A client whose link is lost asks nobody else for its results."""
    following.Following.link_lost = lambda self: None


@switch("E7 Q10", "cluster/testing/test_testing.py: test_jobs_of_both_kinds_run", "rota.cluster.testing.local",
        fails=r"result\(10\) == 3 -> .*ResultTimeout")
def a_cluster_in_memory(local: Any) -> None:
    """The cluster in memory takes jobs, and runs none."""
    local.LocalRunners.submit = lambda self, work: None
