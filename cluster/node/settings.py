"""What a node is told about itself."""

from __future__ import annotations

import msgspec


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    name: str                           # how its identities' names begin
    queues: tuple[str, ...] = ("*",)
    labels: tuple[str, ...] = ()        # what this machine has, and tasks may require
    functions: bool = True
    python: str
    version: str
    lease_ttl_s: int = 10
    grace_s: float = 30.0
    keep_result_s: float = 3600.0
    keep_finished_s: float = 0.0
    keep_failed_s: float = 0.0          # 0: until a person decides
    receipt_ttl_s: float = 120.0
    compact: bool = False
