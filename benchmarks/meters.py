"""Reading the meters: CPU time of processes, etcd's own counters, the machine's load."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from .stage import Stage

TICKS = os.sysconf("SC_CLK_TCK")

COUNTERS = {
    "puts": ("etcd_mvcc_put_total", "etcd_debugging_mvcc_put_total"),
    "deletes": ("etcd_mvcc_delete_total", "etcd_debugging_mvcc_delete_total"),
    "ranges": ("etcd_mvcc_range_total", "etcd_debugging_mvcc_range_total"),
    "proposals": ("etcd_server_proposals_committed_total",),
    "fsyncs": ("etcd_disk_wal_fsync_duration_seconds_count",),
    "fsync_s": ("etcd_disk_wal_fsync_duration_seconds_sum",),
    "txns": ('grpc_server_handled_total{grpc_code="OK",grpc_method="Txn"',),
    "collections": ("go_gc_duration_seconds_count",),
    "compactions": ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count",),
}
"""Names in etcd's /metrics; the older spelling second. The last two: how often it looked for garbage, in its memory
and in its history."""


def cpu_s(pid: int) -> float:
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int, *, peak: bool = False) -> float:
    """Resident memory now, or at its highest so far."""
    name = "VmHWM" if peak else "VmRSS"
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def lease_left_s(endpoint: str, lease: int) -> int:
    """What is left of a lease, in whole seconds; -1 if it is gone."""
    return int(_gateway(endpoint, "lease/timetolive", {"ID": str(lease)}).get("TTL", 0))


def keys_in(endpoint: str, start: bytes, end: bytes) -> int:
    """How many keys lie in a range. etcd walks over all of them."""
    key, range_end = (base64.b64encode(name).decode() for name in (start, end))
    return int(_gateway(endpoint, "kv/range", {"key": key, "range_end": range_end, "count_only": True}).get("count", 0))


def _gateway(endpoint: str, path: str, question: dict[str, object]) -> dict[str, str]:
    """Ask etcd what the ledger has no question for."""
    request = urllib.request.Request(f"{endpoint}/v3/{path}", json.dumps(question).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, str] = json.load(answer)
    return found


def processes(stage: Stage, members: Mapping[str, object]) -> dict[str, list[int]]:
    """Pids by what they are."""
    return {
        "node": [stage.node_pid(node) for node in members],
        "runner": [pid for node in members for pid in stage.runner_pids(node)],
        "guard": [stage.guard_pid(node) for node in members],
        "etcd": [stage.etcd.pid],
    }


def cpu_by_role(pids: Mapping[str, list[int]]) -> dict[str, float]:
    return {role: sum(map(cpu_s, members)) for role, members in pids.items()}


def etcd_counters(endpoint: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{endpoint}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {name: _sum(text, spellings) for name, spellings in COUNTERS.items()}


def _sum(text: str, spellings: tuple[str, ...]) -> float:
    for spelling in spellings:
        found = re.findall(rf"^{re.escape(spelling)}\S* (\S+)$", text, re.MULTILINE)
        if found:
            return sum(map(float, found))
    return 0.0


def difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def machine() -> dict[str, object]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"cpus": os.cpu_count(), "cpu": model[1] if model else "", "load": [round(x, 2) for x in os.getloadavg()]}
