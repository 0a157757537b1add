"""What an application wants done in each runner: when it starts and stops (open a connection pool, close it again), and
when a job has failed for good (tell an error service)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rota.client.errors import JobFailed
from rota.client.ids import job_id

from ..channel.frames import Work
from .context import running

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

    Once for every final failure, wherever it is noticed; not for a job that was cancelled. `rota.current_job()` says
    which job it was. It runs in the job's own runner before the outcome is sent, so let it be quick. If the runner died
    or was killed, the node was lost, or the job cannot be read, another runner calls it, with a `TimeoutError` or
    `rota.JobFailed`. What it raises is logged.
    """
    if inspect.iscoroutinefunction(hook):
        raise TypeError("an error hook is a plain function: in a sync runner there is no event loop to await it on")
    _errors.append(hook)
    return hook


def report_lost(work: Work, index: int, error: str) -> None:
    """A job that has failed where no runner saw it. In a context of its own."""
    running.set((work, index))
    kind, _, text = error.partition(": ")
    report(TimeoutError(text) if kind == "TimeoutError" else JobFailed(
        job_id(work.bundle, index), error, attempts=work.attempt
    ))


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
