"""Tasks: names, options, the check of arguments, retries, what goes by value."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import rota
from rota.client.calls import pickling
from rota.client.errors import ConfigError, InvalidJob, JobTooLarge
from rota.client.model import BUNDLE_BYTES_MAX, Options, TaskInfo
from rota.client.tasks.named import NamedTask
from rota.client.tasks.task import AsyncTask, SyncTask, Task, as_task, make_task, registry
from rota.client.wire import codec

from ..sample_tasks import add, echo, fail, shout

HERE = "tests.client.sample_tasks"


def test_names_and_defaults() -> None:
    assert add.name == f"{HERE}:add" and registry[add.name] is add
    assert isinstance(add, SyncTask) and isinstance(shout, AsyncTask)
    assert add.info == TaskInfo(f"{HERE}:add", "sync")
    assert (shout.info.mode, shout.info.queue, shout.info.max_attempts) == ("async", "images", 3)
    assert shout.route.priority == 5
    assert not add.by_value
    assert add.__name__ == "add" and add.__module__ == HERE and add.__doc__ is None


def test_what_holds_for_a_task_that_says_nothing() -> None:
    """The defaults that docs/promises.md and docs/tasks.md name."""
    info, route = add.info, add.route
    assert (info.max_attempts, info.backoff_base_s, info.backoff_cap_s) == (5, 1.0, 3600.0)
    assert (info.timeout_s, info.max_concurrency, info.max_per_key) == (None, None, None)
    assert (info.on_orphan, info.requeue_delay_s, info.keep_result_s) == ("requeue", 0.0, 3600.0)
    assert (route.queue, route.priority, route.delay_s, route.level) == ("default", 0, 0.0, "durable")


def test_a_task_can_be_called() -> None:
    assert add(1, b=2) == 3
    with pytest.raises(StopIteration, match="HI!!"):
        shout("hi", marks=2).send(None)


def test_a_task_may_be_named() -> None:
    @rota.task(name="billing.send")
    def send() -> None: ...

    try:
        assert send.name == "billing.send"
    finally:
        registry.pop("billing.send", None)


def test_two_tasks_of_one_name() -> None:
    make = rota.task(name=add.name)
    said = r"two tasks are called tests\.client\.sample_tasks:add: .*\.add and .*\.fail"
    with pytest.raises(ConfigError, match=said):
        make(fail.function)
    assert registry[add.name] is add


def test_declaring_the_same_function_again_replaces_it() -> None:
    """A module that is reloaded."""
    again = rota.task(add.function)
    try:
        assert registry[add.name] is again
    finally:
        registry[add.name] = add


# -- using


def test_using_gives_a_copy() -> None:
    other = add.using(
        queue="slow", priority=-7, run_after=timedelta(minutes=1), timeout=5, max_attempts=4,
        keep_result=timedelta(hours=2),
    )  # fmt: skip
    route = other.route
    assert (route.task, route.queue, route.priority, route.delay_s) == (add.name, "slow", -7, 60.0)
    assert route.options == Options(max_attempts=4, timeout_s=5.0, keep_result_s=7200.0)
    assert isinstance(other, SyncTask) and other(1, 2) == 3
    assert add.route.queue == "default" and add.route.options == Options()
    assert other.using(queue="x").route.options == route.options


def test_run_after_a_moment() -> None:
    for zone in (UTC, timezone(timedelta(hours=5, minutes=30))):
        moment = datetime.now(zone) + timedelta(seconds=100)
        assert add.using(run_after=moment).order((1,), {}).route.delay_s == pytest.approx(100, abs=5)
    past = datetime(2001, 1, 1, tzinfo=UTC)
    assert add.using(run_after=past).order((1,), {}).route.delay_s == 0
    assert add.using(run_after=past).using(run_after=3).order((1,), {}).route.delay_s == 3


@pytest.mark.parametrize(("options", "message"), [
    ({"queue": ""}, "not a valid queue name"),
    ({"queue": "a/b"}, "not a valid queue name"),
    ({"queue": "../x"}, "not a valid queue name"),
    ({"queue": "a\n"}, "not a valid queue name"),
    ({"queue": "x" * 129}, "not a valid queue name"),
    ({"queue": "x\0"}, "not a valid queue name"),
    ({"queue": 7}, "not a valid queue name"),
    ({"priority": 101}, "from -100 to 100"),
    ({"priority": 1.5}, "from -100 to 100"),
    ({"priority": True}, "from -100 to 100"),
    ({"run_after": -1}, "run_after -1 is not valid: at least 0"),
    ({"run_after": timedelta(days=-1)}, "run_after .*at least 0"),
    ({"run_after": datetime(2030, 1, 1)}, "has no time zone"),
    ({"run_after": "tomorrow"}, "seconds, or a timedelta"),
    ({"run_after": float("nan")}, "seconds, or a timedelta"),
    ({"run_after": float("inf")}, "seconds, or a timedelta"),
    ({"run_after": 1e12}, "at most 100 years"),
    ({"timeout": 0}, "timeout 0 is not valid: more than 0"),
    ({"timeout": -3}, "timeout -3 is not valid: more than 0"),
    ({"max_attempts": 0}, "max_attempts 0"),
    ({"max_attempts": 2.5}, r"max_attempts 2\.5"),
    ({"level": "durably"}, "one of durable, delayed, none"),
    ({"keep_result": -1}, "keep_result -1 is not valid: at least 0"),
])  # fmt: skip
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        add.using(**options)
    if "run_after" not in options:
        with pytest.raises(InvalidJob, match=message):
            rota.task(**options)(add.function)


# -- arguments


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"c": 3}), ((1,), {"a": 1})])
def test_wrong_arguments_are_refused_before_anything_is_sent(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for _ in range(2):      # what was refused is not remembered as good
        with pytest.raises(InvalidJob, match=r"tests\.client\.sample_tasks:add\(a: .*\) -> .*: "):
            add.order(args, kwargs)


def test_right_arguments_of_all_shapes() -> None:
    for _ in range(2):
        for args, kwargs in (((1,), {}), ((1, 2), {}), ((), {"a": 1}), ((1,), {"b": 2}), ((), {"b": 1, "a": 2})):
            add.order(args, kwargs)
        echo.order((1,) * 50, {f"k{i}": i for i in range(50)})


def test_arguments_over_the_limit() -> None:
    with pytest.raises(JobTooLarge, match=r"the limit is 262,144.*enqueue its address") as caught:
        echo.order((bytes(BUNDLE_BYTES_MAX),), {})
    assert caught.value.size_bytes > BUNDLE_BYTES_MAX == caught.value.bytes_max


# -- by value


def test_what_goes_by_value() -> None:
    number = 3

    def closure(x: int) -> int:
        return x + number

    for function, argument, result in ((lambda x: x * 2, 2, 4), (closure, 1, 4), (len, "abc", 3), (add.function, 1, 1)):
        task = as_task(function)
        assert isinstance(task, Task)
        order = task.order((argument,), {})
        assert task.by_value and order.route.function == codec.function_digest(order.code)
        assert pickling.load_function(order.code)(argument) == result


def test_code_is_taken_as_it_is_at_the_enqueue() -> None:
    number = 1
    task = make_task(lambda: number)
    first = task.order((), {})
    number = 2
    second = task.order((), {})
    assert [pickling.load_function(order.code)() for order in (first, second)] == [1, 2]


def test_a_task_by_value_takes_its_options_along() -> None:
    task = make_task(lambda: None, max_attempts=5, timeout=3)
    assert task.route.options == Options(max_attempts=5, timeout_s=3.0, keep_result_s=3600.0)


def test_code_over_the_limit() -> None:
    ballast = bytes(2 * 1024 * 1024)
    with pytest.raises(JobTooLarge, match=r"the code of .* and what it closes over take 2,"):
        make_task(lambda: ballast).order((), {})


def test_names_instead_of_tasks() -> None:
    assert as_task(f"{HERE}:add") is add
    named = as_task("elsewhere.tasks:run")
    assert isinstance(named, NamedTask) and named.route.mode is None
    assert named.using(queue="q").route.queue == "q"
    for wrong in ("", "a b", "x/y:z", "m:<lambda>", "m:f\n", "x" * 300):
        with pytest.raises(InvalidJob, match="not a valid task name"):
            as_task(wrong)
    with pytest.raises(InvalidJob, match="cannot be enqueued"):
        as_task(7)  # type: ignore[arg-type]


# -- pickling


def test_a_task_is_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(add)) is add       # noqa: S301 - our own bytes
    assert b"add" in pickle.dumps(add) and len(pickle.dumps(add)) < 120


def test_a_task_with_other_options_is_pickled_with_them() -> None:
    other = pickle.loads(cloudpickle.dumps(add.using(queue="q")))      # noqa: S301 - our own bytes
    assert other.route.queue == "q" and other(1, 2) == 3


def test_a_task_by_value_can_enqueue_itself() -> None:
    """The function refers to its task, the task to its function."""
    space: dict[str, Any] = {"rota": rota, "__name__": "__main__"}
    exec("@rota.task\ndef f(n):\n    return f.name, f.by_value, n\n", space)
    copy = pickling.load_function(space["f"].order((1,), {}).code)
    assert copy(4) == ("__main__:f", True, 4)


# -- modules that are run


MODULE = """
import rota

@rota.task
def job(x):
    return x

if __name__ == "__main__":
    print(job.name, job.by_value)
"""


def run(folder: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_module_that_is_run_has_its_own_name(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jobs.py").write_text(MODULE)
    assert run(tmp_path, "-m", "shop.jobs") == "shop.jobs:job False"
    assert run(tmp_path, "shop/jobs.py") == "__main__:job True"
    again = "\nimport pickle, shop.jobs\nprint(pickle.loads(pickle.dumps(shop.jobs.job)) is shop.jobs.job)\n"
    (package / "jobs.py").write_text(MODULE + "".join(f"    {line}\n" for line in again.splitlines()))
    assert run(tmp_path, "-m", "shop.jobs").splitlines() == ["shop.jobs:job False", "True"], "loaded a second time"
    repl = "import rota\n@rota.task\ndef job(x): return x\n\nprint(job.name, job.by_value)\n"
    assert run(tmp_path, "-", stdin=repl) == "__main__:job True"


def test_a_repl_that_was_started_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m asyncio`: what is typed there does not belong to `asyncio.__main__`."""
    spec = importlib.util.find_spec("asyncio.__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("def job(): ...", "<console>", "exec"), space)
    assert make_task(space["job"]).by_value
    assert spec is not None and spec.origin is not None
    exec(compile("def job(): ...", spec.origin, "exec"), space)
    task = make_task(space["job"])
    assert (task.name, task.by_value) == ("asyncio.__main__:job", False)


@pytest.mark.parametrize("module", ["rota.client.tasks", "rota.client.tasks.task"])
def test_payloads_that_name_a_task_by_an_earlier_place_are_read(module: str) -> None:
    """As they were stored when `rota.client.tasks` was one module, and since: these are their very bytes."""
    named = f"(S'{HERE}'\nS'{add.name}'\n"
    assert pickle.loads(f"c{module}\n_find\n{named}tR.".encode()) is add  # noqa: S301 - of our own making
    changed = pickle.loads(f"c{module}\n_find_and_change\n{named}(dS'keyed'\nI01\nstR.".encode())  # noqa: S301
    assert changed.name == add.name and changed.keyed


def test_payloads_name_a_task_so_that_the_release_before_reads_them() -> None:
    assert b"rota.client.tasks.task" not in pickle.dumps([add, add.using(key="k")])


def test_a_task_with_other_options_travels_with_its_route() -> None:
    stored = pickle.dumps(add.using(queue="images"))
    assert b"rota.client.calls.order" in stored and pickle.loads(stored).route.queue == "images"  # noqa: S301
