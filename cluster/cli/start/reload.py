"""`rota dev` while its app is written: when a file changes, the node starts again with it."""

from __future__ import annotations

import ast
import contextlib
import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path

from ...boot.child import tied
from ...boot.config import NodeConfig
from ...boot.launch import guard_command, guard_environment
from ...terminal import complain

LOOK_S = 0.5
HURRY_S = 3.0
"""How long jobs may go on when the code has changed; then they are handed back, and run by the new code."""

FILES_MAX = 5_000
Stamp = tuple[int, int]
EXIT_CONFIG = 2


class Watched:
    """The files of an app: its modules, and what they import that lies beside them; of a package all below it. (A
    script beside them that they do not import is none of theirs.)"""

    def __init__(self, apps: Iterable[str]) -> None:
        self._apps = [app.partition(".")[0] for app in apps]
        self._seen = self._look()

    def changed(self) -> list[Path]:
        """Since it was asked last."""
        before, self._seen = self._seen, self._look()
        gone = [path for path in before if path not in self._seen and not path.exists()]
        return [path for path, stamp in self._seen.items() if before.get(path) != stamp] + gone

    def _look(self) -> dict[Path, Stamp]:
        """What a node would import here; nothing of it is run."""
        found: dict[Path, Stamp] = {}
        importlib.invalidate_caches()       # a new file may have come within the clock's grain
        met, next_ones = set(self._apps), [(name, [str(Path.cwd()), *sys.path]) for name in self._apps]
        while next_ones and len(found) < FILES_MAX:
            name, places = next_ones.pop()
            files, folder = _found(name, places)
            for path in islice(files, FILES_MAX):
                try:
                    facts = path.stat()
                except OSError:
                    continue            # it has just gone
                found[path] = (facts.st_mtime_ns, facts.st_size)
                beside = _imported(path, found[path]) - met
                met |= beside
                next_ones += [(other, [folder]) for other in beside]
        return found


def _found(name: str, places: list[str]) -> tuple[Iterable[Path], str]:
    """The files of a module or package, and the folder it lies in."""
    spec = PathFinder.find_spec(name, places)
    if spec is not None and spec.submodule_search_locations:
        package = Path(next(iter(spec.submodule_search_locations)))
        return package.rglob("*.py"), str(package.parent)
    if spec is not None and spec.origin is not None:
        return [Path(spec.origin)], str(Path(spec.origin).parent)
    return [Path(places[0]) / f"{name}.py"], places[0]      # it may be written there yet


@lru_cache(FILES_MAX)
def _imported(path: Path, _stamp: Stamp) -> frozenset[str]:
    """The names of modules and packages that a file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return frozenset(names)


class Dev:
    """Nodes, started again and again, until a person ends them. `watched` None: they are not started again."""

    def __init__(self, configs: Sequence[NodeConfig], watched: Watched | None) -> None:
        self._configs = configs
        self._watched = watched
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def run(self) -> int:
        """Returns the exit status of the last nodes. Signals are passed on: one to stop, a second to hurry, a third to
        kill."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop())
        while True:
            self._processes = [_start(config) for config in self._configs]
            status = self._until_ended()
            if status is None:
                continue
            if self._stopping and status == -signal.SIGTERM:
                return 0                # it was only just starting
            if self._stopping or self._watched is None or status != EXIT_CONFIG:
                return status
            complain("rota: waiting for a change of the app's files")
            while not self._stopping and not self._watched.changed():
                time.sleep(LOOK_S)
            if self._stopping:
                return status

    def _stop(self) -> None:
        self._stopping = True
        for process in self._processes:
            process.terminate()

    def _until_ended(self) -> int | None:
        """The exit status; None if all were ended here, because a file has changed."""
        there = self._processes
        while there:
            with contextlib.suppress(subprocess.TimeoutExpired):
                there[0].wait(LOOK_S)
            left = [process for process in there if process.poll() is None]
            if left and len(left) < len(there) and not self._stopping:
                complain(f"rota: {len(there) - len(left)} of {len(there)} nodes ended, the others go on")
            there = left
            changed = self._watched.changed() if there and self._watched is not None and not self._stopping else []
            if changed:
                self._say_changed(changed)
                self._end(there)
                if not self._stopping:
                    return None
        statuses = [process.returncode for process in self._processes]
        return EXIT_CONFIG if EXIT_CONFIG in statuses else next(filter(None, statuses), 0)

    def _say_changed(self, changed: list[Path]) -> None:
        what = "the node starts again" if len(self._configs) == 1 else "the nodes start again"
        complain(f"rota: {', '.join(path.name for path in changed[:3])} changed: {what}")

    @staticmethod
    def _end(processes: list[subprocess.Popen[bytes]]) -> None:
        deadline = time.monotonic() + HURRY_S
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.terminate()
        for process in processes:
            process.wait()


def _start(config: NodeConfig) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        tied(guard_command(config), signal.SIGKILL), env=guard_environment(config),
        start_new_session=True,     # Ctrl-C reaches us alone, and the guard once
    )  # fmt: skip
