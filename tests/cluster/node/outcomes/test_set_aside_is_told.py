"""A job that is set aside is told, once, to who reports it to the application's error hooks."""

from __future__ import annotations

import asyncio

from rota.cluster.events.aside import teller
from rota.cluster.events.hub import Events
from rota.cluster.events.records import JobSetAside
from rota.cluster.ledger.commits import Commits, Write, created
from rota.cluster.ledger.ledger import Put
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.state.records import Token


async def test_when_it_is_in_the_store_and_once() -> None:
    events, heard = Events(), []
    events.listen(heard.append, (JobSetAside,))
    tell = teller(events)
    token = Token("m:f", "q", 0, 1, 2, "sync", 0, attempt=2)
    ledger = MemoryLedger()
    async with Commits(ledger) as commits:
        write = Write((created(b"/k", 0),), (Put(b"/k", b"v"),), lambda: tell("b", [0, 3], token, "lost"))
        first, second = await asyncio.gather(commits.submit(write), commits.submit(write))
        assert (first.applied, second.applied) == (True, False)
    await ledger.close()
    assert heard == [JobSetAside("b", index, "m:f", "q", 2, "lost") for index in (0, 3)]
