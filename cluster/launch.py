"""How a node is started: the guard's command line, and its settings in the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import rota.worker

from .config import VARIABLE, NodeConfig

GUARD = Path(rota.worker.__file__).parent / "guard.py"


def guard_command(config: NodeConfig) -> list[str]:
    """The guard is run as a script, by path: it uses the standard library only, and starts in a few milliseconds."""
    restart = [] if config.restart else ["--no-restart"]
    return [sys.executable, "-I", "-S", str(GUARD), *restart, "--", sys.executable, "-m", "rota.cluster.process"]


def guard_environment(config: NodeConfig, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    return dict(environ) | {VARIABLE: config.to_json()}
