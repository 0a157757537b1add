"""What a function is called in the cluster, where it was declared, and how it runs. Decided when it is declared.

A name stands for one function. Functions, classes and what wears a function's name (`functools.wraps`, `staticmethod`)
have one of their own: the place where an import finds them. A partial, an instance with `__call__` or a bound method
has not; the name of its type is no name, for two of them would share it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from inspect import CO_OPTIMIZED
from types import FrameType
from typing import Any, NamedTuple

from ..calls.script import importable
from ..errors import ConfigError
from ..model import Mode

_ROTA = __name__.rpartition(".")[0]


class Origin(NamedTuple):
    """`module` is "" if no other process could import it. `qualname` is "" for what has no name of its own. `runs` are
    the modules involved, and what tells one execution of them from the next: a module that is loaded again declares
    its tasks again. `at_top`: declared while its module was executed, as it will be wherever that is imported."""

    module: str
    qualname: str
    runs: tuple[tuple[str, object], ...]
    at_top: bool = False

    def is_importable(self, named: bool) -> bool:
        """Whether a process that imports the module declares this task, too, under its own name or one it was given."""
        return bool(self.module) and ("<" not in self.qualname or (named and self.at_top))

    def is_reload_of(self, before: Origin) -> bool:
        """Whether this is the same declaration, made again by a module that was loaded again."""
        then = dict(before.runs)
        return self.module == before.module and any(then.get(name, run) is not run for name, run in self.runs)


def origin_of(function: Callable[..., Any]) -> Origin:
    """Where a function comes from. Raises `ConfigError` for what cannot be a task."""
    _refuse(function)
    declared_in, at_top = _declaring_module()
    if not _has_name(function):
        module = importable(declared_in, None)
        return Origin(module, "", (_run_of(declared_in),), at_top)
    module, qualname = getattr(function, "__module__", None) or "", function.__qualname__
    owner = getattr(function, "__self__", None)
    if inspect.isclass(owner):      # a method of a class: of the one that was asked, which may have inherited it
        module, qualname = owner.__module__, f"{owner.__qualname__}.{function.__name__}"
    return Origin(importable(module, function), qualname, (_run_of(module), _run_of(declared_in)), at_top)


def mode_of(function: Callable[..., Any]) -> Mode:
    """"async" if a call gives a coroutine, as far as the function itself says. A plain function that wraps an `async
    def` may hand its coroutine on or run it: it is run as a plain function, and what it hands on is awaited there."""
    return "async" if inspect.iscoroutinefunction(_called(function)) else "sync"


def advice(origin: Origin) -> str:
    """How to make importable what is not."""
    if "<locals>" in origin.qualname:
        return (
            f"Its name is {origin.qualname}: if that is the wrapper that a decorator puts around a function, use "
            "functools.wraps(function) in the decorator; else define the task at the top of a module"
        )
    return "Put it into a module given to `rota node --app`"


def describe(function: object) -> str:
    """For messages."""
    return f"{function!r:.80}"


def _refuse(function: Callable[..., Any]) -> None:
    if isinstance(function, classmethod):
        raise ConfigError("a classmethod cannot be a task: of which class would a job call it? Declare a function")
    if not callable(function):
        raise ConfigError(f"{describe(function)} cannot be called, so it cannot be a task")
    called = _called(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigError(
            f"{describe(function)} is a generator (it has a `yield`): calling it runs nothing of it, so it cannot be a "
            "task. Return a list, or enqueue a job for each item"
        )


def _called(function: Any) -> Any:
    """The function whose kind decides what a call gives."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, staticmethod):
            function = function.__func__
        elif inspect.isroutine(function) or inspect.isclass(function) or inspect.iscoroutinefunction(function):
            return function
        else:
            return getattr(type(function), "__call__", function)    # noqa: B004 - the function is wanted


def _has_name(function: Any) -> bool:
    """Whether its name is its own, and not that of its type or of the method that it is bound to."""
    owner = getattr(function, "__self__", None)         # of `len` it is a module, of `[].append` a list
    if owner is not None and not inspect.ismodule(owner) and not inspect.isclass(owner):
        return False
    return isinstance(getattr(function, "__qualname__", None), str)


def _run_of(module: str) -> tuple[str, object]:
    """A module, and an object that is another one each time the module is executed."""
    found = sys.modules.get(module)
    return importable(module, None) or module, getattr(found, "__spec__", None) or object()


def _declaring_module() -> tuple[str, bool]:
    """The module whose code is declaring a task now, and whether that is at its top (or in the body of a class there),
    not in a function."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if isinstance(name, str) and name != _ROTA and not name.startswith(f"{_ROTA}."):
            body: FrameType | None = frame
            while body is not None and _is_part(body):
                body = body.f_back
            return name, body is not None and body.f_code.co_name == "<module>"
        frame = frame.f_back
    return "", False


def _is_part(frame: FrameType) -> bool:
    """Whether this is the body of a class, or a comprehension: a part of the code around it."""
    code = frame.f_code
    if code.co_name in ("<module>", "<lambda>"):
        return False
    return not code.co_flags & CO_OPTIMIZED or code.co_name.startswith("<")
