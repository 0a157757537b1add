"""How one feature is taken out of the production code, in every process of a cluster and in the test's own.

`switches/` is the table. `install` puts a hook before Python's importers: as soon as a process has loaded the module
that a switch is about, the switch changes it, before anybody else sees it. Processes that never import the module pay
nothing. The guard imports nothing of ours and runs isolated; it is started through `off/guard.py`.

Standard library only: this is imported where a runner starts.
"""

from __future__ import annotations

import importlib.abc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

OFF = Path(__file__).with_name("off")
GUARD, GUARD_LINK = "rota.worker.guard.guard", "rota.worker.guard.guardlink"

NEVER_S = 4.0
"""The patience for what will never come: more than it takes when the feature is on, on a busy machine."""

PROMISES = "acceptance/test_promises.py"
TAKEOVER = "acceptance/test_takeover.py"
CLUSTER = "acceptance/test_cluster.py"

TakeOut = Callable[[Any], None]


class Switch(NamedTuple):
    """`rows` of docs/promises.md; `test` as it is named there; `fails`: what the failure must look like, searched in
    "statement of the test -> error". `patience_s`: what the test waits for never comes, so it is not awaited long."""

    name: str
    take_out: TakeOut
    module: str
    rows: tuple[str, ...]
    test: str
    fails: str
    patience_s: float

    @property
    def what(self) -> str:
        return (self.take_out.__doc__ or "").strip()


SWITCHES: dict[str, Switch] = {}


def switch(
    rows: str, test: str, module: str, *, fails: str, patience_s: float = 20.0
) -> Callable[[TakeOut], TakeOut]:
    """One entry of the table: a function that is given the module, and breaks it. Its docstring says what is off."""

    def enter(take_out: TakeOut) -> TakeOut:
        name = take_out.__name__
        assert take_out.__doc__ and name not in SWITCHES, name
        SWITCHES[name] = Switch(name, take_out, module, tuple(rows.split()), test, fails, patience_s)
        return take_out

    return enter


def change(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by what `make` makes of it."""
    setattr(owner, name, make(getattr(owner, name)))


def declared_otherwise(tasks: Any, otherwise: Callable[[Any], dict[str, Any]]) -> None:
    """Every task is declared with other options than its author's: those that `otherwise` makes of them."""
    def declaring(init: Any) -> Any:
        def __init__(self: Any, function: Any, declared: Any) -> None:
            from msgspec.structs import replace  # not at the top: the guard, which has no packages, reads this

            init(self, function, replace(declared, **otherwise(declared)))

        return __init__

    change(tasks.Task, "__init__", declaring)


def install(name: str) -> None:
    """In this process, from now on."""
    found = SWITCHES[name]
    if found.module == GUARD:
        sys.meta_path.insert(0, _Hook(GUARD_LINK, _through_our_guard))
    else:
        sys.meta_path.insert(0, _Hook(found.module, found.take_out))


def go_first() -> None:
    """Before the finder that pytest puts before all others: it would take our modules for its plugins', and load them
    itself."""
    sys.meta_path.sort(key=lambda finder: not isinstance(finder, _Hook))


def _through_our_guard(guardlink: Any) -> None:
    def command(original: Any) -> Any:
        def guard_command(*args: Any, **kwargs: Any) -> list[str]:
            line = original(*args, **kwargs)
            at = line.index(str(guardlink.GUARD))
            return [*line[:at], str(OFF / "guard.py"), *line[at:]]

        return guard_command

    change(guardlink, "guard_command", command)


class _Hook(importlib.abc.MetaPathFinder):
    """Lets the others find the module, and changes it when it is loaded."""

    def __init__(self, module: str, take_out: TakeOut) -> None:
        self._module = module
        self._take_out = take_out

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._module:
            return None
        others = (
            finder.find_spec(name, path, target) for finder in sys.meta_path
            if finder is not self and type(finder).__name__ != "AssertionRewritingHook"
        )
        spec = next((spec for spec in others if spec is not None), None)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._take_out(module)
            if self._module != GUARD_LINK:
                note()

        spec.loader.exec_module = exec_module       # type: ignore[method-assign]
        return spec


def note() -> None:
    """That the feature is out in this process: whoever asked for it wants to know that it was not in vain."""
    with Path(os.environ["SWITCHED_OFF_NOTES"]).open("a") as notes:
        notes.write(f"{os.getpid()}\n")


from . import switches as _table  # noqa: E402, F401 - it fills SWITCHES
