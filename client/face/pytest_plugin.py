"""Fixtures for the tests of applications. pytest finds them by itself where rota is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rota.cluster.testing.inline import Inline
    from rota.cluster.testing.memory import MemoryCluster


@pytest.fixture
def rota_cluster() -> Iterator[MemoryCluster]:
    """A cluster in memory; `task.enqueue` goes there."""
    from rota.testing import MemoryCluster  # late: most tests need neither node nor HTTP

    with MemoryCluster() as cluster:
        yield cluster


@pytest.fixture
def rota_inline() -> Iterator[Inline]:
    """Every job runs where it is enqueued, at once."""
    from rota.testing import inline

    with inline() as jobs:
        yield jobs
