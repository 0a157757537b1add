"""Whether what takes a feature or a safeguard out still fits the code: the switches of `acceptance/switches`, and the
mutants of `simulation`. What they replace has to be there, and to be called as the replacement can be.

One whose target was renamed takes nothing out, and what is to miss it fails for no reason of its own. So this is looked
at in every run of the suite, without playing anything: each is applied (in a process beside this one), what it has
changed is compared with what was there, and put back.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

OURS = ("rota.", "tests.simulation.")

Owner = Any
Changer = Callable[..., None]
Changed = tuple[Owner, str, Any, Any]


def faults_in(where: str) -> dict[str, list[str]]:
    """`faults_of` what a function gives ("module:name"), in a process of its own: a fork beside threads may hang."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fitting", where], cwd=Path(__file__).parent.parent, timeout=100,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def faults_of(changers: Mapping[str, tuple[Changer, str]]) -> dict[str, list[str]]:
    """By name: why it does not fit. `changers`: functions, and the module that each is given ("": none)."""
    for _, module in changers.values():
        if module:
            importlib.import_module(module)
    _changers.clear()
    _changers.update(changers)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return dict(zip(changers, pool.map(_faults, changers), strict=True))


_before: dict[int, tuple[Owner, dict[str, Any]]] = {}
_changers: dict[str, tuple[Changer, str]] = {}


def _faults(name: str) -> list[str]:
    if not _before:
        _before.update((id(owner), (owner, dict(vars(owner)))) for owner in _owners())
    os.environ["SWITCHED_OFF"] = name
    changer, given = _changers[name]
    module = importlib.import_module(given) if given else None
    lacking = [f"{given} has no {attribute}" for attribute in _wanted(changer, module)] if module else []
    try:
        changer(*[module] if module else ())
    except Exception as error:
        return [*lacking, f"{type(error).__name__}: {error}"]
    changes: list[Changed] = [
        (owner, attribute, _inherited(owner, attribute), now) for owner, was in _before.values()
        for attribute, now in list(vars(owner).items())
        if was.get(attribute) is not now and not isinstance(now, ModuleType)
    ]
    for owner, attribute, _, _ in changes:
        if attribute in _before[id(owner)][1]:
            setattr(owner, attribute, _before[id(owner)][1][attribute])
        else:
            delattr(owner, attribute)
    if not changes:
        lacking.append("nothing has changed")
    for change in changes:
        lacking.extend(_misfits(*change))
    classes = [owner for owner, *_ in changes if isinstance(owner, type)]
    known = {name for kind in classes for name in dir(kind)}
    known |= {name for owner in classes for kind in owner.__mro__ for name in _own_attributes(kind)}
    if classes:
        names = " or ".join(dict.fromkeys(kind.__name__ for kind in classes))
        lacking.extend(f"{names} has no {name}" for name in sorted(_asked_of_self(changer) - known))
    return lacking


def _inherited(owner: Owner, attribute: str) -> Any:
    """What it was before, of its own or of the next of its bases; `_NOTHING`."""
    for kind in owner.__mro__ if isinstance(owner, type) else (owner, type(owner)):
        was = _before[id(kind)][1] if id(kind) in _before else vars(kind)
        if attribute in was:
            return was[attribute]
    return _NOTHING


_NOTHING = object()


def _owners() -> Iterator[Owner]:
    """What they may change: our modules and classes; modules and loggers that ours use."""
    ours = [loaded for name, loaded in list(sys.modules.items()) if name.startswith(OURS)]
    for module in ours:
        yield module
        for value in vars(module).values():
            if isinstance(value, ModuleType | logging.Logger) or (isinstance(value, type) and _is_ours(value)):
                yield value


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith(OURS)


def _misfits(owner: Owner, name: str, was: Any, now: Any) -> Iterator[str]:
    """It has to take what was taken: everything at once, and no more than must be said."""
    if was is _NOTHING:
        yield f"{_name_of(owner)} had no {name}"
    was, now = (inspect.unwrap(getattr(it, "__func__", it)) for it in (was, now))
    if not isinstance(was, FunctionType) or not isinstance(now, FunctionType):
        return
    signature = inspect.signature(now)
    for least in (False, True):
        said, named = _call(inspect.signature(was), least=least)
        try:
            signature.bind(*said, **named)
        except TypeError as error:
            yield f"{_name_of(owner)}.{name}{inspect.signature(was)}: {error}"
            return
    if inspect.iscoroutinefunction(was) and not inspect.iscoroutinefunction(now) and now.__name__ != "<lambda>":
        yield f"{_name_of(owner)}.{name} is a coroutine function"


def _call(signature: inspect.Signature, *, least: bool) -> tuple[list[None], dict[str, None]]:
    said: list[None] = []
    named: dict[str, None] = {}
    for parameter in signature.parameters.values():
        if least and parameter.default is not parameter.empty:
            continue
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            said.append(None)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = None
    return said, named


# -- what its source asks for ------------------------------------------------------------------------------------------


def _trees(changer: Changer) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Its own, and those of the helpers that are given the module; the name that the module has there."""
    todo: list[Callable[..., Any]] = [changer]
    seen: set[str] = set()
    while todo:
        function = todo.pop()
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        if not isinstance(tree, ast.FunctionDef) or tree.name in seen:
            continue
        seen.add(tree.name)
        module = tree.args.args[0].arg if tree.args.args else ""
        yield tree, module
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and any(
                isinstance(given, ast.Name) and given.id == module for given in node.args
            ):
                helper = function.__globals__.get(node.func.id)
                if isinstance(helper, FunctionType) and helper.__module__ == changer.__module__:
                    todo.append(helper)


def _wanted(changer: Changer, module: ModuleType) -> Iterator[str]:
    for tree, name in _trees(changer):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
                and not hasattr(module, node.attr)
            ):
                yield node.attr


def _asked_of_self(changer: Changer) -> set[str]:
    """But for what it gives itself."""
    asked, given = set[str](), set[str]()
    for tree, _ in _trees(changer):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                (given if isinstance(node.ctx, ast.Store) else asked).add(node.attr)
    return asked - given


def _own_attributes(kind: type) -> Iterator[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            yield node.attr


def _name_of(owner: Owner) -> str:
    return str(getattr(owner, "__qualname__", getattr(owner, "__name__", owner)))


def main(where: str) -> None:
    module, _, name = where.partition(":")
    sys.stdout.write(json.dumps(faults_of(getattr(importlib.import_module(module), name)())))


if __name__ == "__main__":
    from tests.fitting import main as started  # under its own name: what is changed is looked up there

    started(sys.argv[1])
