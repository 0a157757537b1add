"""What `import rota` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rota
from rota.client import errors

LATE = {
    "AsyncClient", "Client", "connect", "current_job", "on_error", "on_runner_start", "on_runner_stop", "touch",
}


def test_the_public_names_are_sorted_and_there() -> None:
    assert rota.__all__ == sorted(rota.__all__)
    for name in rota.__all__:
        assert getattr(rota, name) is not None
    with pytest.raises(AttributeError, match="module 'rota' has no attribute 'nothing'"):
        _ = rota.nothing


def test_everything_a_user_can_meet_is_public() -> None:
    """All errors that reach a client; no others."""
    reaching = {
        name for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.RotaError) and not issubclass(kind, errors.LedgerError)
    }
    assert reaching <= set(rota.__all__)
    assert {name for name in dir(rota) if not name.startswith("_")} >= set(rota.__all__) - LATE


def test_a_producer_that_declares_tasks_loads_little() -> None:
    """A task's module is imported by web servers and scripts: no event loop, no HTTP client, no gRPC, no node."""
    code = (
        "import sys, rota\n"
        "@rota.task\n"
        "def f(): ...\n"
        "heavy = {'asyncio', 'aiohttp', 'grpc', 'uvloop', 'cloudpickle', 'typer', 'rota.worker', 'rota.cluster'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "rota.Client, rota.connect\n"
        "print(sorted({'grpc', 'rota.worker', 'rota.cluster'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr
