"""Batch tasks: a function that gets many jobs at once, and gives each its own outcome.

    @rota.task(batch=100, batch_wait=0.5)
    def index(pages: list[Page]) -> list[None | Exception]: ...

    index.enqueue(page)             # one job: one page

A task's `function` runs one job, as everywhere (`one_of`): tests and direct calls use it. A runner gathers
(`worker/runner/batches.py`).
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ConfigError
from .dependencies import injected_of
from .naming import mode_of


def one_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """What runs a batch of one. Raises `ConfigError` for what takes no list."""
    signature = _signature(function)

    async def run_async(item: Any, /) -> Any:
        return unwrapped(outcomes_of(function, await function([item]), 1)[0])

    def run_sync(item: Any, /) -> Any:
        return unwrapped(outcomes_of(function, function([item]), 1)[0])

    one: Any = run_async if mode_of(function) == "async" else run_sync
    functools.update_wrapper(one, function)
    del one.__wrapped__
    one.__signature__ = signature
    one.__annotations__ = _annotations(function, signature)
    one.batch = function
    made: Callable[..., Any] = one
    return made


def outcomes_of(function: Callable[..., Any], given: Any, count: int) -> Sequence[Any]:
    """What a batch function has returned. Raises TypeError if that is not an outcome for each of its jobs."""
    name = getattr(function, "__qualname__", "a batch function")
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(f"{name} returned a {type(given).__name__}: a batch function returns a list, with a result or "
                        "an exception for each of its jobs, in their order")
    if len(given) != count:
        raise TypeError(f"{name} returned {len(given):,} outcomes for {count:,} jobs: one for each, in their order")
    return given


def unwrapped(outcome: Any) -> Any:
    """A job's result; raises what it was given instead."""
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Of one job: an element of the list."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    if len(parameters) != 1 or parameters[0].kind not in (0, 1) or injected_of(function):
        raise ConfigError(
            f"{getattr(function, '__qualname__', function)!s:.80}: a batch function takes one argument, the list of "
            "its jobs; each job is enqueued with one argument, an element of that list"
        )
    name = parameters[0].name
    element = _element(function, name)
    return inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY, annotation=element)])


def _element(function: Callable[..., Any], name: str) -> Any:
    """The type of one element, where that can be had: for models (pydantic)."""
    if "pydantic" not in sys.modules:
        return inspect.Parameter.empty
    try:
        hint = typing.get_type_hints(function, include_extras=True)[name]
    except Exception:       # a name that exists for type checkers only, or comes later
        return inspect.Parameter.empty
    found = typing.get_args(hint)
    return found[0] if len(found) == 1 else inspect.Parameter.empty


def _annotations(function: Callable[..., Any], signature: inspect.Signature) -> dict[str, Any]:
    return {
        name: one.annotation for name, one in signature.parameters.items() if one.annotation is not one.empty
    }
