"""A job without persistence that failed for good is kept in the failed set."""

from __future__ import annotations

import asyncio

from rota.client.model import Outcome
from rota.cluster.node.membership.standing import Standing
from rota.cluster.node.outcomes.keeping import KeptFailures
from rota.cluster.state.directory import Directory
from rota.cluster.state.records import FailedRecord, decode
from rota.worker.channel.frames import Work

from ..bench import BUNDLE, KEYS, Bench, a_moment, body, play

WORK = Work(1, BUNDLE, "m:f", "q", "async", 1, 1, 0.0, "pickle", [(1, b"x")])
FAILED = Outcome(1, "failed", error="ValueError: no\nmore", traceback="Traceback")


def test_it_lies_there_like_any_other() -> None:
    async def deed(bench: Bench) -> None:
        standing = Standing()
        async with asyncio.TaskGroup() as group:
            standing.context, standing.tasks = bench.context, group
            KeptFailures(standing, Directory(bench.ledger, KEYS)).keep(WORK, body(), 3, FAILED)
        record = decode(FailedRecord, (await bench.record(KEYS.failed_job("q", BUNDLE, 1))).value)
        assert record is not None and (record.task, record.attempts, record.reason) == ("m:f", 3, "volatile")
        assert record.error.startswith("ValueError: no")
        assert await bench.names(KEYS.failures)         # its arguments, for who tries it again

    play(deed)


def test_without_an_identity_nothing_is_written() -> None:
    async def deed(bench: Bench) -> None:
        KeptFailures(Standing(), Directory(bench.ledger, KEYS)).keep(WORK, body(), 3, FAILED)
        await a_moment()
        assert await bench.names(KEYS.failed) == []

    play(deed)
