"""For the tests of applications: a cluster in memory, time travel, jobs that run where they are enqueued.

The pytest fixtures `rota_cluster` and `rota_inline` are there wherever rota is installed.
"""

from __future__ import annotations

from rota.cluster.testing.inline import Inline, inline
from rota.cluster.testing.memory import MemoryCluster

__all__ = ["Inline", "MemoryCluster", "inline"]
