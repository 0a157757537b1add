"""What a new master reads before it decides anything, and now and then again."""

from __future__ import annotations

import asyncio

from ..clock import Clock
from ..ledger.ledger import Event, Ledger, Page, Record, prefix_end
from ..ledger.scan import pages
from ..state.keys import Keys
from .dispatch.picture import Picture
from .election.authority import OutOfStep

COMPARE_S = 30.0
PAGE_FIRST = 1_000


async def take_snapshot(ledger: Ledger, keys: Keys, clock: Clock, picture: Picture) -> int:
    """Read what must be known before the first decision, at one revision, which is returned."""
    now, revision = clock.monotonic(), 0
    for prefix in (keys.nodes, keys.tasks, keys.queues, keys.claims, keys.rates):
        async for page in pages(ledger, prefix, revision=revision):
            revision = page.revision
            picture.apply([Event(False, record) for record in page.records], revision, now)
    await first_pages(ledger, keys, picture, revision)
    picture.open()
    return revision


async def first_pages(ledger: Ledger, keys: Keys, picture: Picture, revision: int) -> None:
    """The head of every (queue, priority) that holds a job. What one read shows is used for all of them that it
    shows: etcd walks over everything behind it, however little is asked for."""
    key, end, more = keys.jobs, prefix_end(keys.jobs), True
    while more:
        page = await ledger.read(key, end, limit=PAGE_FIRST, revision=revision)
        lanes: dict[tuple[str, int], list[Record]] = {}
        for record in page.records:
            key, parsed = record.key + b"\0", keys.parse_job(record.key)
            if parsed is not None:          # else it is not ours: left alone
                lanes.setdefault((parsed.queue, parsed.priority), []).append(record)
                key = prefix_end(keys.lane(parsed.queue, parsed.priority))
        more = page.more
        last = next(reversed(lanes), None)
        for lane, records in lanes.items():
            picture.expect_page(*lane)
            picture.page(*lane, records, more=more and lane == last)


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
