"""The bodies that a node keeps because it may run them itself: how many, and what they really take."""

from __future__ import annotations

import tracemalloc

import pytest

from rota.client.api import bulk
from rota.client.ids import Names
from rota.client.tasks.task import make_task
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.node.bodies import cache as body_cache
from rota.cluster.node.bodies.cache import BodyCache, VerifiedBody

BYTES_MAX = 2 * 1024 * 1024


def wish(number: int) -> None: ...


def bodies(number: int) -> list[bytes]:
    """Of bundles of one."""
    task = make_task(wish, name="tests:wish")
    seal, names = Seal(UNSIGNED, "c"), Names()
    return [
        bundle.body for job in range(number) for frame in bulk.frames(task, task.route, [(job,)], seal, names)
        for bundle in frame
    ]


def verified(body: bytes) -> VerifiedBody:
    header, payloads = UNSIGNED.verify(body, "c")
    return body, header, list(zip(header.indexes, payloads, strict=True))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_cache, "CACHE_BYTES_MAX", BYTES_MAX)


def test_small_bodies_take_no_more_memory_than_large_ones() -> None:
    cache = BodyCache()
    made = bodies(4_000)
    tracemalloc.start()
    try:
        for body in made:
            entry = verified(bytes(bytearray(body)))        # as from the network: a copy of its own
            cache.put(entry[1].bundle, entry)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 * BYTES_MAX < taken < 1.2 * BYTES_MAX


def test_a_repeat_counts_once() -> None:
    cache = BodyCache()
    (body,) = bodies(1)
    entry = verified(body)
    for _ in range(BYTES_MAX // len(body)):
        cache.put(entry[1].bundle, entry)
    assert cache.take(entry[1].bundle) is entry
    assert cache.take(entry[1].bundle) is None
