"""Switches: what a job is given, what becomes of it when it fails, what it may know and ask."""

from __future__ import annotations

from typing import Any

from ..switching import CLUSTER, NEVER_S, PROMISES, change, declared_otherwise, switch

# -- arguments, results ------------------------------------------------------------------------------------------------


@switch("E3 T2", f"{CLUSTER}: arguments_arrive_as_enqueued", "rota.client.calls.pickling",
        fails=r"== given -> AssertionError")
def native_arguments(pickling: Any) -> None:
    """Arguments go through JSON, as far as that takes them."""
    def jsoned(value: Any) -> Any:
        if isinstance(value, tuple | list | set | frozenset):
            return [jsoned(item) for item in value]
        if isinstance(value, dict):
            return {str(name): jsoned(item) for name, item in value.items()}
        return value.decode("latin-1") if isinstance(value, bytes) else value

    def through_json(dump: Any) -> Any:
        return lambda args, kwargs, *rest, **more: dump(tuple(jsoned(args)), jsoned(kwargs), *rest, **more)

    change(pickling, "dump_arguments", through_json)


@switch("B8", f"{PROMISES}: json_arrives_as_written", "rota.client.calls.pickling",
        fails=r"assert arrived == .* -> AssertionError")
def json_key_order(pickling: Any) -> None:
    """The keys of JSON arguments are sorted, as many stores do it."""
    import json

    def in_order(load: Any) -> Any:
        def load_arguments(kind: str, payload: bytes) -> Any:
            return load(kind, json.dumps(json.loads(payload), sort_keys=True).encode() if kind == "json" else payload)

        return load_arguments

    change(pickling, "load_arguments", in_order)


@switch("B8", "cluster/port/test_http.py: test_json_arrives_exactly", "rota.client.calls.pickling",
        fails="== .*value.* -> AssertionError")
def json_large_numbers(pickling: Any) -> None:
    """Numbers of JSON arguments are floats, as in JavaScript."""
    import json

    def as_floats(load: Any) -> Any:
        def load_arguments(kind: str, payload: bytes) -> Any:
            if kind != "json":
                return load(kind, payload)
            call = json.loads(payload, parse_int=float)
            return tuple(call["args"]), call["kwargs"]

        return load_arguments

    change(pickling, "load_arguments", as_floats)


@switch("B6", f"{CLUSTER}: the_store_is_left_clean", "rota.cluster.state.moves",
        fails=r"assert not \[record\.key .* -> AssertionError")
def finished_jobs_are_deleted(moves: Any) -> None:
    """The arguments of a job that has ended stay in the store."""
    change(moves, "end", lambda end: lambda *arguments: end(*arguments)[:1])


@switch("B6", f"{PROMISES}: results_are_kept_as_long_as_asked", "rota.cluster.node.outcomes.reporter",
        fails=r"== \(1, 0\) -> AssertionError")
def keep_result(reporter: Any) -> None:
    """Every result is kept for an hour, whatever was asked for."""
    reporter.Reporter._keep_result_of = lambda self, held: 3600.0


@switch("B6", f"{PROMISES}: results_are_kept_as_long_as_asked", "rota.cluster.ledger.buckets",
        fails=r"lifetime_s.* -> AssertionError")
def results_last(buckets: Any) -> None:
    """Results are gone after a minute."""
    change(
        buckets.Bucket, "__init__",
        lambda init: lambda self, ledger, clock, rng, _: init(self, ledger, clock, rng, 0.0),
    )


@switch("E3", "client/calls/test_pickling.py: test_what_pickle_refuses_goes_through_cloudpickle",
        "rota.client.calls.pickling", fails=r"pickling\.dump_arguments.* -> .*NotSerializable")
def what_pickle_refuses(pickling: Any) -> None:
    """What pickle refuses is refused."""
    def refuse(value: Any, name: str = "") -> bytes:
        raise TypeError("pickle says no")

    pickling._cloudpickle = refuse


# -- retries, errors ---------------------------------------------------------------------------------------------------


@switch("E8 T28", f"{PROMISES}: a_job_is_retried_until_it_succeeds", "rota.worker.runner.execution",
        fails=r"== 3 -> AssertionError")
def done_only_on_success(execution: Any) -> None:
    """A job that raised counts as done."""
    execution.Call.failed = lambda self, index, error: execution.Outcome(index, "ok", execution.NONE_PICKLED)


@switch("E9 T5 X7 X13 Q1", f"{PROMISES}: a_job_is_retried_until_it_succeeds", "rota.client.options.retries",
        fails=r"aresult.* -> .*JobFailed")
def retries(module: Any) -> None:
    """Nothing is tried again."""
    module.Retries.decide = lambda self, info, error, attempt, options=None: module.Decision(None)


@switch("E9", f"{PROMISES}: a_job_is_retried_until_it_succeeds", "rota.worker.runner.execution",
        fails=r"second - first >= 0\.05 .* -> AssertionError")
def delay_between_attempts(execution: Any) -> None:
    """Jobs are tried again at once."""
    def at_once(decide: Any) -> Any:
        def _decide(self: Any, error: BaseException) -> Any:
            decision = decide(self, error)
            return decision if decision.delay_s is None else decision._replace(delay_s=0.0)

        return _decide

    change(execution.Call, "_decide", at_once)


@switch("E9 T5", "client/options/test_retries.py: test_retries_are_on_by_default", "rota.client.options.backoff",
        fails=r"== \(5, 1\.0, 3600\.0\) -> AssertionError")
def retries_by_default(backoff: Any) -> None:
    """A task that says nothing is tried once."""
    backoff.MAX_ATTEMPTS = 1


@switch("Q1 X7 X13", f"{PROMISES}: an_attempt_is_recorded", "rota.cluster.node.outcomes.settle",
        fails=r"it has failed once.* -> AssertionError: not within", patience_s=NEVER_S)
def attempts_are_counted(outcomes: Any) -> None:
    """The number of the attempt is not kept with the job."""
    def uncounted(again: Any) -> Any:
        def _again(context: Any, held: Any, group: Any) -> Any:
            return outcomes.replace(again(context, held, group), attempt=held.claim.attempt)

        return _again

    change(outcomes, "_again", uncounted)


@switch("Q1", f"{PROMISES}: an_attempt_is_recorded", "rota.cluster.node.outcomes.settle",
        fails=r"token\.error\) == .* -> AssertionError")
def errors_are_recorded(outcomes: Any) -> None:
    """The last error is not kept with the job."""
    change(outcomes, "_again", lambda again: lambda *given: outcomes.replace(again(*given), error=""))


@switch("E11 T30 T39", f"{PROMISES}: errors_are_reported_only_when_the_retries_are_used_up",
        "rota.worker.runner.execution",
        fails=r"\(folder / .reports.\).* -> AssertionError")
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


@switch("E11 T11 T30 T39", f"{PROMISES}: errors_are_reported_only_when_the_retries_are_used_up",
        "rota.worker.runner.hooks",
        fails=r"\(folder / .reports.\).* -> FileNotFoundError")
def error_hooks(hooks: Any) -> None:
    """No hook is called."""
    hooks.report = lambda error: None


@switch("E11 T11 T39", f"{PROMISES}: errors_are_reported_only_when_the_retries_are_used_up",
        "rota.worker.runner.execution",
        fails=r"assert levels == .* -> AssertionError")
def errors_in_the_log(execution: Any) -> None:
    """The last failure is logged as the others are."""
    execution.log.error = execution.log.warning


@switch("X14 T13", f"{PROMISES}: errors_are_reported_only_when_the_retries_are_used_up", "rota.client.options.retries",
        fails=r"handle\.aresult\(PATIENCE_S\) -> .*ResultTimeout", patience_s=NEVER_S)
def the_last_attempt(module: Any) -> None:
    """Jobs are tried for ever."""
    change(
        module.Retries, "decide",
        lambda decide: lambda self, info, error, attempt, options=None: decide(self, info, error, 1),
    )


@switch("E15 Q12", f"{PROMISES}: attempts_per_enqueue", "rota.client.options.retries",
        fails=r"failed after 1 attempt.* -> AssertionError: Regex pattern did not match")
def max_attempts_per_enqueue(module: Any) -> None:
    """Only the task says how often a job is tried."""
    change(
        module.Retries, "decide",
        lambda decide: lambda self, info, error, attempt, options=None: decide(self, info, error, attempt),
    )


@switch("T43 B3", "client/options/test_retries.py: test_the_number_of_attempts_per_task_and_per_enqueue",
        "rota.client.tasks.task", fails=r"shout\.retry_decision\(error, 3\)\.delay_s is None -> AssertionError")
def max_attempts_per_task(tasks: Any) -> None:
    """Every task has five attempts."""
    declared_otherwise(tasks, lambda said: {"max_attempts": None})


@switch("E15 T43", "client/options/test_retries.py: test_backoff_doubles_up_to_its_cap_and_leaves_half_to_chance",
        "rota.client.options.backoff", fails=r"delays\(1\.0\) == .* -> AssertionError")
def exponential_backoff(backoff: Any) -> None:
    """The same delay after every failure."""
    backoff.exponential_s = lambda base_s, cap_s, attempt, chance=None: base_s


@switch("T5", "client/options/test_retries.py: test_the_schedules_of_those_before_us", "rota.client.options.backoff",
        fails=r"\[toniq\(n\) .* -> AssertionError")
def toniqs_schedule(backoff: Any) -> None:
    """Toniq's schedule is the ordinary one."""
    backoff.toniq = backoff.exponential


@switch("Q4", "client/options/test_retries.py: test_the_schedules_of_those_before_us", "rota.client.options.backoff",
        fails=r"\[queuetopia\(n\) .* -> AssertionError")
def queuetopias_schedule(backoff: Any) -> None:
    """Queuetopia's schedule is the ordinary one."""
    backoff.queuetopia = backoff.exponential


@switch("B4", "client/options/test_retries.py: test_a_plain_callable_decides_the_delay", "rota.client.options.retries",
        fails=r"== \[0\.101, 0\.108, 0\.127\] -> AssertionError")
def retry_delay(module: Any) -> None:
    """A function for the delay is not asked."""
    change(module, "retries", lambda made: lambda delay, only_on, never_on: made(None, only_on, never_on))


@switch("B4", f"{PROMISES}: a_backoff_that_raises_fails_the_job_and_says_so", "rota.client.options.retries",
        fails=r"handle\.aresult\(PATIENCE_S\) -> .*ResultTimeout", patience_s=NEVER_S)
def a_broken_retry_delay_is_told(module: Any) -> None:
    """A `retry_delay` that raises is as good as none."""
    def forgiving(decide: Any) -> Any:
        def _delay(self: Any, info: Any, attempt: int, said: Any) -> Any:
            decision = decide(self, info, attempt, said)
            return decision if decision.delay_s is not None else module.Decision(3600.0)

        return _delay

    change(module.Retries, "_delay", forgiving)


@switch("E10 T13", f"{PROMISES}: the_failed_set", "rota.cluster.state.revival",
        fails=r"retry_failed\(error=.OSError.\) == 1 -> AssertionError")
def failed_jobs_can_be_retried(failures: Any) -> None:
    """`retry_failed` finds its jobs, and leaves them where they are."""
    failures.retry = lambda *arguments, **more: None


@switch("E10 T13", f"{PROMISES}: the_failed_set", "rota.cluster.state.moves",
        fails=r"delete_failed\(\[second\.id\]\) == 1 -> AssertionError")
def failed_jobs_can_be_deleted(moves: Any) -> None:
    """`delete_failed` finds its jobs, and leaves them where they are."""
    moves.delete = lambda *arguments: None


@switch("T29 T13", f"{CLUSTER}: failures_carry_their_traceback", "rota.cluster.state.moves",
        fails=r"\(failed,\) = .* -> ValueError: not enough values")
def failed_jobs_are_recorded(moves: Any) -> None:
    """There is no failed set."""
    moves.fail = lambda *arguments, **more: ()


@switch("T29", f"{CLUSTER}: failures_carry_their_traceback", "rota.worker.runner.execution",
        fails=r"in caught\.value\.traceback -> AssertionError")
def tracebacks(execution: Any) -> None:
    """A failure has no traceback."""
    execution.trace_of = lambda error: ""


@switch("E10", "acceptance/test_cli_operate.py: test_a_shell_has_a_client", "rota.cluster.cli.manage.shell",
        fails=r"done\.returncode == 0, done\.stderr -> AssertionError|assert re\.search\(.* -> AssertionError")
def the_shell(shell: Any) -> None:
    """The prompt of `rota shell` is a bare one."""
    interact = shell.code.interact
    shell.code.interact = lambda banner=None, readfunc=None, local=None, exitmsg=None: interact(
        banner, local={}, exitmsg=exitmsg
    )


# -- timeouts, the context, classes ------------------------------------------------------------------------------------


@switch("T48 B9", f"{PROMISES}: timeouts_of_both_kinds", "rota.worker.pool.time_limits",
        fails=r"enqueue\(task, 60\)\)\.aresult.* -> .*ResultTimeout", patience_s=NEVER_S)
def timeouts_of_plain_functions(limits: Any) -> None:
    """The node does not look at how long a plain function runs."""
    limits.TimeLimits._look_sync = lambda self, runner, now: None


@switch("T48 B9", f"{PROMISES}: timeouts_of_both_kinds", "rota.worker.runner.execution",
        fails=r"TimeoutError: timed out after 0\\.5 s.* -> AssertionError: Regex pattern did not match")
def timeouts_of_coroutines(execution: Any) -> None:
    """An `async def` job is not cancelled at its timeout. (So its runner is killed, two seconds later.)"""
    execution.Call.timeout_s = None


@switch("Q12 T48", f"{PROMISES}: timeouts_of_both_kinds", "rota.client.calls.order",
        fails=r"timed out after 0\\.2 s.* -> AssertionError: Regex pattern did not match")
def timeout_per_enqueue(order: Any) -> None:
    """Only the task says how long a job may take."""
    change(order.Routed, "using", lambda using: lambda self, timeout=None, **said: using(self, **said))


@switch("B9 Q12 B10", "client/tasks/test_tasks.py: test_what_holds_for_a_task_that_says_nothing",
        "rota.client.tasks.task", fails=r"== \(None, None, None\) -> AssertionError")
def no_timeout_by_default(tasks: Any) -> None:
    """A task that says nothing may take a second, as Backy's may."""
    declared_otherwise(tasks, lambda said: {"timeout": 1.0} if said.timeout is None else {})


@switch("B11 E16", "client/tasks/test_tasks.py: test_what_holds_for_a_task_that_says_nothing", "rota.client.tasks.task",
        fails=r"== \(.requeue., 0\.0, 3600\.0\) -> AssertionError")
def orphans_by_default(tasks: Any) -> None:
    """A task that says nothing waits ten seconds when its node was lost, as Backy's do."""
    declared_otherwise(tasks, lambda said: {} if said.requeue_delay else {"requeue_delay": 10.0})


@switch("B9", "worker/pool/test_harm.py: test_a_sync_job_over_its_time_takes_its_runner_with_it",
        "rota.worker.pool.time_limits",
        fails=r"rig\.outcome\(key\) -> TimeoutError", patience_s=NEVER_S)
def the_kill_at_the_timeout(limits: Any) -> None:
    """A plain function that is over its time is left alone."""
    limits.TimeLimits._look_sync = lambda self, runner, now: None


@switch("B12", f"{PROMISES}: touch_restarts_the_clock", "rota.worker.runner.context",
        fails=r"touches=20.* -> .*JobFailed.* timed out")
def touch(context: Any) -> None:
    """`rota.touch()` does nothing."""
    context.touch = lambda: None


@switch("B13", f"{PROMISES}: a_job_knows_itself", "rota.worker.runner.context",
        fails=r"known = await .* -> .*JobFailed")
def current_job(context: Any) -> None:
    """A job does not know itself."""
    context.current_job = lambda: None


@switch("T22", f"{PROMISES}: a_job_knows_itself", "rota.worker.runner.context",
        fails=r"later\[.fencing_token.\] > .* -> AssertionError")
def fencing_tokens(context: Any) -> None:
    """The fencing token is always the same."""
    import msgspec

    def fixed(current_job: Any) -> Any:
        return lambda: msgspec.structs.replace(current_job(), fencing_token=1)

    change(context, "current_job", fixed)


@switch("Q3", f"{PROMISES}: a_job_knows_itself", "rota.cluster.master.dispatch.aggregator",
        fails=r"known = await .* -> .*ResultTimeout", patience_s=NEVER_S)
def dynamic_queues(aggregator: Any) -> None:
    """A queue that nobody has declared is not served."""
    from rota.cluster.state.records import QueueRecord

    def declared(choose: Any) -> Any:
        def _next(self: Any, queue: Any, now: float) -> Any:
            known = queue.name == "default" or queue.settings != QueueRecord()
            return choose(self, queue, now) if known else None

        return _next

    change(aggregator.Aggregator, "_next", declared)


@switch("T1 X1 X11", f"{PROMISES}: a_class_is_a_worker",
        "rota.client.tasks.workers", fails=r"handles = .* -> .*UnknownTask")
def worker_classes(workers: Any) -> None:
    """A class does not become a task."""
    from rota.client.tasks.task import make_task

    workers.declare = lambda function=None, /, **said: lambda function: make_task(function, **said)


@switch("X12", f"{PROMISES}: a_class_is_a_worker", "rota.client.tasks.workers", fails=r">= 0\.6.* -> AssertionError")
def perform_in_is_minutes(workers: Any) -> None:
    """`perform_in` takes seconds."""
    def perform_in(cls: Any, delay: Any, /, *args: Any, **kwargs: Any) -> Any:
        return cls.task.using(run_after=delay).enqueue(*args, **kwargs)

    workers.Worker.perform_in = classmethod(perform_in)


@switch("X12", "client/tasks/test_workers.py: test_enqueueing", "rota.client.tasks.workers",
        fails=r"== \[0\.0, 600\.0, 3\.0\] -> AssertionError")
def perform_in_waits(workers: Any) -> None:
    """`perform_in` does not wait."""
    workers.Worker.perform_in = classmethod(lambda cls, delay, /, *args, **kwargs: cls.perform_async(*args, **kwargs))


@switch("X10 T1", "client/tasks/test_workers.py: test_enqueueing", "rota.client.tasks.task",
        fails=r"with pytest\.raises\(InvalidJob.*DID NOT RAISE")
def arguments_are_checked(tasks: Any) -> None:
    """Arguments are not compared with the signature."""
    tasks.Task.check = lambda self, args, kwargs: None


@switch("X9", "client/tasks/test_workers.py: test_class_options", "rota.client.tasks.workers",
        fails=r"info\.max_attempts\) == .* -> AssertionError")
def retries_of_a_class(workers: Any) -> None:
    """`retries` counts the first attempt, too."""
    workers.attempts = lambda count: count - 1


@switch("T1 T23 T27", f"{CLUSTER}: test_the_whole_path", "rota.client.tasks.task",
        fails=r"await arguments_arrive.* -> .*UnknownTask")
def many_tasks_in_a_module(tasks: Any) -> None:
    """A module has one task, its first."""
    def one(declare: Any) -> Any:
        def _declare(function: Any, said: Any) -> Any:
            made = declare(function, said)
            mine = [name for name, task in tasks.registry.items() if task.origin.module == made.origin.module]
            if len(mine) > 1:
                tasks.registry.pop(made.name, None)
            return made

        return _declare

    change(tasks, "_declare", one)


@switch("B14", "client/api/test_api.py: test_a_job_there_and_back", "rota.client.api.clients",
        fails=r"await handle == 3 -> TypeError")
def a_handle_is_returned(api: Any) -> None:
    """An enqueue returns nothing."""
    def silent(enqueue: Any) -> Any:
        async def _enqueue(self: Any, *args: Any, **kwargs: Any) -> None:
            await enqueue(self, *args, **kwargs)

        return _enqueue

    change(api.AsyncClient, "enqueue", silent)


@switch("Q9", f"{PROMISES}: a_task_by_its_name", "rota.cluster.state.directory", fails=r"named.* -> .*UnknownTask")
def tasks_by_name(directory: Any) -> None:
    """Nodes do not know how a task runs that they are asked for by name."""
    async def task_mode(self: Any, task: str) -> None:
        return None

    directory.Directory.task_mode = task_mode
