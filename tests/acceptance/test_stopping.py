"""How a node ends: by whatever signal, sent to whomever, jobs that run have their grace."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from .apps import work
from .rig import DEADLINE_S, Rig, children, read_journal, until


@pytest.mark.parametrize("first", ["the guard", "its children"])
async def test_a_stop_signal_to_every_process_is_one_to_the_guard(
    etcd: Any, cluster_name: str, tmp_path: Path, first: str
) -> None:
    """As systemd sends it to a control group, and Heroku to a dyno: no attempt is used up, and nothing is lost."""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=1, sync=2, capacity=4, grace_s=DEADLINE_S) as rig:
        for task in (work.nap, work.anap):
            await rig.client.enqueue_many(task.using(max_attempts=1), [(str(journal), 1.5)] * 2)
        await until(lambda: len(read_journal(journal)) == 4, "all four run")
        (guard,) = rig.guards.values()
        pids = [guard.pid, *(pid for pid, _ in children(guard.pid))]
        for pid in pids if first == "the guard" else reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        await until(lambda: guard.poll() is not None, "the guard has ended")
        assert guard.returncode == 0, rig.log("node0")[-2000:]
        lines = read_journal(journal)
        assert sorted(line.what for line in lines) == ["end"] * 4 + ["start"] * 4
        assert {line.attempt for line in lines} == {1}
        await rig.drained()
        assert not await rig.read(rig.keys.failed)
