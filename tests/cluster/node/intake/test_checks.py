"""What could never run is refused, with its reason, before anything is stored."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from rota.client.errors import InvalidJob, RotaError, UnknownTask
from rota.client.model import Enqueue, Terms, Upstream
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.node.intake.checks import Checks
from rota.cluster.node.intake.repeats import Repeats
from rota.cluster.state.directory import Directory
from rota.cluster.state.records import TaskRecord, encode

from ..bench import BUNDLE, KEYS, OTHER, Bench, body, play

GOOD = Enqueue(BUNDLE, "m:f", "q", 2, "async", body())


async def checks(bench: Bench) -> Checks:
    await bench.ledger.commit(Txn((), (Put(KEYS.task("m:f"), encode(TaskRecord("async"))),)))
    return Checks(bench.context, Directory(bench.ledger, KEYS), Repeats(bench.ledger, KEYS))


def test_what_is_sound_comes_with_its_jobs() -> None:
    async def deed(bench: Bench) -> None:
        text, header, jobs = await (await checks(bench)).check(GOOD)
        assert (text, header.bundle, jobs) == (body(), BUNDLE, [(0, b"x"), (1, b"x")])

    play(deed)


@pytest.mark.parametrize(("changes", "words"), [
    ({"bundle": "no id"}, "valid bundle id"), ({"queue": "a/b"}, "valid queue name"), ({"priority": 10**6}, "priority"),
    ({"delay_s": -1.0}, "delay"), ({"key": "\n"}, "key"), ({"task": "m:\n"}, "valid task name"),
    ({"function": "xyz"}, "digest"), ({"python": "three"}, "Python"), ({"count": 3}, "one thing in its frame"),
    ({"task": "m:g"}, "one thing in its frame"), ({"terms": Terms(unique="k")}, "one job"),
    ({"terms": Terms(fair_key="\n")}, "fair_key"), ({"terms": Terms(requires=("a b",))}, "label"),
    ({"terms": Terms(after=(Upstream(BUNDLE, jobs="1"),))}, "could wait for"),
    ({"terms": Terms(after=(Upstream(OTHER, jobs="0"),))}, "cannot be read"),
    ({"terms": Terms(after=(Upstream(OTHER, jobs="1"),))}, "is unknown"),
])
def test_what_is_not_says_why(changes: dict[str, object], words: str) -> None:
    async def deed(bench: Bench) -> None:
        with pytest.raises(InvalidJob, match=words):
            await (await checks(bench)).check(replace(GOOD, **changes))

    play(deed)


def test_a_task_that_nobody_knows_is_named_with_what_to_do() -> None:
    async def deed(bench: Bench) -> None:
        unknown = replace(GOOD, task="n:g", body=body(task="n:g"))
        with pytest.raises(UnknownTask, match="rota node --app n"):
            await (await checks(bench)).check(unknown)
        with pytest.raises(RotaError):
            await (await checks(bench)).check(replace(GOOD, body=b"nonsense"))

    play(deed)
