"""How a node is started: the guard's command line, and its settings in the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from rota.client import json_log
from rota.client.wire import offload, sealing
from rota.worker.guard import guardlink

from .config import VARIABLE, NodeConfig

OTEL = "ROTA_OTEL"
"""Where runners look whether they are to trace."""


def guard_command(config: NodeConfig) -> list[str]:
    """The node's process does not look for modules where it was started: what lies beside an app is the runners'."""
    node = [sys.executable, "-P", "-m", "rota.cluster.process"]
    return guardlink.guard_command(node, restart=config.restart, runner_user=config.runner_user)


def guard_environment(config: NodeConfig, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    variables = {VARIABLE: config.to_json(), json_log.VARIABLE: config.log_format, OTEL: "1" if config.otel else ""}
    for variable, value in ((sealing.VARIABLE, config.encrypt_file), (offload.VARIABLE, config.offload_url)):
        variables |= {variable: value} if value else {}
    return dict(environ) | variables
