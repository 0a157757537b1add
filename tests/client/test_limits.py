"""What a task or a queue declares for the nodes: limits, keys, levels, orphans."""

from __future__ import annotations

from typing import Any

import pytest

import rota
from rota.client.api.bulk import frames
from rota.client.errors import ConfigError, InvalidJob
from rota.client.ids import Names
from rota.client.tasks import queues
from rota.client.tasks.named import NamedTask
from rota.client.tasks.task import Task, make_task
from rota.client.wire.keyring import UNSIGNED, Seal


def bill(customer: str, cents: int = 0) -> None: ...


def task(**said: Any) -> Task[..., Any]:
    return make_task(bill, name="tests:bill", **said)


def test_a_key_comes_from_an_argument_or_a_function() -> None:
    by_name = task(max_per_key=1, key="customer")
    for args, kwargs in ((("ann",), {}), (("ann", 7), {}), ((), {"customer": "ann"})):
        assert by_name.order(args, kwargs).route.key == "ann"
    assert task(max_per_key=1, key="cents").order(("ann",), {}).route.key == "0"
    by_function = task(max_per_key=1, key=lambda customer, cents=0: customer[0] if cents else None)
    assert by_function.order(("ann", 3), {}).route.key == "a"
    assert by_function.order(("ann",), {}).route.key == ""
    assert by_function.using(key="x").order(("ann",), {}).route.key == "x"
    assert NamedTask("tests:bill").using(key=7).route.key == "7"


@pytest.mark.parametrize("key", [1.5, b"ann", True, "x" * 129, "a\nb"])
def test_bad_keys(key: Any) -> None:
    with pytest.raises(InvalidJob, match="key "):
        task(max_per_key=1, key="customer").order((key,), {})


def test_jobs_of_one_bundle_have_one_key() -> None:
    keyed = task(max_per_key=1, key="customer")
    calls = [("ann",)] * 70 + [("bob",)] * 3 + [("ann",)] * 2
    made = [bundle for frame in frames(keyed, keyed.route, calls, Seal(UNSIGNED, "c"), Names()) for bundle in frame]
    assert [(bundle.key, bundle.count) for bundle in made] == [("ann", 60), ("ann", 10), ("bob", 3), ("ann", 2)]


@pytest.mark.parametrize(("options", "message"), [
    ({"max_per_key": 1}, "key goes with max_per_key"),
    ({"key": "customer"}, "key goes with max_per_key"),
    ({"max_per_key": 1, "key": "colour"}, "key='colour' is not the name of one of its arguments"),
    ({"max_per_key": 1, "key": 3}, "the name of an argument, or a function"),
    ({"max_concurrency": 1, "level": "none"}, "a task with a limit is stored durably"),
])  # fmt: skip
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task(**options)


@pytest.mark.parametrize(("options", "message"), [
    ({"max_concurrency": 0}, "max_concurrency 0 is not valid: a whole number of at least 1"),
    ({"max_concurrency": 1.5}, "max_concurrency 1.5"),
    ({"max_per_key": True, "key": "customer"}, "max_per_key True"),
    ({"on_orphan": "forget"}, "on_orphan 'forget' is not valid: one of requeue, fail"),
    ({"requeue_delay": -1}, "requeue_delay -1 is not valid: at least 0"),
])  # fmt: skip
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        task(**options)


def test_what_the_nodes_are_told() -> None:
    info = task(max_concurrency=3, max_per_key=1, key="customer", on_orphan="fail", requeue_delay=10).info
    assert (info.max_concurrency, info.max_per_key, info.on_orphan, info.requeue_delay_s) == (3, 1, "fail", 10.0)


def test_queues_are_declared_once() -> None:
    name = "tests-declared"
    try:
        queue = rota.Queue(name, serial=True)
        assert queue == name and queue.serial and queues.declared[name].max_concurrency is None
        rota.Queue(name, serial=True)           # the module was loaded again
        with pytest.raises(ConfigError, match="declared twice, with different settings"):
            rota.Queue(name, max_concurrency=3)
        told = task(queue=queue).info.queue
        assert told == name and type(told) is str
        assert type(task().using(queue=queue).route.queue) is str
    finally:
        queues.declared.pop(name, None)
    for wrong in ({"max_concurrency": 0}, {"max_concurrency": "many"}):
        with pytest.raises(InvalidJob):
            rota.Queue("tests-wrong", **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidJob, match="not a valid queue name"):
        rota.Queue("no/name")
