"""Telling the cluster what a node's code declares."""

from __future__ import annotations

import asyncio
from typing import Any

from rota.client.model import QueueInfo, TaskInfo
from rota.cluster.node.membership.registration import LOOK_S, Code, Registration, code_of
from rota.cluster.state.records import TaskRecord, decode

from ..bench import KEYS, Bench, FakeRunners, play


class Operations:
    def __init__(self) -> None:
        self.queues: dict[str, dict[str, object]] = {}

    async def set_queue(self, name: str, settings: dict[str, object]) -> None:
        self.queues[name] = settings


def registration(bench: Bench) -> tuple[Registration, Operations]:
    operations: Any = Operations()
    schedules: Any = None
    return Registration(bench.context, operations, schedules), operations


def test_a_task_that_requires_what_is_not_here_is_not_run_here() -> None:
    runners = FakeRunners()
    runners.tasks["m:gpu"] = TaskInfo("m:gpu", "sync", requires=("gpu",))
    assert code_of(runners, ()) == {"tasks": {"m:f": "async"}, "schedules": []}
    assert code_of(runners, ("gpu",))["tasks"] == {"m:f": "async", "m:gpu": "sync"}


def test_what_the_code_says_is_stored_where_it_differs() -> None:
    async def deed(bench: Bench) -> None:
        registers, operations = registration(bench)
        await registers.register([TaskInfo("m:f", "async")], [QueueInfo("q", serial=True), QueueInfo("plain")])
        first = await bench.record(KEYS.task("m:f"))
        assert decode(TaskRecord, first.value) == TaskRecord("async")
        assert list(operations.queues) == ["q"]
        await registers.register([TaskInfo("m:f", "async")], [])
        assert await bench.record(KEYS.task("m:f")) == first               # the same again writes nothing
        await registers.register([TaskInfo("m:f", "async", max_concurrency=3)], [])
        changed = decode(TaskRecord, (await bench.record(KEYS.task("m:f"))).value)
        assert changed is not None and changed.max_concurrency == 3

    play(deed)


def test_code_that_changes_is_told_again_the_members_record_first() -> None:
    async def deed(bench: Bench) -> None:
        registers, _ = registration(bench)
        shown, registered = list[Code](), asyncio.Event()

        async def show(code: Code) -> None:
            shown.append(code)
            assert f"m:{len(shown)}" not in await bench.names(KEYS.tasks)

        follows = asyncio.create_task(registers.follow(bench.runners, (), show, registered))
        await registered.wait()
        await asyncio.sleep(3 * LOOK_S)
        assert len(shown) == 1
        bench.runners.tasks["m:2"] = TaskInfo("m:2", "sync")
        await asyncio.sleep(2 * LOOK_S)
        assert shown[1]["tasks"] == {"m:2": "sync", "m:f": "async"} and "m:2" in await bench.names(KEYS.tasks)
        follows.cancel()

    play(deed)
