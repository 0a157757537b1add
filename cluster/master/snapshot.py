"""What a new master reads before it decides anything, and now and then again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ..clock import Clock
from ..ledger.ledger import Event, Ledger, Page, Record, prefix_end
from ..ledger.scan import pages
from ..state.keys import Keys
from ..state.records import claim_in
from .dispatch.picture import Picture
from .election.authority import OutOfStep
from .reading import read_lane

COMPARE_S = 30.0
PAGE_FIRST = 1_000

LONG_MAX = 8
"""Lanes of which the most is claimed: what waits there may be long, and is read in windows."""

Lane: TypeAlias = tuple[str, int]
"""A queue, and a priority."""


async def take_snapshot(ledger: Ledger, keys: Keys, clock: Clock, picture: Picture) -> int:
    """Read what must be known before the first decision, at one revision, which is returned."""
    now, revision, claims = clock.monotonic(), 0, list[Record]()
    for prefix in (keys.nodes, keys.tasks, keys.queues, keys.claims, keys.rates):
        async for page in pages(ledger, prefix, revision=revision):
            revision = page.revision
            picture.apply([Event(False, record) for record in page.records], revision, now)
            if prefix == keys.claims:
                claims += page.records
    await first_pages(ledger, keys, picture, revision, given_last(claims))
    picture.open()
    return revision


def given_last(claims: Iterable[Record]) -> dict[Lane, int]:
    """Where the lanes of which most is claimed have been given out to: hardly anything waits before that."""
    number, last = Counter[Lane](), dict[Lane, int]()
    for record in claims:
        claim = claim_in(record.value)
        if claim is not None:
            lane = claim.queue, claim.priority
            number[lane] += 1
            last[lane] = max(last.get(lane, 0), claim.order)
    return {lane: last[lane] for lane, _ in number.most_common(LONG_MAX)}


async def first_pages(
    ledger: Ledger, keys: Keys, picture: Picture, revision: int, given: Mapping[Lane, int]
) -> None:
    """The head of every (queue, priority) that holds a job. Lanes that may be long (of which something was `given`, up
    to that order) are read by themselves."""
    key = keys.jobs
    for lane in sorted(given, key=lambda lane: keys.lane(*lane)):
        start = keys.lane(*lane)
        await _between(ledger, keys, picture, key, start, revision)
        page = await read_lane(ledger, keys, *lane, limit=PAGE_FIRST, first_stop=given[lane], revision=revision)
        if page.records:
            picture.expect_page(*lane)
            picture.page(*lane, page.records, more=page.more)
        key = prefix_end(start)
    await _between(ledger, keys, picture, key, prefix_end(keys.jobs), revision)


async def _between(ledger: Ledger, keys: Keys, picture: Picture, key: bytes, end: bytes, revision: int) -> None:
    """The heads of the lanes in a range. What one read shows is used for all of them that it shows: etcd walks over
    everything behind it, however little is asked for."""
    more = key < end
    while more:
        page = await ledger.read(key, end, limit=PAGE_FIRST, revision=revision)
        lanes: dict[Lane, list[Record]] = {}
        for record in page.records:
            key, parsed = record.key + b"\0", keys.parse_job(record.key)
            if parsed is not None:          # else it is not ours: left alone
                lanes.setdefault((parsed.queue, parsed.priority), []).append(record)
                key = prefix_end(keys.lane(parsed.queue, parsed.priority))
        more = page.more and key < end
        last = next(reversed(lanes), None)
        for lane, records in lanes.items():
            picture.expect_page(*lane)
            picture.page(*lane, records, more=page.more and lane == last)


async def compare(ledger: Ledger, keys: Keys, picture: Picture) -> None:
    """Watches are edges, not truth: now and then look at who is a member, and at claims under nobody. Raises
    `OutOfStep`."""
    while True:
        await asyncio.sleep(COMPARE_S)
        members = await ledger.read(keys.nodes, prefix_end(keys.nodes), keys_only=True)
        await asyncio.sleep(2.0)        # by now the watch must have shown all that
        now = await ledger.read(keys.nodes, prefix_end(keys.nodes), keys_only=True)
        known = {keys.node(node) for node in picture.nodes}
        before, after = _members_in(keys, members), _members_in(keys, now)
        stable, gone = before & after, known - before - after
        if stable - known or gone:
            raise OutOfStep("the watch has missed that a node came or went")


def _members_in(keys: Keys, page: Page) -> set[bytes]:
    """What is a member to the aggregator as well."""
    return {record.key for record in page.records if record.lease and keys.parse_node(record.key) is not None}
