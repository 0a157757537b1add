"""An environment for each rival below `.peers/`, made when it is first needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .roster import Rival

ROOT = Path(__file__).parents[2] / ".peers"
INSIDE = Path(__file__).with_name("inside")


class Missing(Exception):
    """Something that a rival needs is not on this machine; says what to do."""


def python_of(rival: Rival) -> Path:
    return ROOT / rival.module / "bin" / "python"


def folder_of(rival: Rival) -> Path:
    """Where its commands are run: with its tasks, and for BullMQ beside its modules."""
    return ROOT / "node" if rival.is_node else INSIDE


def prepare(rival: Rival) -> None:
    """Raises `Missing`. Installs nothing twice."""
    if rival.is_node:
        _prepare_node(rival)
        return
    done = ROOT / rival.module / ".installed"
    if done.exists() and done.read_text() == repr(rival.packages):
        return
    shutil.rmtree(ROOT / rival.module, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(ROOT / rival.module))
    _run(str(python_of(rival)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *rival.packages)
    done.write_text(repr(rival.packages))


def _prepare_node(rival: Rival) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Missing("BullMQ needs node and npm (Debian: apt install nodejs npm)")
    folder = folder_of(rival)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(INSIDE / rival.module, folder)
    if not (folder / "node_modules" / "bullmq").exists():
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *rival.packages)


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if ended.returncode:
        raise Missing(f"{' '.join(command[:4])} … failed: {ended.stderr.strip()[-300:]}")
