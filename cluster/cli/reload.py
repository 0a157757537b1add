"""`rota dev` while its app is written: when a file changes, the node starts again with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path

from ..boot.child import tied
from ..boot.config import NodeConfig
from ..boot.launch import guard_command, guard_environment
from ..terminal import complain

LOOK_S = 0.5
HURRY_S = 3.0
"""How long jobs may go on when the code has changed; then they are handed back, and run by the new code."""

FILES_MAX = 5_000
EXIT_CONFIG = 2


class Watched:
    """The files of an app: of a module what lies beside it, of a package all below it."""

    def __init__(self, apps: Iterable[str]) -> None:
        self._roots = [root for app in apps for root in _roots(app.partition(".")[0])]
        self._seen = self._look()

    def changed(self) -> list[Path]:
        """Since it was asked last."""
        before, self._seen = self._seen, self._look()
        return [path for path in {**before, **self._seen} if before.get(path) != self._seen.get(path)]

    def _look(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in islice((path for root in self._roots for path in _files(root)), FILES_MAX):
            try:
                facts = path.stat()
            except OSError:
                continue            # it has just gone
            found[path] = (facts.st_mtime_ns, facts.st_size)
        return found


def _roots(name: str) -> list[Path]:
    """Where a module or package lies that a node would import here; nothing of it is run."""
    spec = PathFinder.find_spec(name, [str(Path.cwd()), *sys.path])
    if spec is None:
        return [Path.cwd()]
    if spec.submodule_search_locations:
        return [Path(folder) for folder in spec.submodule_search_locations]
    return [Path(spec.origin).parent] if spec.origin else []


def _files(root: Path) -> Iterator[Path]:
    is_package = (root / "__init__.py").exists()
    return root.rglob("*.py") if is_package else root.glob("*.py")


class Dev:
    """One node after the other, until a person ends it. `watched` None: it is not started again."""

    def __init__(self, config: NodeConfig, watched: Watched | None) -> None:
        self._config = config
        self._watched = watched
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        """Returns the last node's exit status. Signals are passed on: one to stop, a second to hurry, a third to
        kill."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop())
        while True:
            self._process = subprocess.Popen(
                tied(guard_command(self._config), signal.SIGKILL), env=guard_environment(self._config),
                start_new_session=True,     # Ctrl-C reaches us alone, and the guard once
            )  # fmt: skip
            status = self._until_ended(self._process)
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
        if self._process is not None:
            self._process.terminate()

    def _until_ended(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit status; None if it was ended here, because a file has changed."""
        while True:
            try:
                return process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                pass
            changed = self._watched.changed() if self._watched is not None and not self._stopping else []
            if changed:
                complain(f"rota: {', '.join(path.name for path in changed[:3])} changed: the node starts again")
                self._end(process)
                return process.returncode if self._stopping else None

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(HURRY_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
