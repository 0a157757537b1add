"""Fixtures: every test of the suite runs once per store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .backends import ETCDS, MEMORY, Backend, OpenLedger, start_backend


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Backend]]:
    """Starts each store when it is first asked for, and keeps it until the end."""
    started: dict[str, Backend] = {}
    with contextlib.ExitStack() as stack:

        def backend(name: str) -> Backend:
            if name not in started:
                folder = tmp_path_factory.mktemp(f"etcd-{Path(name).name}")
                started[name] = stack.enter_context(start_backend(name, folder))
            return started[name]

        yield backend


@pytest.fixture(params=[MEMORY, *ETCDS])
def backend(request: pytest.FixtureRequest, backends: Callable[[str], Backend]) -> Backend:
    return backends(request.param)


@pytest.fixture
def open_ledger(backend: Backend) -> OpenLedger:
    return backend.ledger


@pytest.fixture
def prefix() -> bytes:
    """Below it nothing was ever written."""
    return Backend.new_prefix()
