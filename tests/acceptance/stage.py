"""A pytest plugin (`-p tests.acceptance.stage`): plays one test, or of a test one scenario alone, and writes down how
it ended.

A scenario is an `async def` of a test module that one of its tests awaits by its name; all others that this test plays
are left out. Nothing has to be declared for that.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from . import switching

STAGED, VERDICT = "STAGED", "STAGED_VERDICT"

switching.go_first()


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    wanted = os.environ[STAGED]
    chosen = [item for item in items if isinstance(item, pytest.Function) and _plays(item, wanted)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def _plays(item: pytest.Function, wanted: str) -> bool:
    if item.originalname == wanted:
        return True
    function, module = item.function, item.module
    assert isinstance(function, FunctionType)
    if wanted not in function.__code__.co_names:
        return False
    for name in function.__code__.co_names:
        other = getattr(module, name, None)
        if name != wanted and inspect.iscoroutinefunction(other) and other.__module__ == module.__name__:
            setattr(module, name, _nothing)
    return True


async def _nothing(*args: Any, **kwargs: Any) -> None:
    """A scenario that is left out."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    yield
    if call.when == "call" or call.excinfo is not None:
        with Path(os.environ[VERDICT]).open("a") as file:
            json.dump(_verdict(item, call), file)
            file.write("\n")


def _verdict(item: pytest.Item, call: pytest.CallInfo[None]) -> dict[str, str]:
    if call.excinfo is None:
        return {"test": item.name, "ended": "well"}
    if call.excinfo.errisinstance(pytest.skip.Exception):
        return {"test": item.name, "ended": "skipped", "error": str(call.excinfo.value)}
    wanted = os.environ[STAGED]
    own = [entry for entry in call.excinfo.traceback if entry.frame.code.name == wanted]
    statement = " ".join(str(own[-1].statement).split()) if own else f"(not in {wanted}, but in {call.when})"
    return {
        "test": item.name, "ended": "badly", "statement": statement,
        "error": " ".join(call.excinfo.exconly().split())[:2000],
    }
