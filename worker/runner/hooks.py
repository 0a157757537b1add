"""What an application wants done in each runner: when it starts and stops (open a connection pool, close it again), and
when a job has failed for good (tell an error service)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

log = logging.getLogger("rota.job")

Hook = Callable[[], "Awaitable[Any] | Any"]
HookT = TypeVar("HookT", bound=Hook)

ErrorHook = Callable[[BaseException], Any]
ErrorHookT = TypeVar("ErrorHookT", bound=ErrorHook)

_errors: list[ErrorHook] = []
_start: list[Hook] = []
_stop: list[Hook] = []


def on_runner_start(hook: HookT) -> HookT:
    """Call `hook` in each runner, after the app is imported and before its first job. A decorator. An `async def` is
    awaited, on the event loop of the jobs if it is an async runner. If it fails, the runner does not start."""
    _start.append(hook)
    return hook


def on_runner_stop(hook: HookT) -> HookT:
    """Call `hook` when a runner stops in good order, the last one registered first. Not when it is killed."""
    _stop.append(hook)
    return hook


def on_error(hook: ErrorHookT) -> ErrorHookT:
    """Call `hook(error)` in the runner when a job has failed and is not tried again. A decorator.

        rota.on_error(sentry_sdk.capture_exception)

    It runs in the job's own context, so `rota.current_job()` says which job it was, and before the outcome is sent: let
    it be quick. What it raises is logged. For a job whose runner died there is nobody to call it: the node logs that.
    """
    if inspect.iscoroutinefunction(hook):
        raise TypeError("an error hook is a plain function: in a sync runner there is no event loop to await it on")
    _errors.append(hook)
    return hook


def report(error: BaseException) -> None:
    """Never raises."""
    for hook in _errors:
        try:
            hook(error)
        except BaseException:
            log.exception("the error hook %r failed", hook)


def start_hooks() -> list[Hook]:
    return list(_start)


def stop_hooks() -> list[Hook]:
    return list(reversed(_stop))


async def run(hooks: list[Hook]) -> None:
    """On an event loop."""
    for hook in hooks:
        result = hook()
        if inspect.isawaitable(result):
            await result


def run_blocking(hooks: list[Hook]) -> None:
    """Without an event loop: libraries that refuse to block one must not find one."""
    for hook in hooks:
        result = hook()
        if inspect.isawaitable(result):
            asyncio.run(_finish(result))


async def _finish(result: Awaitable[Any]) -> None:
    await result
