"""Bulk operations, as people meet them: begun by any node, carried out by the master
(`rota.cluster.master.duties.bulk`), and looked at through any node.
"""

from __future__ import annotations

import asyncio
import random

from rota.client.errors import InvalidJob, OperationUnknown, Overloaded, Unreachable
from rota.client.ids import ALPHABET
from rota.client.wire.views import FailedFilter, OperationView, Verb

from ..clock import Clock
from ..ledger.commits import Commits, created
from ..ledger.ledger import Condition, Get, Ledger, Put, Txn
from ..ledger.scan import scan
from ..state.keys import Keys
from ..state.records import OperationRecord, encode, operation_in

UNENDED_MAX = 100
"""Operations that have not ended; more are refused."""

NAMED_MAX = 10_000
"""Jobs that one operation can name by their ids: its record has to fit into one write."""

LISTED_MAX = 1_000
NAME_CHARS = 12
LOOK_S_MIN, LOOK_S_MAX = 0.01, 0.5


async def begin(
    ledger: Ledger, commits: Commits, keys: Keys, clock: Clock, rng: random.Random, member: Condition, verb: Verb,
    which: FailedFilter, expected: int | None = None,
) -> str:
    """Write the order down; returns the operation's id. It goes on from here whatever becomes of us."""
    if len(which.ids) > NAMED_MAX:
        raise InvalidJob(f"{len(which.ids):,} ids are too many: at most {NAMED_MAX:,} in one operation")
    unended = [record async for record in scan(ledger, keys.operations, limit=UNENDED_MAX, keys_only=True)]
    if len(unended) >= UNENDED_MAX:
        raise Overloaded(f"{UNENDED_MAX} bulk operations have not ended: wait for them (`rota operations`)", 5.0)
    name = "".join(rng.choice(ALPHABET) for _ in range(NAME_CHARS))
    key, record = keys.operation(name), OperationRecord(verb, which, round(clock.wall(), 3), expected)
    verdict = await commits.write((member, created(key, 0)), (Put(key, encode(record)),))
    if not (verdict.applied or verdict.repeated):
        raise Unreachable("this node has just ceased to be a member: nothing was begun; ask again")
    return name


async def look(ledger: Ledger, keys: Keys, name: str) -> OperationView:
    """Raises `OperationUnknown`."""
    gets = Get(keys.operation(name)), Get(keys.operation_ended(name))
    for records in (await ledger.commit(Txn((), gets))).answers:
        if records:
            return _view(name, operation_in(records[0].value))
    raise OperationUnknown(f"there is no operation {name:.40}: it never was, or it ended more than an hour ago")


async def until_over(ledger: Ledger, keys: Keys, name: str, wait_s: float) -> OperationView:
    """As it is when it has ended, or after so many seconds."""
    loop = asyncio.get_running_loop()
    limit, pause_s = loop.time() + wait_s, LOOK_S_MIN
    while True:
        view = await look(ledger, keys, name)
        left_s = limit - loop.time()
        if view.is_over or left_s <= 0:
            return view
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LOOK_S_MAX)


async def listed(ledger: Ledger, keys: Keys) -> list[OperationView]:
    """Those that have not ended, and those that did within the hour; the newest first."""
    views = []
    for prefix in (keys.operations, keys.operations_ended):
        async for record in scan(ledger, prefix, limit=LISTED_MAX):
            name, operation = record.key[len(prefix):].decode(errors="replace"), operation_in(record.value)
            if operation is not None:
                views.append(_view(name, operation))
    return sorted(views, key=lambda view: -view.started_at)


def _view(name: str, record: OperationRecord | None) -> OperationView:
    if record is None:
        raise OperationUnknown(f"the record of operation {name:.40} cannot be read")
    return OperationView(
        name, record.verb, record.which.words, record.state, record.done, record.total, record.left, record.why,
        record.node, record.at, record.ended_at,
    )
