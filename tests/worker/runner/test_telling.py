"""What jobs say, within a runner: its order, and what is kept of it."""

from __future__ import annotations

import logging
import socket
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rota.client.model import Outcome
from rota.client.wire.views import LogLine
from rota.worker.channel.frames import Done, ProgressUpdate, Work
from rota.worker.runner import telling
from rota.worker.runner.async_runner import AsyncRunner


def test_what_a_thread_of_a_job_says_overtakes_the_outcomes_that_wait_for_the_loop() -> None:
    """The job ends with another's outcome, whose frame was on its way before the thread's word was."""
    ends = socket.socketpair()
    sent: list[object] = []
    runner = AsyncRunner(ends[0], 0, cast(Any, None))
    runner._loop = cast(Any, SimpleNamespace(call_soon_threadsafe=lambda call: None))      # the loop comes to it later
    runner._channel = cast(Any, SimpleNamespace(send=sent.append))
    runner._clean = cast(Any, SimpleNamespace(restore=lambda idle: None))
    runner._carriers = cast(Any, {})
    runner._thread = threading.get_ident() + 1
    runner._progressed(ProgressUpdate(1, 0))
    runner._outbox.append((1, Outcome(0, "ok")))
    runner._flush()
    assert [type(frame) for frame in sent] == [ProgressUpdate, Done]
    runner._thread = threading.get_ident()
    runner._progressed(ProgressUpdate(2, 0))
    assert len(sent) == 3
    for end in ends:
        end.close()


def test_what_threads_say_after_the_end_of_their_jobs_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "EVERY_S", 0.0)
    told: list[ProgressUpdate] = []
    mine = telling.Telling()
    mine.send = told.append
    for key in range(3 * telling.SAYINGS_MAX):
        work = Work(key, "b", "m:f", "q", "async", 1, 0, 0.0, "pickle", [])
        mine.progress(work, 0, 1.0, None, "")
        mine.ended(work, 0)
        mine.progress(work, 0, 2.0, None, "")
    assert len(told) == 6 * telling.SAYINGS_MAX and len(mine._sayings) <= telling.SAYINGS_MAX


@pytest.mark.parametrize(("logger", "kept"), [
    ("rota.worker.runner", "m:f failed for good"), ("shop", "m:f failed for good Traceback: File x"),
])
def test_rotas_own_word_of_a_failure_leaves_the_traceback_with_the_error(
    logger: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[LogLine] = []
    mine: Any = SimpleNamespace(send=told.append, line=lambda work, index, keep, line: told.append(line))
    monkeypatch.setattr(telling, "telling", mine)
    job = Work(1, "b", "m:f", "q", "sync", 1, 0, 0.0, "pickle", []), 0
    token = telling.running.set(job)
    try:
        said = "%s failed for good\nTraceback:\n  File x"
        record = logging.LogRecord(logger, logging.ERROR, "x", 1, said, ("m:f",), None)
        telling.heard(record, lambda work: 10)
    finally:
        telling.running.reset(token)
    assert [line.text for line in told] == [kept]
