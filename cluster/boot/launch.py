"""How a node is started: the guard's command line, and its settings in the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from rota.worker.guard import guardlink

from .config import VARIABLE, NodeConfig


def guard_command(config: NodeConfig) -> list[str]:
    return guardlink.guard_command([sys.executable, "-m", "rota.cluster.boot.process"], restart=config.restart)


def guard_environment(config: NodeConfig, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    return dict(environ) | {VARIABLE: config.to_json()}
