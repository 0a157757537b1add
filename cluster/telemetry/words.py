"""What happened, and how long it took, in words for people: the same in pages and on terminals. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS: dict[str, str] = {
    "node_joined": "{node} has joined",
    "identity_ended": "{node}: {why}",
    "lease_expired": "{node}: its lease has run out, its runners are killed",
    "lease_survived": "{node}: its lease has survived",
    "store_back": "etcd serves it again, after {away_s:.0f} s",
    "node_leaving": "{node} is leaving",
    "node_left": "{node} has left",
    "node_gone": "{node} is gone",
    "became_master": "{node} is master",
    "mastership_ended": "{node} is master no more: {why}",
    "snapshot_retaken": "the master looks at everything afresh: {why}",
    "took_over": "took over what {node} held ({claims}) in {duration_s:.3g} s",
    "failed_dropped": "{jobs} old failed jobs were dropped",
    "stray_found": "{count} records are not rota's, {key} among them",
    "overwrite_mended": "somebody wrote over {key}: it is put right",
    "stranger_deposed": "{key} stood for election and is no member",
    "schedule_refused": "schedule {schedule} cannot be fired: {why}",
    "bulk_started": "{verb} begins: {what}, {jobs} jobs",
    "bulk_ended": "{verb} is over: {jobs} jobs {note}",
    "key_missing": "a signing key is not here: {key_id}",
}


def event_words(event: str, fields: Mapping[str, Any]) -> str:
    """An event as a sentence; its name and fields where none is known, or they do not fit."""
    try:
        return WORDS[event].format_map(fields)
    except (LookupError, ValueError, TypeError, AttributeError):
        return f"{event} " + ", ".join(f"{name}={value!s:.80}" for name, value in fields.items())


def seconds(value: float | None) -> str:
    """A duration for people: two digits that matter."""
    if value is None:
        return "–"
    if value < 0.00095:
        return "<1 ms"
    if value < 0.995:
        return f"{float(f'{value * 1000:.2g}'):g} ms"
    if value < 119.5:
        return f"{float(f'{value:.3g}'):g} s"
    if value < 7_200:
        return f"{value / 60:.0f} min"
    if value < 172_800:
        return f"{value / 3_600:.0f} h"
    return f"{value / 86_400:.0f} d"
