"""The law of slots knows what takes one: a claim that was written over still does, and one that is gone does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rota.cluster.ledger.ledger import Event, Record
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, Member, Token, claim_of, encode

from .conduct import Conduct
from .plans import CLUSTER, TASKS

KEYS = Keys(CLUSTER)
NODE = "n1-aaaaaa"
FIRST, NEXT = "k3f9q2m7xa5t-00000001", "k3f9q2m7xa5t-00000002"
CLAIM = KEYS.claim(NODE, FIRST)
LIMIT = TASKS["m:limited"].max_concurrency or 0


def token(task: str, count: int = 1) -> Token:
    return Token(task, "q1", 0, 7, count, TASKS[task].mode, 0)


class Stage:
    """One node; `FIRST` is claimed there, `NEXT` waits. Revisions are those of the claim's creation."""

    def __init__(self, task: str = "m:sync", *, slots: int = 1, count: int = 1) -> None:
        history: Any = None         # (judged step by step)
        self.conduct = Conduct(history)
        self.claim: Claim = claim_of(token(task, count), 8)
        mode = TASKS[task].mode
        member = Member("", ["*"], {task: mode}, {mode: slots}, "3.11", "0", 0.0, keys=[])
        self.put(KEYS.node(NODE), encode(member), 1)
        self.put(CLAIM, encode(self.claim), 5)
        self.put(KEYS.job("q1", 0, 9, NEXT), encode(token(task)), 6)

    def put(self, key: bytes, value: bytes, created: int = 5) -> None:
        self.conduct._take(Event(False, Record(key, value, created, created, 1)))

    def delete(self, key: bytes) -> None:
        self.conduct._take(Event(True, Record(key, b"", 0, 9, 0)))

    def waits_for_nothing(self) -> bool:
        conduct = self.conduct
        waits = bool(conduct.unserved(0.0, ["n1"]))
        assert waits or not conduct.starved(0.0, ["n1"])
        return waits


@pytest.fixture(params=[b"[]", b"", b"\xff"])
def nonsense(request: pytest.FixtureRequest) -> bytes:
    value: bytes = request.param
    return value


def test_a_claim_that_was_written_over_takes_its_slot(nonsense: bytes) -> None:
    """Its job runs on, and the master knows."""
    stage = Stage()
    assert not stage.waits_for_nothing()
    stage.put(CLAIM, nonsense)
    stage.put(CLAIM, nonsense)
    assert not stage.waits_for_nothing()


def test_a_claim_that_was_written_over_counts_towards_a_limit(nonsense: bytes) -> None:
    stage = Stage("m:limited", slots=LIMIT + 2, count=LIMIT)
    stage.put(CLAIM, nonsense)
    assert not stage.waits_for_nothing()


def test_with_it_the_slot_is_free(nonsense: bytes) -> None:
    stage = Stage()
    stage.put(CLAIM, nonsense)
    stage.delete(CLAIM)
    assert stage.waits_for_nothing()


def test_what_its_node_writes_anew_counts_as_it_says(nonsense: bytes) -> None:
    stage = Stage(count=2, slots=2)
    stage.put(CLAIM, nonsense)
    stage.put(CLAIM, encode(msgspec.structs.replace(stage.claim, done="1")))
    assert stage.waits_for_nothing()


def test_another_that_nobody_has_read_takes_nothing(nonsense: bytes) -> None:
    """Its node puts it away, and has the slot."""
    stage = Stage()
    stage.put(CLAIM, nonsense)
    stage.put(CLAIM, nonsense, created=8)
    assert stage.waits_for_nothing()
