"""The table of switches: each takes one feature out of the production code, and names the test that misses it.

They prove the tests, not the product. One entry is a function that is given a module (in the test's process and in
those of nodes, runners and guards: whoever loads it) and breaks it there; see `switching.py`. `python -m pytest
tests/acceptance/test_switches.py` switches off some of them, with `ROTA_SWITCHES=all` all of them.

Standard library only, at the head: it is imported where a runner starts.
"""

from __future__ import annotations

from typing import Any

from .switching import change, switch

NEVER_S = 4.0
"""The patience for what will never come: more than it takes when the feature is on, on a busy machine."""

PROMISES = "acceptance/test_promises.py"
TAKEOVER = "acceptance/test_takeover.py"
CLUSTER = "acceptance/test_cluster.py"


@switch("E4 T6 T8", f"{PROMISES}: limits_hold_over_the_cluster", "rota.cluster.aggregator",
        fails=r"most_at_once\(journal\) == limit -> AssertionError")
def max_concurrency(aggregator: Any) -> None:
    """The limit of a task is not looked at."""
    def without(allowed: Any) -> Any:
        def _allowed(self: Any, queue: Any, token: Any) -> int:
            tasks, self.tasks = self.tasks, {}
            try:
                return int(allowed(self, queue, token))
            finally:
                self.tasks = tasks

        return _allowed

    change(aggregator.Aggregator, "_allowed", without)


# -- arguments, results


@switch("E3 T2", f"{CLUSTER}: arguments_arrive_as_enqueued", "rota.client.codec", fails=r"== given -> AssertionError")
def native_arguments(codec: Any) -> None:
    """Arguments go through JSON, as far as that takes them."""
    def jsoned(value: Any) -> Any:
        if isinstance(value, tuple | list | set | frozenset):
            return [jsoned(item) for item in value]
        if isinstance(value, dict):
            return {str(name): jsoned(item) for name, item in value.items()}
        return value.decode("latin-1") if isinstance(value, bytes) else value

    def through_json(dump: Any) -> Any:
        return lambda args, kwargs: dump(tuple(jsoned(args)), jsoned(kwargs))

    change(codec, "dump_arguments", through_json)


@switch("B8", f"{PROMISES}: json_arrives_as_written", "rota.client.codec", fails=r"assert arrived == .* -> AssertionError")
def json_key_order(codec: Any) -> None:
    """The keys of JSON arguments are sorted, as many stores do it."""
    import json

    def in_order(load: Any) -> Any:
        def load_arguments(kind: str, payload: bytes) -> Any:
            return load(kind, json.dumps(json.loads(payload), sort_keys=True).encode() if kind == "json" else payload)

        return load_arguments

    change(codec, "load_arguments", in_order)


@switch("B8", "cluster/test_http.py: test_json_arrives_exactly", "rota.client.codec", fails="== .*value.* -> AssertionError")
def json_large_numbers(codec: Any) -> None:
    """Numbers of JSON arguments are floats, as in JavaScript."""
    import json

    def as_floats(load: Any) -> Any:
        def load_arguments(kind: str, payload: bytes) -> Any:
            if kind != "json":
                return load(kind, payload)
            call = json.loads(payload, parse_int=float)
            return tuple(call["args"]), call["kwargs"]

        return load_arguments

    change(codec, "load_arguments", as_floats)


@switch("B6", f"{CLUSTER}: the_store_is_left_clean", "rota.cluster.outcomes", fails=r"assert not \[record\.key .* -> AssertionError")
def finished_jobs_are_deleted(outcomes: Any) -> None:
    """The arguments of a job that has ended stay in the store."""
    def keeping(end: Any) -> Any:
        def _end_ops(keys: Any, clock: Any, held: Any, done: int) -> list[Any]:
            return [op for op in end(keys, clock, held, done) if not op.key.startswith(keys.bodies)]

        return _end_ops

    change(outcomes, "_end_ops", keeping)


@switch("B6", f"{PROMISES}: results_are_kept_as_long_as_asked", "rota.cluster.executor", fails=r"== \(1, 0\) -> AssertionError")
def keep_result(executor: Any) -> None:
    """Every result is kept for an hour, whatever was asked for."""
    executor.Executor._keep_result_of = lambda self, held: 3600.0


@switch("B6", f"{PROMISES}: results_are_kept_as_long_as_asked", "rota.cluster.buckets", fails=r"lifetime_s.* -> AssertionError")
def results_last(buckets: Any) -> None:
    """Results are gone after a minute."""
    change(buckets.Bucket, "__init__", lambda init: lambda self, ledger, clock, rng, _: init(self, ledger, clock, rng, 0.0))


@switch("E3", "client/test_codec.py: test_what_pickle_refuses_goes_through_cloudpickle", "rota.client.codec", fails=r"codec\.dump_arguments.* -> .*NotSerializable")
def what_pickle_refuses(codec: Any) -> None:
    """What pickle refuses is refused."""
    def refuse(value: Any) -> bytes:
        raise TypeError("pickle says no")

    codec._cloudpickle = refuse


# -- retries, errors


@switch("E8 T28", f"{PROMISES}: a_job_is_retried_until_it_succeeds", "rota.worker.execution", fails=r"== 3 -> AssertionError")
def done_only_on_success(execution: Any) -> None:
    """A job that raised counts as done."""
    execution.Call.failed = lambda self, index, error: execution.Outcome(index, "ok", execution.NONE_PICKLED)


@switch("E9 T5 X7 X13 Q1", f"{PROMISES}: a_job_is_retried_until_it_succeeds", "rota.client.retries", fails=r"aresult.* -> .*JobFailed")
def retries(module: Any) -> None:
    """Nothing is tried again."""
    module.Retries.decide = lambda self, info, error, attempt, said=None: module.Decision(None)


@switch("E9", f"{PROMISES}: a_job_is_retried_until_it_succeeds", "rota.worker.execution", fails=r"second - first >= 0\.05 .* -> AssertionError")
def delay_between_attempts(execution: Any) -> None:
    """Jobs are tried again at once."""
    def at_once(decide: Any) -> Any:
        def _decide(self: Any, error: BaseException) -> Any:
            decision = decide(self, error)
            return decision if decision.delay_s is None else decision._replace(delay_s=0.0)

        return _decide

    change(execution.Call, "_decide", at_once)


@switch("E9 T5", "client/test_retries.py: test_retries_are_on_by_default", "rota.client.backoff", fails=r"== \(5, 1\.0, 3600\.0\) -> AssertionError")
def retries_by_default(backoff: Any) -> None:
    """A task that says nothing is tried once."""
    backoff.MAX_ATTEMPTS = 1


@switch("Q1 X7 X13", f"{PROMISES}: an_attempt_is_recorded", "rota.cluster.outcomes", fails=r"view\.attempt, view\.why\) == .* -> AssertionError")
def attempts_are_counted(outcomes: Any) -> None:
    """The number of the attempt is not kept with the job."""
    def uncounted(again: Any) -> Any:
        def _again(claim: Any, outcome: Any) -> Any:
            return outcomes.replace(again(claim, outcome), attempt=claim.attempt)

        return _again

    change(outcomes, "_again", uncounted)


@switch("Q1", f"{PROMISES}: an_attempt_is_recorded", "rota.cluster.outcomes", fails=r"token\.error\) == .* -> AssertionError")
def errors_are_recorded(outcomes: Any) -> None:
    """The last error is not kept with the job."""
    change(outcomes, "_again", lambda again: lambda claim, outcome: outcomes.replace(again(claim, outcome), error=""))


@switch("E11 T30 T39", f"{PROMISES}: errors_are_reported_only_when_the_retries_are_used_up", "rota.worker.execution", fails=r"\(folder / .reports.\).* -> AssertionError")
def no_report_before_the_end(execution: Any) -> None:
    """The hooks are called at every failure."""
    def reporting(decide: Any) -> Any:
        def _decide(self: Any, error: BaseException) -> Any:
            decision = decide(self, error)
            if decision.delay_s is not None:
                execution.hooks.report(error)
            return decision

        return _decide

    change(execution.Call, "_decide", reporting)


@switch("E11 T11 T30 T39", f"{PROMISES}: errors_are_reported_only_when_the_retries_are_used_up", "rota.worker.hooks", fails=r"\(folder / .reports.\).* -> FileNotFoundError")
def error_hooks(hooks: Any) -> None:
    """No hook is called."""
    hooks.report = lambda error: None


@switch("E11 T11 T39", f"{PROMISES}: errors_are_reported_only_when_the_retries_are_used_up", "rota.worker.execution", fails=r"assert levels == .* -> AssertionError")
def errors_in_the_log(execution: Any) -> None:
    """The last failure is logged as the others are."""
    execution.log.error = execution.log.warning


@switch("X14 T13", f"{PROMISES}: errors_are_reported_only_when_the_retries_are_used_up", "rota.client.retries", fails=r"handle\.aresult\(PATIENCE_S\) -> .*ResultTimeout", patience_s=NEVER_S)
def the_last_attempt(module: Any) -> None:
    """Jobs are tried for ever."""
    change(module.Retries, "decide", lambda decide: lambda self, info, error, attempt, said=None: decide(self, info, error, 1))


@switch("E15 Q12", f"{PROMISES}: attempts_per_enqueue", "rota.client.retries", fails=r"failed after 1 attempt.* -> AssertionError: Regex pattern did not match")
def max_attempts_per_enqueue(module: Any) -> None:
    """Only the task says how often a job is tried."""
    change(module.Retries, "decide", lambda decide: lambda self, info, error, attempt, said=None: decide(self, info, error, attempt))


@switch("T43 B3", "client/test_retries.py: test_the_number_of_attempts_per_task_and_per_enqueue", "rota.client.tasks", fails=r"shout\.retry_decision\(error, 3\)\.delay_s is None -> AssertionError")
def max_attempts_per_task(tasks: Any) -> None:
    """Every task has five attempts."""
    def without(init: Any) -> Any:
        def __init__(self: Any, function: Any, **said: Any) -> None:
            init(self, function, **{name: value for name, value in said.items() if name != "max_attempts"})

        return __init__

    change(tasks.Task, "__init__", without)


@switch("E15 T43", "client/test_retries.py: test_backoff_doubles_up_to_its_cap_and_leaves_half_to_chance", "rota.client.backoff", fails=r"delays\(1\.0\) == .* -> AssertionError")
def exponential_backoff(backoff: Any) -> None:
    """The same delay after every failure."""
    backoff.exponential_s = lambda base_s, cap_s, attempt, chance=None: base_s


@switch("T5", "client/test_retries.py: test_the_schedules_of_those_before_us", "rota.client.backoff", fails=r"\[toniq\(n\) .* -> AssertionError")
def toniqs_schedule(backoff: Any) -> None:
    """Toniq's schedule is the ordinary one."""
    backoff.toniq = backoff.exponential


@switch("Q4", "client/test_retries.py: test_the_schedules_of_those_before_us", "rota.client.backoff", fails=r"\[queuetopia\(n\) .* -> AssertionError")
def queuetopias_schedule(backoff: Any) -> None:
    """Queuetopia's schedule is the ordinary one."""
    backoff.queuetopia = backoff.exponential


@switch("B4", "client/test_retries.py: test_a_plain_callable_decides_the_delay", "rota.client.retries", fails=r"== \[0\.101, 0\.108, 0\.127\] -> AssertionError")
def retry_delay(module: Any) -> None:
    """A function for the delay is not asked."""
    change(module, "retries", lambda made: lambda delay, only_on, never_on: made(None, only_on, never_on))


@switch("B4", f"{PROMISES}: a_backoff_that_raises_fails_the_job_and_says_so", "rota.client.retries", fails=r"handle\.aresult\(PATIENCE_S\) -> .*ResultTimeout", patience_s=NEVER_S)
def a_broken_retry_delay_is_told(module: Any) -> None:
    """A `retry_delay` that raises is as good as none."""
    def forgiving(decide: Any) -> Any:
        def _delay(self: Any, info: Any, attempt: int) -> Any:
            decision = decide(self, info, attempt)
            return decision if decision.delay_s is not None else module.Decision(3600.0)

        return _delay

    change(module.Retries, "_delay", forgiving)


@switch("E10 T13", f"{PROMISES}: the_failed_set", "rota.cluster.operations", fails=r"retry_failed\(error=.OSError.\) == 1 -> AssertionError")
def failed_jobs_can_be_retried(operations: Any) -> None:
    """`retry_failed` finds its jobs, and leaves them where they are."""
    operations.Operations._retry_one = lambda self, record, failed, failure: None


@switch("E10 T13", f"{PROMISES}: the_failed_set", "rota.cluster.operations", fails=r"delete_failed\(\[second\.id\]\) == 1 -> AssertionError")
def failed_jobs_can_be_deleted(operations: Any) -> None:
    """`delete_failed` finds its jobs, and leaves them where they are."""
    operations.Operations._delete_one = lambda self, record, failed, failure: None


@switch("T29 T13", f"{CLUSTER}: failures_carry_their_traceback", "rota.cluster.outcomes", fails=r"\(failed,\) = .* -> ValueError: not enough values")
def failed_jobs_are_recorded(outcomes: Any) -> None:
    """There is no failed set."""
    outcomes._failed_ops = lambda *arguments: []


@switch("T29", f"{CLUSTER}: failures_carry_their_traceback", "rota.worker.execution", fails=r"in caught\.value\.traceback -> AssertionError")
def tracebacks(execution: Any) -> None:
    """A failure has no traceback."""
    execution.trace_of = lambda error: ""


@switch("E10", "acceptance/test_cli_operate.py: test_a_shell_has_a_client", "rota.cluster.cli.shell", fails=r"done\.returncode == 0, done\.stderr -> AssertionError|assert re\.search\(.* -> AssertionError")
def the_shell(shell: Any) -> None:
    """The prompt of `rota shell` is a bare one."""
    interact = shell.code.interact
    shell.code.interact = lambda banner, local, exitmsg: interact(banner, local={}, exitmsg=exitmsg)


# -- timeouts, the context, classes


@switch("T48 B9", f"{PROMISES}: timeouts_of_both_kinds", "rota.cluster.runners", fails=r"enqueue\(task, 60\)\)\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def timeouts_of_plain_functions(runners: Any) -> None:
    """The node does not look at how long a plain function runs."""
    runners.RunnerPool._check_head = lambda self, seat, now: None


@switch("T48 B9", f"{PROMISES}: timeouts_of_both_kinds", "rota.worker.execution", fails=r"TimeoutError: timed out after 0\\.5 s.* -> AssertionError: Regex pattern did not match")
def timeouts_of_coroutines(execution: Any) -> None:
    """An `async def` job is not cancelled at its timeout. (So its runner is killed, two seconds later.)"""
    execution.Call.timeout_s = None


@switch("Q12 T48", f"{PROMISES}: timeouts_of_both_kinds", "rota.client.order", fails=r"timed out after 0\\.2 s.* -> AssertionError: Regex pattern did not match")
def timeout_per_enqueue(order: Any) -> None:
    """Only the task says how long a job may take."""
    change(order.Routed, "using", lambda using: lambda self, timeout=None, **said: using(self, **said))


@switch("B9", "worker/test_harm.py: test_a_sync_job_over_its_time_takes_its_runner_with_it", "rota.cluster.runners", fails=r"rig\.outcome\(key\) -> TimeoutError", patience_s=NEVER_S)
def the_kill_at_the_timeout(runners: Any) -> None:
    """A plain function that is over its time is left alone."""
    runners.RunnerPool._check_head = lambda self, seat, now: None


@switch("B12", f"{PROMISES}: touch_restarts_the_clock", "rota.worker.context", fails=r"touches=20.* -> .*JobFailed.* timed out")
def touch(context: Any) -> None:
    """`rota.touch()` does nothing."""
    context.touch = lambda: None


@switch("B13", f"{PROMISES}: a_job_knows_itself", "rota.worker.context", fails=r"known = await .* -> .*JobFailed")
def current_job(context: Any) -> None:
    """A job does not know itself."""
    context.current_job = lambda: None


@switch("T22", f"{PROMISES}: a_job_knows_itself", "rota.worker.context", fails=r"later\[.fencing_token.\] > .* -> AssertionError")
def fencing_tokens(context: Any) -> None:
    """The fencing token is always the same."""
    import msgspec

    def fixed(current_job: Any) -> Any:
        return lambda: msgspec.structs.replace(current_job(), fencing_token=1)

    change(context, "current_job", fixed)


@switch("Q3", f"{PROMISES}: a_job_knows_itself", "rota.cluster.aggregator", fails=r"known = await .* -> .*ResultTimeout", patience_s=NEVER_S)
def dynamic_queues(aggregator: Any) -> None:
    """A queue that nobody has declared is not served."""
    def declared(choose: Any) -> Any:
        def _next(self: Any, name: str, queue: Any, now: float) -> Any:
            known = name == "default" or queue.settings != aggregator.QueueRecord()
            return choose(self, name, queue, now) if known else None

        return _next

    change(aggregator.Aggregator, "_next", declared)


@switch("T1 X1 X11", f"{PROMISES}: a_class_is_a_worker", "rota.client.workers", fails=r"handles = .* -> .*UnknownTask")
def worker_classes(workers: Any) -> None:
    """A class does not become a task."""
    from rota.client.tasks import make_task

    workers.declare = lambda **said: lambda function: make_task(function, **said)


@switch("X12", f"{PROMISES}: a_class_is_a_worker", "rota.client.workers", fails=r">= 0\.6.* -> AssertionError")
def perform_in_is_minutes(workers: Any) -> None:
    """`perform_in` takes seconds."""
    def perform_in(cls: Any, delay: Any, /, *args: Any, **kwargs: Any) -> Any:
        return cls.task.using(run_after=delay).enqueue(*args, **kwargs)

    workers.Worker.perform_in = classmethod(perform_in)


@switch("X12", "client/test_workers.py: test_enqueueing", "rota.client.workers", fails=r"== \[0\.0, 600\.0, 3\.0\] -> AssertionError")
def perform_in_waits(workers: Any) -> None:
    """`perform_in` does not wait."""
    workers.Worker.perform_in = classmethod(lambda cls, delay, /, *args, **kwargs: cls.perform_async(*args, **kwargs))


@switch("X10 T1", "client/test_workers.py: test_enqueueing", "rota.client.tasks", fails=r"with pytest\.raises\(InvalidJob.*DID NOT RAISE")
def arguments_are_checked(tasks: Any) -> None:
    """Arguments are not compared with the signature."""
    tasks.Task.check = lambda self, args, kwargs: None


@switch("X9", "client/test_workers.py: test_class_options", "rota.client.workers", fails=r"info\.max_attempts\) == .* -> AssertionError")
def retries_of_a_class(workers: Any) -> None:
    """`retries` counts the first attempt, too."""
    workers.attempts = lambda count: count - 1


@switch("T1 T23 T27", f"{CLUSTER}: test_the_whole_path", "rota.client.tasks", fails=r"await arguments_arrive.* -> .*UnknownTask")
def many_tasks_in_a_module(tasks: Any) -> None:
    """A module has one task, its first."""
    def one(declare: Any) -> Any:
        def _declare(function: Any, said: Any) -> Any:
            made = declare(function, said)
            mine = [name for name, task in tasks.registry.items() if task._place[0] == made._place[0]]
            if len(mine) > 1:
                tasks.registry.pop(made.name, None)
            return made

        return _declare

    change(tasks, "_declare", one)


@switch("B14", "client/test_api.py: test_a_job_there_and_back", "rota.client.api", fails=r"await handle == 3 -> TypeError")
def a_handle_is_returned(api: Any) -> None:
    """An enqueue returns nothing."""
    def silent(enqueue: Any) -> Any:
        async def _enqueue(self: Any, *args: Any, **kwargs: Any) -> None:
            await enqueue(self, *args, **kwargs)

        return _enqueue

    change(api.AsyncClient, "enqueue", silent)


@switch("Q9", f"{PROMISES}: a_task_by_its_name", "rota.cluster.directory", fails=r"named.* -> .*UnknownTask")
def tasks_by_name(directory: Any) -> None:
    """Nodes do not know how a task runs that they are asked for by name."""
    async def task_mode(self: Any, task: str) -> None:
        return None

    directory.Directory.task_mode = task_mode


# -- limits, queues, delays


@switch("E4 T8", f"{PROMISES}: limits_hold_over_the_cluster", "rota.cluster.aggregator", fails=r"most_at_once\(journal\) == limit -> AssertionError")
def max_concurrency_of_a_queue(aggregator: Any) -> None:
    """The limit of a queue is not looked at."""
    def without(settings: Any) -> Any:
        def _queue_settings(self: Any, event: Any) -> None:
            settings(self, event)
            for queue in self.queues.values():
                queue.settings = aggregator.msgspec.structs.replace(queue.settings, max_concurrency=None)

        return _queue_settings

    change(aggregator.Aggregator, "_queue_settings", without)


@switch("T6", "cluster/test_aggregator.py: test_a_limit_holds_across_nodes_and_bundles", "rota.cluster.aggregator", fails=r"len\(table\.given\(\)\) == 3 -> AssertionError")
def limits_count_what_runs(aggregator: Any) -> None:
    """A limit looks at the one bundle only, not at what runs already."""
    aggregator.Aggregator._count_jobs = lambda self, held, jobs: None


@switch("T7 T8 B10", f"{PROMISES}: without_a_limit_many_run_at_once", "rota.client.tasks", fails=r"gather\(.* -> .*ResultTimeout", patience_s=NEVER_S)
def no_limit_by_default(tasks: Any) -> None:
    """A task that says nothing runs one job at a time, as Toniq's do."""
    def limited(init: Any) -> Any:
        def __init__(self: Any, function: Any, **said: Any) -> None:
            if said.get("level", "durable") == "durable":
                said.setdefault("max_concurrency", 1)
            init(self, function, **said)

        return __init__

    change(tasks.Task, "__init__", limited)


@switch("E12", f"{PROMISES}: without_a_limit_many_run_at_once", "rota.cluster.runners", fails=r"gather\(.* -> .*ResultTimeout", patience_s=NEVER_S)
def several_runners(runners: Any) -> None:
    """A node has one runner of plain functions, whatever `--sync` says."""
    _sync_runners(runners, lambda wanted: 1)


@switch("E12", "worker/test_runners.py: test_sync_jobs_share_the_runners", "rota.cluster.runners", fails=r"len\(rig\.outcomes\) == 10\) -> TimeoutError", patience_s=NEVER_S)
def runners_help_each_other(runners: Any) -> None:
    """What waits behind a job that takes long waits for it."""
    runners.RunnerPool._steal = lambda self, now: None


@switch("E13", f"{PROMISES}: a_runner_runs_one_plain_job_at_a_time", "rota.cluster.runners", fails=r"most_at_once\(journal\) <= 6 .* -> AssertionError")
def as_many_runners_as_asked(runners: Any) -> None:
    """A node has three times as many runners of plain functions as `--sync` says."""
    _sync_runners(runners, lambda wanted: 3 * wanted)


def _sync_runners(runners: Any, count: Any) -> None:
    def counted(init: Any) -> Any:
        def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
            wanted = count(config.sync_runners)
            init(self, runners.msgspec.structs.replace(config, sync_runners=wanted), *args, **kwargs)

        return __init__

    change(runners.RunnerPool, "__init__", counted)


@switch("T14", f"{PROMISES}: a_limit_is_named", "rota.cluster.status", fails=r"await until\(.* -> AssertionError: not within .* it says so", patience_s=NEVER_S)
def why_a_job_waits(status: Any) -> None:
    """The status of a job does not name the limit that holds it back."""
    async def _limit_reached(self: Any, token: Any, task: Any, queue: Any) -> str:
        return ""

    status.Status._limit_reached = _limit_reached


@switch("T14", "acceptance/test_cli.py: test_where_a_job_is_and_why", "rota.cluster.status", fails=r"== .scheduled. -> AssertionError")
def where_a_job_is(status: Any) -> None:
    """A job is waiting, wherever it is."""
    def waiting(look: Any) -> Any:
        async def _view(self: Any, *arguments: Any) -> Any:
            return status.msgspec.structs.replace(await look(self, *arguments), place="waiting")

        return _view

    change(status.Status, "_view", waiting)


@switch("E14 Q2", f"{PROMISES}: a_serial_queue_waits_for_success", "rota.cluster.master", fails=r"the second job blocks. -> |the second job blocks.\) -> AssertionError: not within", patience_s=NEVER_S)
def a_failure_blocks(master: Any) -> None:
    """A job that has failed for good leaves its serial queue, as it leaves any other."""
    change(master, "claim_of", lambda made: lambda token, fence, serial=False: made(token, fence))


@switch("E14 Q2", "cluster/test_aggregator.py: test_the_head_of_a_serial_queue_blocks_whatever_its_state", "rota.cluster.aggregator", fails=r"table\.given\(\) == \[\] -> AssertionError")
def serial_queues(aggregator: Any) -> None:
    """A serial queue is as any other."""
    aggregator.Aggregator._queue_settings = lambda self, event: None


@switch("E14", f"{PROMISES}: a_serial_queue_waits_for_success", "rota.cluster.operations", fails=r"handle in handles\] == \[1, 2, 3\] -> .*ResultTimeout", patience_s=NEVER_S)
def retry_head(operations: Any) -> None:
    """The head of a serial queue is found, and not retried."""
    _head_untouched(operations)


@switch("Q2", f"{PROMISES}: a_head_can_be_skipped", "rota.cluster.operations", fails=r"after\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def skip_head(operations: Any) -> None:
    """The head of a serial queue is found, and not skipped."""
    _head_untouched(operations)


def _head_untouched(operations: Any) -> None:
    def looking(head: Any) -> Any:
        async def _head(self: Any, queue: str, verb: str) -> Any:
            class Deaf:
                async def write(self_, guards: Any, ops: Any) -> Any:
                    return operations.Verdict(True, 1)

            commits, self._commits = self._commits, Deaf()
            try:
                return await head(self, queue, verb)
            finally:
                self._commits = commits

        return _head

    change(operations.Operations, "head", looking)


@switch("Q5", f"{PROMISES}: a_serial_queue_waits_for_success", "rota.cluster.aggregator", fails=r"other\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def queues_are_isolated(aggregator: Any) -> None:
    """A queue that is blocked holds up all others."""
    def together(choose: Any) -> Any:
        def _next(self: Any, name: str, queue: Any, now: float) -> Any:
            heads = [
                lane.head() for other in self.queues.values() if other.settings.serial
                for window in other.windows.values() for lane in window.lanes.values()
            ]
            blocked = any(head is not None and head.token.blocked for head in heads)
            return None if blocked else choose(self, name, queue, now)

        return _next

    change(aggregator.Aggregator, "_next", together)


@switch("Q5", "cluster/test_aggregator.py: test_queues_take_turns", "rota.cluster.aggregator", fails=r"assert .small. in .* -> AssertionError")
def queues_take_turns(aggregator: Any) -> None:
    """The first queue gives out all it has before another has its turn."""
    def greedy(choose: Any) -> Any:
        def _next(self: Any, name: str, queue: Any, now: float) -> Any:
            earlier = self._turn[: self._turn.index(name)]
            return None if any(self.queues[other].size for other in earlier) else choose(self, name, queue, now)

        return _next

    change(aggregator.Aggregator, "_next", greedy)


@switch("T18", f"{PROMISES}: jobs_start_by_priority_and_in_order", "rota.cluster.aggregator", fails=r"assert started == .* -> AssertionError")
def priorities(aggregator: Any) -> None:
    """The lowest priority goes first."""
    aggregator.Queue.by_priority = lambda self: sorted(self.windows.items())


@switch("T18", f"{PROMISES}: jobs_start_by_priority_and_in_order", "rota.cluster.keys", fails=r"assert started == .* -> AssertionError")
def order_of_enqueue(keys: Any) -> None:
    """The last one enqueued goes first."""
    def backwards(job: Any) -> Any:
        return lambda self, queue, priority, order, bundle: job(self, queue, priority, 10**9 - order, bundle)

    change(keys.Keys, "job", backwards)


@switch("T18", "cluster/test_aggregator.py: test_jobs_go_out_in_key_order_up_to_the_slots", "rota.cluster.aggregator", fails=r"assert table\.given\(\) == .* -> AssertionError")
def slots_are_counted(aggregator: Any) -> None:
    """A node is given whatever there is."""
    aggregator.Seat.room = lambda self, mode, now: 1_000
    aggregator.Seat.idle = lambda self, mode: 1_000


@switch("Q11 B5", f"{PROMISES}: a_lone_job_starts_at_once", "rota.cluster.master", fails=r"sorted\(waits\)\[3\] < 0\.25.* -> AssertionError")
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


@switch("B5 X12", f"{PROMISES}: delays_of_all_kinds", "rota.cluster.scheduler", fails=r"handle\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def due_jobs_are_moved(scheduler: Any) -> None:
    """What is due stays scheduled."""
    async def move_due(self: Any) -> None:
        self._next_ms = None

    scheduler.Scheduler.move_due = move_due


@switch("B5 X12", f"{PROMISES}: delays_of_all_kinds", "rota.client.order", fails=r">= asked \+ timedelta.* -> AssertionError")
def delays(order: Any) -> None:
    """Nothing waits."""
    change(order.Routed, "using", lambda using: lambda self, run_after=None, **said: using(self, **said))


# -- persistence


@switch("E2 T23 T36", f"{PROMISES}: an_enqueue_returns_when_the_job_is_stored", "rota.cluster.intake", fails=r"bundle_of\(handle\)\.encode\(\) in .* -> AssertionError")
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


@switch("E5 T37", f"{PROMISES}: jobs_outlive_all_nodes", "rota.cluster.takeover", fails=r"results = .* -> .*ResultTimeout", patience_s=NEVER_S)
def what_was_left_is_run_again(takeover: Any) -> None:
    """What lies under a node that is gone stays there."""
    _no_takeover(takeover)


def _no_takeover(takeover: Any) -> None:
    async def take_over(*arguments: Any, **more: Any) -> int:
        return 0

    takeover.take_over = take_over


@switch("T9", f"{PROMISES}: levels_of_persistence", "rota.client.tasks", fails=r"run\(app\.fleeting\) == .none. -> AssertionError")
def level_per_task(tasks: Any) -> None:
    """The level that a task asks for is not heard."""
    def durable(init: Any) -> Any:
        def __init__(self: Any, function: Any, **said: Any) -> None:
            init(self, function, **{name: value for name, value in said.items() if name != "level"})

        return __init__

    change(tasks.Task, "__init__", durable)


@switch("T10 T45", f"{PROMISES}: levels_of_persistence", "rota.client.order", fails=r"level=.delayed.\)\) == .delayed. -> AssertionError")
def level_per_enqueue(order: Any) -> None:
    """The level that an enqueue asks for is not heard."""
    change(order.Routed, "using", lambda using: lambda self, level=None, **said: using(self, **said))


@switch("T9 T10 T45 T47", f"{PROMISES}: what_each_level_stores", "rota.cluster.intake", fails=r"stored\(.none.\) == \(0, 0\) -> AssertionError")
def level_none(intake: Any) -> None:
    """Jobs of level none are stored as any other."""
    _all_durable(intake, "none")


@switch("T45 T46", f"{PROMISES}: what_each_level_stores", "rota.cluster.intake", fails=r"assert 0 < body == claim -> AssertionError")
def level_delayed(intake: Any) -> None:
    """Jobs of level delayed are stored first, and wait for the master."""
    _all_durable(intake, "delayed")


def _all_durable(intake: Any, level: str) -> None:
    def storing(enqueue: Any) -> Any:
        async def _enqueue(self: Any, bundles: list[Any], seen: int) -> Any:
            replace = intake.msgspec.structs.replace
            bundles = [replace(bundle, level="durable") if bundle.level == level else bundle for bundle in bundles]
            return await enqueue(self, bundles, seen)

        return _enqueue

    change(intake.Intake, "enqueue", storing)


@switch("T12", f"{PROMISES}: the_store_is_used_sparingly", "rota.client.model", fails=r"<= 5 -> AssertionError")
def bundles(model: Any) -> None:
    """Every job travels alone."""
    model.JOBS_PER_BUNDLE_MAX = 1


@switch("T36", "client/test_connection.py: test_no_definite_answer_within_the_window", "rota.client.connection", fails=r"rota\.enqueue\(add, 1\) -> .*LinkLost")
def the_unknown_is_named(connection: Any) -> None:
    """An enqueue of unknown fate looks like one that never left."""
    connection._UNSURE = ()


@switch("E6 T38", "conformance/test_transactions.py: test_a_transaction_is_one_revision", "rota.cluster.ledger.memory", fails=r"== before \+ 1 -> AssertionError")
def both_stores_are_alike(memory: Any) -> None:
    """In the memory store each operation is a transaction of its own."""
    def piecemeal(commit: Any) -> Any:
        async def _commit(self: Any, txn: Any) -> Any:
            for op in txn.then[:-1]:
                await commit(self, memory.Txn((), (op,)))
            return await commit(self, memory.Txn(txn.guards, txn.then[-1:], txn.orelse))

        return _commit

    change(memory.MemoryLedger, "commit", piecemeal)


@switch("T24", "conformance/test_watches.py: test_history_first_then_what_comes", "rota.cluster.ledger.memory", fails=r"until\(watch, second\).* -> ")
def watches_begin_with_history(memory: Any) -> None:
    """A watch tells only what comes."""
    def from_now(watch: Any) -> Any:
        return lambda self, key, range_end=b"", *, from_revision: watch(
            self, key, range_end, from_revision=max(from_revision, self.store.revision)
        )

    change(memory.MemoryLedger, "watch", from_now)


@switch("T44", "cluster/test_etcd_faults.py: test_a_watch_survives_cuts", "rota.cluster.ledger.watching", fails=r"collect\(watch, 2 \* total\) -> ")
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


@switch("T35", "client/test_connection.py: test_waiting_for_results_survives_a_node", "rota.client.following", fails=r"follow_calls\) == 1\) -> ", patience_s=NEVER_S)
def clients_follow_on(following: Any) -> None:
    """A client whose link is lost asks nobody else for its results."""
    following.Following.link_lost = lambda self: None


@switch("E7 Q10", "cluster/test_testing.py: test_jobs_of_both_kinds_run", "rota.cluster.testing.local", fails=r"result\(10\) == 3 -> .*ResultTimeout")
def a_cluster_in_memory(local: Any) -> None:
    """The cluster in memory takes jobs, and runs none."""
    local.LocalRunners.submit = lambda self, work: None


# -- nodes come and go


@switch("E16 X6", f"{TAKEOVER}: test_kill_9_of_nodes_and_masters", "rota.cluster.takeover", fails=r"moved_s\(rig, victim\) < 3\.0 -> AssertionError: not within", patience_s=NEVER_S)
def takeover(module: Any) -> None:
    """The jobs of a node that was killed stay where they are."""
    _no_takeover(module)


@switch("T19 X6", f"{TAKEOVER}: test_kill_9_of_nodes_and_masters", "rota.worker.guard", fails=r"moved_s\(rig, victim\) < 3\.0 -> AssertionError")
def the_lease_of_the_dead_is_revoked(guard: Any) -> None:
    """The guard leaves the lease of its dead node to run out."""
    guard.Etcd.revoke = lambda self, lease: "not revoked"


@switch("T19", f"{TAKEOVER}: test_a_lost_machine", "rota.cluster.takeover", fails=r"moved_s\(rig, victim\) < .* -> AssertionError: not within", patience_s=NEVER_S)
def takeover_of_a_lost_machine(module: Any) -> None:
    """The jobs of a machine that is gone stay where they are."""
    _no_takeover(module)


@switch("Q6", f"{TAKEOVER}: test_a_frozen_node_does_no_harm", "rota.worker.guard", fails=r"runners are dead.* -> AssertionError: not within")
def the_deadline_of_the_runners(guard: Any) -> None:
    """The guard does not look at the lease's deadline."""
    guard.Guard._check_deadline = lambda self: None


@switch("E17", f"{TAKEOVER}: test_sigterm_hands_over_and_uses_up_no_attempt", "rota.cluster.node", fails=r"len\(starts\) == len\(set\(starts\)\) == 100 -> AssertionError")
def grace(node: Any) -> None:
    """A node that is told to leave kills what it runs."""
    async def at_once(self: Any) -> None:
        return

    def hasty(leave: Any) -> Any:
        async def _leave(self: Any, life: Any, membership: Any) -> None:
            await self._drain.wait()
            self._hurry.set()
            await leave(self, life, membership)

        return _leave

    change(node.Node, "_leave_when_asked", hasty)


@switch("E17", f"{PROMISES}: what_has_not_begun_moves_at_once", "rota.cluster.executor", fails=r"handle\(behind\.id\)\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def handing_back(executor: Any) -> None:
    """A node that leaves keeps what it has not begun."""
    async def release_unstarted(self: Any) -> int:
        return 0

    executor.Executor.release_unstarted = release_unstarted


@switch("E16", f"{PROMISES}: test_orphans", "rota.cluster.executor", fails=r"may not run twice has failed.* -> AssertionError: not within", patience_s=NEVER_S)
def on_orphan_fail(executor: Any) -> None:
    """What must not run twice is not marked when it begins."""
    executor.Executor._must_not_repeat = lambda self, claim: False


@switch("B11", f"{PROMISES}: test_orphans", "rota.cluster.takeover", fails=r"\.at - killed >= 2\.0.* -> AssertionError")
def requeue_delay(module: Any) -> None:
    """An orphan is queued again at once."""
    def at_once(back: Any) -> Any:
        async def _back(keys: Any, clock: Any, guards: Any, record: Any, tasks: Any, orphans: Any) -> Any:
            replace = module.msgspec.structs.replace
            tasks = {name: replace(task, requeue_delay_s=0.0) for name, task in tasks.items()}
            return await back(keys, clock, guards, record, tasks, orphans)

        return _back

    change(module, "_back", at_once)


@switch("X4", f"{PROMISES}: load_is_spread_over_the_nodes", "rota.cluster.aggregator", fails=r"gather\(.* -> .*ResultTimeout", patience_s=NEVER_S)
def load_is_spread(aggregator: Any) -> None:
    """The master does not keep account of what a node has."""
    aggregator.Seat.idle = lambda self, mode: self.member.capacity.get(mode, 0)


@switch("X4", "cluster/test_aggregator.py: test_work_spreads_to_the_node_with_most_room", "rota.cluster.aggregator", fails=r"sorted\(nodes\) == .* -> AssertionError")
def the_node_with_most_room(aggregator: Any) -> None:
    """Work goes to any node that has room."""
    aggregator.Seat.room = lambda self, mode, now: 1
    aggregator.Seat.idle = lambda self, mode: 1


@switch("X5", f"{PROMISES}: a_node_that_joins_is_given_work", "rota.cluster.aggregator", fails=r"the last one runs, too.* -> AssertionError: not within", patience_s=NEVER_S)
def joining(aggregator: Any) -> None:
    """A master knows the nodes that were there when it became master."""
    def closed(see: Any) -> Any:
        def _node(self: Any, event: Any) -> None:
            node = event.record.key[len(self.keys.nodes):].decode(errors="replace")
            if not self.is_open or node in self.seats or len(self.seats) < 3:
                see(self, event)

        return _node

    change(aggregator.Aggregator, "_node", closed)


@switch("X8", f"{PROMISES}: a_node_serves_only_its_queues", "rota.cluster.node", fails=r"is has_it -> AssertionError")
def queues_of_a_node(node: Any) -> None:
    """`--queues` is not heard."""
    def all_of_them(member: Any) -> Any:
        return lambda self: node.msgspec.structs.replace(member(self), queues=["*"])

    change(node.Node, "_member", all_of_them)


@switch("X8", "cluster/test_aggregator.py: test_a_node_gets_only_its_queues_and_only_while_active", "rota.cluster.aggregator", fails=r"table\.given\(\) == \[\] -> AssertionError")
def nodes_that_leave(aggregator: Any) -> None:
    """A node that is leaving is still given work."""
    def staying(may_run: Any) -> Any:
        def _may_run(self: Any, queue: str, lane: Any) -> bool:
            self.member = aggregator.msgspec.structs.replace(self.member, state="active")
            return bool(may_run(self, queue, lane))

        return _may_run

    change(aggregator.Seat, "may_run", staying)


@switch("T4", "worker/test_runners.py: test_async_capacity_is_kept", "rota.cluster.runners", fails=r"== 3\) -> TimeoutError", patience_s=NEVER_S)
def async_capacity(runners: Any) -> None:
    """An async runner is given whatever there is."""
    change(runners.RunnerPool, "_room", lambda room: lambda self, seat, task: 1_000)


@switch("T3", "worker/test_harm.py: test_only_the_job_that_harms_its_runner_fails", "rota.worker.seat", fails=r"status == .ok. .* -> AssertionError")
def isolation(seat: Any) -> None:
    """All that was sent to a runner shares its fate."""
    def together(autopsy: Any) -> Any:
        def _autopsy(self: Any) -> Any:
            started, waiting = autopsy(self)
            return started + waiting, []

        return _autopsy

    change(seat.Seat, "autopsy", together)


@switch("T25", "worker/test_harm.py: test_a_runner_killed_mid_job_is_replaced_and_the_job_retried", "rota.cluster.runners", fails=r"rig\.outcome\(waiting\).* -> TimeoutError", patience_s=NEVER_S)
def runners_are_replaced(runners: Any) -> None:
    """A runner that has died is not replaced."""
    def once(maintain: Any) -> Any:
        def _maintain(self: Any) -> None:
            if self._started is None or not self._started.done():
                maintain(self)

        return _maintain

    change(runners.RunnerPool, "_maintain", once)


@switch("T26 T25", "worker/test_guard.py: test_the_node_is_restarted_after_its_runners_are_reaped_and_the_lease_revoked", "rota.worker.guard", fails=r"gateway\.requests == .* -> AssertionError")
def the_monitor(guard: Any) -> None:
    """The guard starts its node again, and tells the store nothing."""
    guard.Etcd.revoke = lambda self, lease: "not revoked"


# -- clusters, settings, etcd


@switch("T42 Q13 B2", f"{PROMISES}: clusters_on_one_etcd_never_meet", "rota.cluster.keys", fails=r"rig\.members\(\)\) == 3 .* -> AssertionError")
def namespaces(keys: Any) -> None:
    """All clusters on one etcd share their keys."""
    change(keys.Keys, "__init__", lambda init: lambda self, cluster: init(self, "shared"))


@switch("T42", "client/test_codec.py: test_a_body_is_for_one_cluster", "rota.client.codec", fails=r"with pytest\.raises.*DID NOT RAISE")
def bodies_are_for_one_cluster(codec: Any) -> None:
    """A signature does not say for which cluster."""
    def anywhere(made: Any) -> Any:
        return lambda self, *arguments: made(self, *["" if it in ("prod", "staging") else it for it in arguments])

    change(codec.Keyring, "sign", anywhere)
    change(codec.Keyring, "verify", anywhere)


@switch("Q7", "client/test_codec.py: test_a_newer_schema_is_refused_by_name", "rota.client.codec", fails=r"with pytest\.raises.* -> ")
def schema_versions(codec: Any) -> None:
    """A body of a schema that is not known is read all the same."""
    import msgspec

    change(codec, "_fault_of", lambda fault: lambda header, count: fault(msgspec.structs.replace(header, v=1), count))


@switch("Q8", "cluster/test_settings.py: test_flags_win_over_the_environment_and_that_over_the_file", "rota.cluster.settings", fails=r"-> AssertionError")
def flags(settings: Any) -> None:
    """Flags are not heard."""
    change(settings, "load", lambda load: lambda said, environ, file=None: load({}, environ, file))


@switch("T17", "acceptance/test_cli.py: test_errors_name_the_cause", "rota.client.errors", fails=r"assert said in done\.stderr -> AssertionError")
def errors_say_why(errors: Any) -> None:
    """An error says that there was an error."""
    errors.RotaError.__str__ = lambda self: "an error occurred"


@switch("T17", "cluster/test_settings.py: test_a_wrong_setting_is_named_with_what_to_do", "rota.cluster.settings", fails=r"assert said in str\(raised\.value\) -> AssertionError")
def wrong_settings_are_named(settings: Any) -> None:
    """A wrong setting is called by the name that the code has for it."""
    settings._in_their_words = lambda message: "a field has the wrong type"


@switch("B1", "cluster/test_etcd_security.py: test_tls", "rota.cluster.ledger.channels", fails=r"EtcdLedger\(good\).*|ledger\.commit.* -> .*Ledger")
def tls_to_etcd(channels: Any) -> None:
    """Certificates are not used."""
    channels.Endpoint._make_channel = lambda self: channels.grpc.aio.insecure_channel(
        channels.split_endpoint(self.url)[0], options=list(channels.OPTIONS)
    )


@switch("B1", "cluster/test_etcd_security.py: test_users", "rota.cluster.ledger.endpoints", fails=r"-> .*LedgerDenied|-> .*LedgerUnavailable|-> .*TokenRefused")
def users_of_etcd(endpoints: Any) -> None:
    """Nobody tells etcd who we are."""
    async def _authenticate(self: Any, endpoint: Any, refused: Any) -> None:
        self._token = ""

    endpoints.Endpoints._authenticate = _authenticate


WITHOUT = {
    "acceptance/test_demo.py: test_every_file_is_counted_once_although_the_master_is_killed":
        "a whole, of which each part has its own row and switch",
    "acceptance/test_outage.py: test_etcd_goes_away_under_load_and_comes_back":
        "no one place mends an outage: gRPC, clients, watches and writes each come back by themselves",
    "simulation/test_cluster.py: test_seeds": "the planted bugs of tests/simulation/mutants.py are its switches",
    "simulation/test_cluster.py: test_quiet_seeds_run_each_job_once":
        "the planted bugs of tests/simulation/mutants.py are its switches",
    "simulation/test_cluster.py: test_a_seed_is_a_reproduction": "it tests the instrument, not a feature",
    "docker/test_compose.py: test_an_etcd_member_is_killed": "needs a container engine, and etcd's own replication",
    "docker/test_compose.py: test_scaled_to_five_and_back_to_two": "needs a container engine",
    "docker/test_compose.py: test_the_masters_container_is_killed": "needs a container engine",
    "test_readme.py: test_commands_exist": "about the documentation, not about a feature",
    "test_readme.py: test_links_lead_somewhere": "about the documentation, not about a feature",
    "test_layout.py: test_a_wheel_installs_nothing_but_rota": "about the package, not about a feature",
}
"""Tests that docs/promises.md names and no switch is for, and why."""
