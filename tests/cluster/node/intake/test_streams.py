"""What comes in a stream that nobody waits for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.model import Enqueue, Terms
from rota.cluster.node.intake.streams import GAP_S, LARGE, Streams
from rota.cluster.state.directory import Directory
from rota.cluster.state.records import QueueRecord, TaskRecord

from ..bench import BUNDLE, KEYS

ONE = Enqueue(BUNDLE, "m:f", "q", 1, "async", b"")


class Stage:
    def __init__(self) -> None:
        self.now, self.waits = 100.0, False
        self.directory = Directory(None, KEYS)      # type: ignore[arg-type]
        self.streams = Streams(self.directory, self, self.awaited)      # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def awaited(self, session: str) -> bool:
        assert session == BUNDLE.partition("-")[0]
        return self.waits

    def next(self, bundle: Enqueue = ONE, after_s: float = 0.001) -> bool:
        self.now += after_s
        return self.streams.is_calm(bundle)


def test_the_first_does_not_and_the_next_do() -> None:
    stage = Stage()
    assert [stage.next(), stage.next(), stage.next(after_s=GAP_S / 2)] == [False, True, True]
    assert not stage.next(after_s=GAP_S + 0.001) and stage.next()


def test_who_waits_for_results_is_not_kept_waiting() -> None:
    stage = Stage()
    stage.next()
    stage.waits = True
    assert not stage.next()
    stage.waits = False
    assert stage.next()


@pytest.mark.parametrize("said", [{"terms": Terms(unique="k")}, {"delay_s": 1.0}, {"count": LARGE}])
def test_what_is_of_others_concern_due_later_or_large(said: dict[str, Any]) -> None:
    stage = Stage()
    stage.next()
    assert not stage.next(replace(ONE, **said))


@pytest.mark.parametrize("limit", ["task", "queue", "key", "serial"])
def test_what_is_limited(limit: str) -> None:
    stage = Stage()
    if limit in ("task", "key"):
        stage.directory.tasks["m:f"] = (
            TaskRecord("async", max_concurrency=5) if limit == "task" else TaskRecord("async", max_per_key=5)
        )
    else:
        stage.directory.queues["q"] = (
            QueueRecord(max_concurrency=5) if limit == "queue" else QueueRecord(serial=True)
        )
    stage.next()
    assert not stage.next()
    assert stage.next(replace(ONE, task="m:g", queue="other"))
