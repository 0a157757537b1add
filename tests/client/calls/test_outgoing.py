"""Headers, middleware round the enqueue, injected parameters, models: as far as the client goes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

import rota
from rota.client.api.bulk import PAUSE, frames
from rota.client.calls import outgoing
from rota.client.calls.pickling import load_arguments, load_call
from rota.client.ids import Names
from rota.client.wire.codec import split_body
from rota.client.wire.keyring import UNSIGNED, Seal


class Line(BaseModel):
    sku: str
    count: Annotated[int, Field(ge=1)] = 1


def resource() -> str:
    return "made"


@rota.task
def plain(a: int, b: int = 0) -> int:
    return a + b


@rota.task
def lines(first: Line, rest: list[Line] | None = None, *, db: str = rota.Depends(resource)) -> int:
    return first.count


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "steps", [])


def call_of(order: Any) -> tuple[Any, ...]:
    return load_call(order.codec, order.payload)


def bulk(task: Any, calls: list[tuple[Any, ...]]) -> list[tuple[str, int, list[tuple[Any, ...]]]]:
    found = []
    for frame in frames(task, task.destination()[0], iter(calls), Seal(UNSIGNED, "c"), Names()):
        assert frame is not PAUSE
        for bundle in frame:
            header, payloads = split_body(bundle.body)
            found.append((header.queue, bundle.priority, [load_call(header.codec, payload) for payload in payloads]))
    return found


def test_headers_travel_beside_the_arguments() -> None:
    task = plain.using(headers={"tenant": "acme"}).using(headers={"trace": "1"})
    order = task.order((1,), {"b": 2})
    assert call_of(order) == ((1,), {"b": 2}, {"tenant": "acme", "trace": "1"})
    assert load_arguments(order.codec, order.payload) == ((1,), {"b": 2})
    assert order.route == plain.order((1,), {}).route       # so they share a bundle
    assert len(call_of(plain.order((1,), {}))) == 2
    assert pickle.loads(pickle.dumps(task)).headers == task.headers     # noqa: S301 - made here


@pytest.mark.parametrize(("headers", "words"), [
    ({"a b": "x"}, "not a valid header name"), ({"a": 1}, "its value has to be a text"), ({"a": "\ud800"}, "UTF-8"),
    ({"a": "x" * 9000}, "at most 8,192"), ({str(n): "" for n in range(33)}, "at most 32"), ("a=b", "a mapping"),
])
def test_headers_that_cannot_travel(headers: Any, words: str) -> None:
    with pytest.raises(rota.InvalidJob, match=words):
        plain.using(headers=headers)


def test_middleware_changes_jobs_in_its_order() -> None:
    seen = []

    @rota.before_enqueue(order=5)
    def last(job: rota.Outgoing) -> None:
        seen.append(dict(job.headers))
        job.queue, job.priority = "other", 7

    @rota.before_enqueue
    def first(job: rota.Outgoing) -> None:
        job.headers["by"] = job.task
        job.args = (job.args[0] + 1,)

    order = plain.order((1,), {})
    assert seen == [{"by": plain.name}]
    assert call_of(order) == ((2,), {}, {"by": plain.name})
    assert (order.route.queue, order.route.priority) == ("other", 7)


def test_middleware_sees_each_job_of_a_bulk() -> None:
    @rota.before_enqueue
    def sort(job: rota.Outgoing) -> None:
        job.headers["n"] = str(job.args[0])
        if job.args[0] >= 2:
            job.queue = "large"

    assert bulk(plain, [(1,), (2,), (3,), (0,)]) == [
        ("default", 0, [((1,), {}, {"n": "1"})]),
        ("large", 0, [((2,), {}, {"n": "2"}), ((3,), {}, {"n": "3"})]),
        ("default", 0, [((0,), {}, {"n": "0"})]),
    ]


def test_middleware_refuses_and_is_checked() -> None:
    deeds: list[Any] = [lambda job: 1 / 0]

    @rota.before_enqueue
    def deed(job: rota.Outgoing) -> None:
        deeds[0](job)

    with pytest.raises(ZeroDivisionError) as caught:
        plain.order((1,), {})
    assert "nothing is stored" in caught.value.__notes__[0] and "deed" in caught.value.__notes__[0]
    for attribute, value, words in (
        ("args", [1], "tuple"), ("kwargs", {"c": 1}, "unexpected keyword"), ("queue", "a b", "queue name"),
        ("priority", 1000, "priority"), ("headers", {"a": 1}, "header a"),
    ):
        deeds[0] = lambda job, attribute=attribute, value=value: setattr(job, attribute, value)
        with pytest.raises(rota.InvalidJob, match=words):
            plain.order((1,), {})
    with pytest.raises(rota.ConfigError, match="plain function"):
        rota.before_enqueue(_coroutine)         # type: ignore[type-var]


async def _coroutine(job: rota.Outgoing) -> None:
    return


def test_models_are_checked_where_they_are_enqueued() -> None:
    for first in ({"sku": "a", "count": "2"}, Line(sku="a", count=2)):
        args, kwargs, *_ = call_of(lines.order((first, [{"sku": "b"}]), {}))
        assert args == (Line(sku="a", count=2), [Line(sku="b")]) and not kwargs
    with pytest.raises(rota.InvalidJob, match=r"argument first is not valid: count: Input should be greater"):
        lines.order(({"sku": "a", "count": 0},), {})
    with pytest.raises(rota.InvalidJob, match=r"argument rest .*0\.sku: Field required"):
        lines.order((Line(sku="a"), [{}]), {})
    with pytest.raises(rota.InvalidJob, match="argument first"):
        bulk(lines, [({"sku": "a"},), ({},)])


def test_nobody_gives_what_is_injected() -> None:
    with pytest.raises(rota.InvalidJob, match="db is injected"):
        lines.order((Line(sku="a"),), {"db": "mine"})
    parameters = lines.described.parameters
    assert parameters is not None and [one.name for one in parameters] == ["first", "rest"]
    with pytest.raises(rota.NotInJob, match=r"rota\.Depends\(resource\)"):
        lines.function.__kwdefaults__["db"].upper()


def test_dependencies_that_cannot_be() -> None:
    def of_job() -> Iterator[int]:
        yield 1

    def needs(job: int = rota.Depends(of_job, scope="job")) -> int:
        return job

    def bare(url: str) -> str:
        return url

    with pytest.raises(rota.ConfigError, match="once per runner"):
        rota.Depends(needs)
    with pytest.raises(rota.ConfigError, match="its parameter url"):
        rota.Depends(bare)
    with pytest.raises(rota.ConfigError, match='"runner" or "job"'):
        rota.Depends(of_job, scope="node")      # type: ignore[call-overload]
    with pytest.raises(rota.ConfigError, match="comes after one with"):
        @rota.task
        def wrong(db: int = rota.Depends(of_job), a: int = 1) -> None: ...
