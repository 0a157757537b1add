"""Where the app is looked for: in the folder in which the node was started, before all that is installed, but after the
standard library. Python itself would look there first (`python -m`), and take a `token.py` or `queue.py` beside the app
for the standard module of that name, wherever rota or anything else asks for it."""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
from pathlib import Path

log = logging.getLogger("rota.runner")

SAFE_PATH = "PYTHONSAFEPATH"


def complete() -> None:
    """Unless the environment asks Python not to look there."""
    if os.environ.get(SAFE_PATH):
        return
    folder = Path.cwd()
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    places = [at for at, place in enumerate(sys.path) if place in standard or Path(place).parent.as_posix() in standard]
    sys.path.insert(max((at for at in places if "-packages" not in sys.path[at]), default=-1) + 1, str(folder))
    shadowed = [path.name for path in sorted(folder.iterdir()) if _module(path) in sys.stdlib_module_names]
    if shadowed:
        log.warning("%s in %s: imports find the standard modules of these names; rename them", shadowed, folder)


def _module(path: Path) -> str:
    """The name of the module or package that a path is, or ""."""
    if path.suffix == ".py":
        return path.stem
    return path.name if (path / "__init__.py").exists() else ""
