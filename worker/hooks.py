"""What an application wants done once per runner: open a connection pool, warm a cache, close it again."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Hook = Callable[[], "Awaitable[Any] | Any"]
HookT = TypeVar("HookT", bound=Hook)

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
