"""A task with a schedule, for the tests of `rota.testing`."""

from __future__ import annotations

import rota

events: list[str] = []


@rota.task(cron="0 3 * * *", tz="Europe/Berlin")
def nightly(kind: str = "all") -> None:
    events.append(f"nightly {kind}")
