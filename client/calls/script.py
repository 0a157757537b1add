"""The module that a process was started with, and what it is called where it is imported.

`python -m shop` and `python shop.py` execute a module under the name `__main__` (a child of multiprocessing:
`__mp_main__`); elsewhere the same classes and functions are those of `shop`. What travels is named as it is known
there, and what comes back is found here.
"""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

NAMES = ("__main__", "__mp_main__")
"""As what a process calls the module that it was started with."""

NAMES_SOMETHING = pickle.STACK_GLOBAL[0]
"""The byte that is in every pickle (protocol 5, as rota makes them) that names a class or a function. Most small ones
name nothing, and to look for one byte is several times cheaper than to look for a word."""


def importable(module: str, function: Callable[..., Any] | None = None) -> str:
    """The name by which other processes import a module (and what `function` of it); "" if they cannot."""
    if module not in NAMES:
        return module
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)          # set by `python -m package.module`
    code = getattr(inspect.unwrap(function) if function is not None else None, "__code__", None)
    file = code.co_filename if code is not None else getattr(main, "__file__", None)
    if spec is None or file != spec.origin:
        return ""                                   # a script, a REPL (also one started with -m)
    return str(spec.name)


def name_where_runs(task: str) -> str:
    """What the process that runs a task calls the module that this process was started with. "" where it knows nothing
    of it: then what belongs to it travels as code. `task` is "" if the task itself travels as code."""
    main = _main()
    if main is None:
        return ""
    if name := importable(main.__name__):
        return name
    if not task:
        return ""               # what it refers to travels with it, and has to be the same
    module = task.partition(":")[0]
    if _is_file_of(main, module):
        return module           # a script whose own tasks are asked for by name
    stem = Path(main.__file__ or "").stem
    other = sys.modules.get(stem)       # a script that something else has imported, too
    return stem if other is not None and getattr(other, "__file__", "") == main.__file__ else ""


def find(module: str, qualname: str) -> Any:
    """What this process was started with has of this name, if it is this module; None if it has not, or is not."""
    main = _main()
    if main is None or (importable(main.__name__) != module and not _is_file_of(main, module)):
        return None
    return look_up(main, qualname)


def look_up(module: ModuleType | None, qualname: str) -> Any:
    """None if there is nothing of this name."""
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def could_be(payload: bytes) -> bool:
    """Whether a pickle may name something of the module that this process was started with, as others call it."""
    main = _main()
    return main is not None and _needle(main) in payload


@lru_cache(4)
def _needle(main: ModuleType) -> bytes:
    name = importable(main.__name__).rpartition(".")[2] or Path(main.__file__ or "").stem
    return name.encode("utf-8", "surrogatepass")


def _main() -> ModuleType | None:
    """None in a REPL, whose module has no other name."""
    main = sys.modules.get("__mp_main__") or sys.modules.get("__main__")
    return main if getattr(main, "__file__", None) else None


def _is_file_of(main: ModuleType, module: str) -> bool:
    """Whether a script is the file of a module: `/app/shop/jobs.py` is that of `shop.jobs`."""
    parts = module.split(".")
    return bool(module) and Path(main.__file__ or "").with_suffix("").parts[-len(parts):] == tuple(parts)
