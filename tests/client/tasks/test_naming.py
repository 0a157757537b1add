"""A name stands for one function: what has a name of its own, what needs one, what runs how, and in which scripts."""

from __future__ import annotations

import asyncio
import functools
import importlib
import math
import pickle
import sys
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest

import rota
from rota.client import ids
from rota.client.errors import ConfigError, InvalidJob
from rota.client.options import checks as options
from rota.client.tasks.named import NamedTask
from rota.client.tasks.naming import mode_of, origin_of
from rota.client.tasks.task import as_task, registry
from rota.cluster.state.keys import Keys
from rota.testing import inline

from .. import sample_tasks as declared

HERE = __name__


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Write a module and import it, or load it again if it was imported before."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names: set[str] = set()

    def load(text: str, name: str = "shop_of_names") -> ModuleType:
        (tmp_path / f"{name}.py").write_text("import functools, rota\n" + text)
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        names.add(name)
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)


def plain(x: int) -> int:
    return x


class Scale:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return x * self.factor

    def method(self, x: int) -> int:
        return x * self.factor

    @classmethod
    def of_class(cls, x: int) -> str:
        return f"{cls.__name__} {x}"

    @staticmethod
    def static(x: int) -> int:
        return -x


class Larger(Scale):
    pass


# -- one name, one function


@pytest.mark.parametrize("function", [
    functools.partial(plain, 1), functools.partial(Scale(2)), Scale(2), Scale(2).method, [].append, (5).__add__,
    functools.partial(functools.partial(plain), 1),
])  # fmt: skip
def test_what_has_no_name_of_its_own_is_given_one_or_refused(function: Any) -> None:
    with pytest.raises(ConfigError, match=rf'has no name of its own.*name="{HERE}:'):
        rota.task(function)
    with pytest.raises(ConfigError, match="has no name of its own"):
        rota.task(max_attempts=1)(function)
    task = rota.task(name="tests:named")(function)
    assert task.name == "tests:named" and registry[task.name] is task and not task.by_value
    with pytest.raises(ConfigError, match="two tasks are called tests:named"):
        rota.task(name="tests:named")(Scale(3))


@pytest.mark.parametrize(("function", "name"), [
    (plain, f"{HERE}:plain"), (Scale, f"{HERE}:Scale"), (Scale.of_class, f"{HERE}:Scale.of_class"),
    (Larger.of_class, f"{HERE}:Larger.of_class"), (Scale.static, f"{HERE}:Scale.static"),
    (staticmethod(plain), f"{HERE}:plain"), (len, "builtins:len"), (math.sqrt, "math:sqrt"),
    (functools.lru_cache(plain), f"{HERE}:plain"), (functools.wraps(plain)(lambda x: x), f"{HERE}:plain"),
    (functools.update_wrapper(Scale(2), plain), f"{HERE}:plain"),
])  # fmt: skip
def test_what_has_a_name_of_its_own(function: Any, name: str) -> None:
    assert rota.task(function).name == name


def test_a_name_is_not_given_twice() -> None:
    rota.task(Scale.method)
    for again in (
        lambda: rota.task(functools.wraps(Scale.method)(lambda self, x: 0)), lambda: rota.task(queue="q")(Scale.method),
        lambda: rota.task(max_attempts=1)(Scale.method),
    ):
        with pytest.raises(ConfigError, match=r"two tasks are called .*Scale\.method: .* task\.using"):
            again()
    assert rota.task(Scale.method).name == f"{HERE}:Scale.method", "the very same once more is no harm"
    with pytest.raises(ConfigError, match="is a task already"):
        rota.task(declared.add)


def test_two_functions_of_one_name_in_a_module_are_refused(load: Callable[[str], ModuleType]) -> None:
    with pytest.raises(ConfigError, match="two tasks are called shop_of_names:f"):
        load("@rota.task\ndef f(x): return 1\nfirst = f\n@rota.task\ndef f(x): return 2\n")
    with pytest.raises(ConfigError, match="two tasks are called shop_of_names:work"):
        load("a = rota.task(name='shop_of_names:work')(functools.partial(max, 1))\n"
             "b = rota.task(name='shop_of_names:work')(functools.partial(max, 2))\n")


def test_a_module_that_is_loaded_again_declares_again(load: Callable[[str], ModuleType]) -> None:
    text = "@rota.task\ndef f(x): return {}\npart = rota.task(name='shop_of_names:part')(functools.partial(max, {}))\n"
    first = load(text.format(1, 1))
    second = load("\n\n" + text.format(2, 2))       # imported afresh
    assert second.f is not first.f and registry["shop_of_names:f"] is second.f and second.f(0) == 2
    (Path(second.__file__ or "")).write_text("import functools, rota\n# edited\n\n" + text.format(3, 3) + "#\n" * 50)
    importlib.invalidate_caches()
    third = importlib.reload(second)
    assert registry["shop_of_names:f"] is third.f and third.f(0) == 3
    assert registry["shop_of_names:part"].function(0) == 3


def test_lambdas_in_a_loop_and_functions_of_factories_travel_as_code_each() -> None:
    def make(factor: int) -> Any:
        @rota.task
        def scale(x: int) -> int:
            return x * factor

        return scale

    made = [make(2), make(3), *(rota.task(lambda x, n=n: x * n) for n in (4, 5)), as_task(functools.partial(Scale(6)))]
    assert all(task.by_value for task in made)
    with inline():
        assert [task.enqueue(10).result() for task in made] == [20, 30, 40, 50, 60]


def test_what_is_declared_at_the_top_of_a_module_under_a_name_is_found_there(load: Callable[[str], ModuleType]) -> None:
    text = """
def deco(function):
    def inner(x): return function(x)
    return inner
@rota.task(name="shop_of_names:hidden", max_concurrency=1)
@deco
def hidden(x): return x + 1
class Shop:
    kept = rota.task(name="shop_of_names:kept")(lambda x: x + 2)
many = [rota.task(name=f"shop_of_names:times{n}")(lambda x, n=n: x * n) for n in (2, 3)]
def later(): return rota.task(name="shop_of_names:later")(lambda x: x)
"""
    shop = load(text)
    for task, result in ((shop.hidden, 11), (shop.Shop.kept, 12), *zip(shop.many, (20, 30), strict=True)):
        assert not task.by_value and registry[task.name] is task
        with inline():
            assert task.enqueue(10).result() == result
    assert shop.later().by_value, "nodes that import the module do not come to know it"


def test_what_a_decorator_has_hidden_is_refused_with_advice() -> None:
    def deco(function: Any) -> Any:
        def inner(*args: Any) -> Any:
            return function(*args)

        return inner

    hidden = rota.task(max_concurrency=1)(deco(plain))
    with pytest.raises(InvalidJob, match=r"deco\.<locals>\.inner.*functools\.wraps"):
        hidden.enqueue(1)


def test_a_task_is_pickled_by_the_name_it_was_given() -> None:
    task = rota.task(name="tests:part")(functools.partial(plain, 1))
    for dump in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dump(task)) is task             # noqa: S301 - our own bytes
        other = pickle.loads(dump(task.using(queue="q", run_after=5, max_attempts=2)))     # noqa: S301
        assert other.function is task.function and other.name == task.name
        assert (other.route.queue, other.route.delay_s, other.route.options.max_attempts) == ("q", 5.0, 2)
    assert len(pickle.dumps(task.using(queue="q"))) < 400


# -- how it runs


async def coroutine(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


class AsyncCaller:
    async def __call__(self, x: int) -> int:
        return x + 1

    async def method(self, x: int) -> int:
        return x + 1


def handed_on(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def run_here(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return asyncio.run(function(*args))

    return wrapper


@pytest.mark.parametrize(("function", "mode"), [
    (coroutine, "async"), (functools.partial(coroutine, 1), "async"), (AsyncCaller(), "async"),
    (AsyncCaller().method, "async"), (functools.partial(AsyncCaller()), "async"), (staticmethod(coroutine), "async"),
    (plain, "sync"), (functools.partial(plain, 1), "sync"), (Scale(2), "sync"), (len, "sync"), (Scale, "sync"),
    (handed_on(coroutine), "sync"), (run_here(coroutine), "sync"),
])  # fmt: skip
def test_how_a_function_runs_is_seen_through_what_it_is_wrapped_in(function: Any, mode: str) -> None:
    assert mode_of(function) == mode == rota.task(name="tests:mode")(function).info.mode


@pytest.mark.parametrize("function", [handed_on(coroutine), run_here(coroutine), handed_on(handed_on(coroutine))])
def test_a_plain_function_that_hands_on_a_coroutine_has_it_awaited(function: Any) -> None:
    with inline():
        assert rota.task(name="tests:handed")(function).enqueue(1).result() == 2


def test_it_is_awaited_also_where_a_test_enqueues_in_a_coroutine() -> None:
    async def work() -> Any:
        return (await rota.task(handed_on(coroutine)).aenqueue(1)).result()

    with inline():
        assert asyncio.run(work()) == 2


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


async def async_numbers(count: int) -> AsyncIterator[int]:
    yield count


class Yields:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("function", [
    numbers, async_numbers, functools.partial(numbers, 3), Yields(), staticmethod(numbers),
])  # fmt: skip
def test_generators_are_refused(function: Any) -> None:
    for declare in (rota.task, rota.task(name="tests:yields")):
        with pytest.raises(ConfigError, match="is a generator"):
            declare(function)
    with pytest.raises(InvalidJob, match="is a generator"):
        as_task(function)


@pytest.mark.parametrize("wrong", [7, "f", None, classmethod(plain), object()])
def test_what_is_not_a_function_is_refused(wrong: Any) -> None:
    with pytest.raises((ConfigError, TypeError)):
        rota.task(name="tests:wrong")(wrong)


def test_origins() -> None:
    assert origin_of(plain)[:2] == (HERE, "plain") and origin_of(Scale(1))[:2] == (HERE, "")


# -- scripts


NFC, NFD = "größe", unicodedata.normalize("NFD", "größe")


@pytest.mark.parametrize("name", ["größe", "नमस्ते", "測定", "שלום", "สวัสดี", "a.b:c@d-e_f", "0", "_x", "Ωmega1"])
def test_names_in_all_scripts(name: str) -> None:
    assert ids.is_name(name) and ids.is_task_name(f"{name}:{name}")
    assert options.queue_name(name) == name and NamedTask(f"m:{name}").name == f"m:{name}"
    keys = Keys("c")
    assert keys.parse_job(keys.job(name, 5, 7, "k3f9q2m7xa5t-0000001f")).queue == name      # type: ignore[union-attr]
    assert keys.parse_due(keys.due(7, name, "k3f9q2m7xa5t-0000001f")) == (7, name, "k3f9q2m7xa5t-0000001f")
    assert keys.parse_failed(keys.failed_job(name, "k3f9q2m7xa5t-0000001f", 3)) == (name, "k3f9q2m7xa5t-0000001f", 3)
    assert keys.parse_queue(keys.queue(name)) == name and keys.parse_task(keys.task(name)) == name


@pytest.mark.parametrize("name", [
    "", "a/b", "\N{FULLWIDTH SOLIDUS}", "a b", "a\N{NO-BREAK SPACE}b", ".a", ":a", "@a", "-a", "a\0", "a\n", "x" * 129,
    "a\u200b", "a\u202e", "\ud800", "😀", "a\u2028", "é" * 129, NFD, "ﬁle", "a\N{FULLWIDTH COLON}b",
])  # fmt: skip
def test_what_is_not_a_name(name: str) -> None:
    assert not ids.is_name(name)
    assert Keys("c").parse_queue(Keys("c").queues + name.encode("utf-8", "surrogatepass")) is None


def test_a_name_has_one_spelling() -> None:
    assert NFC != NFD and options.queue_name(NFD) == options.queue_name(NFC) == NFC
    assert NamedTask(f"shop:{NFD}").name == f"shop:{NFC}" and rota.Queue(NFD) == NFC
    space: dict[str, Any] = {"rota": rota, "__name__": "shop_in_latin"}
    exec(f"@rota.task\ndef {NFD}(x): return x\n@rota.task\ndef ﬁle(x): return x", space)     # Python makes it one, too
    assert {f"shop_in_latin:{NFC}", "shop_in_latin:file"} <= set(registry)
    assert as_task(f"shop_in_latin:{NFD}") is space[NFC]
    for wrong in ("a\N{FULLWIDTH SOLIDUS}b", "℀"):      # which are a/b and a/c in that spelling
        with pytest.raises(InvalidJob, match="not a valid queue name"):
            options.queue_name(wrong)
