"""Records damaged by hand while nodes work: by bytes, or by well-formed JSON that is no such record.

    K4  what was damaged has ended, or lies in the failed set; nothing else is lost (all other rules hold of the rest)

What can still be read is another's affair (`fuzz.py`): a writer of the store may say that a job is done.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from rota.cluster.ledger.ledger import Delete, Put, Record, Txn
from rota.cluster.state.keys import Keys, whole
from rota.cluster.state.records import Member, claim_in, decode, encode, results_in, waiting_at

from .history import indexes_of
from .names import job_name
from .plans import CAPACITY, SERIAL, TASKS
from .trust import BOTH, HAND

if TYPE_CHECKING:
    from .world import History, World

PHANTOM = b"phantom-000000"
"""A member without a lease: nobody."""

FIELDS: tuple[tuple[str, Any], ...] = (
    ("queue", "elsewhere"), ("queue", "../.."), ("count", -1), ("count", 61), ("count", 0), ("done", "zz"),
    ("done", "f" * 40), ("priority", 10**6), ("order", "\u00b2"), ("order", 10**30), ("attempt", -1), ("mode", "x"),
    ("task", None), ("at", 1e300), ("past", 7), ("tasks", []), ("capacity", "much"), ("since", "now"),
)
"""Of a record, with what its field cannot be."""


def damage(world: World, rng: random.Random) -> str:
    """Returns what was done, "" if there is nothing of that kind."""
    keys = world.keys
    match rng.choice(("token", "token", "token", "body", "body", "claim", "member", "phantom", "failed", "cancel")):
        case "token":
            return _damage(world, rng, _of_bundles(world, keys.jobs, keys.scheduled), lambda record: waiting_at(
                keys, record))
        case "body":
            records = [record for record in _of_bundles(world, keys.bodies) if _says_which(record)]
            return _damage(world, rng, records, lambda record: None)
        case "claim":
            return _damage(world, rng, _of_bundles(world, keys.claims), lambda record: claim_in(record.value))
        case "failed":
            return _damage(world, rng, [*world.records(keys.failed)], lambda record: None)
        case "member":
            return _damage(world, rng, [*world.records(keys.nodes)], lambda record: decode(Member, record.value))
        case "cancel":
            return _write(world, keys.cancels + f"{rng.choice(sorted(world.orders) or ['x'])}-\u00b2".encode(), b"")
    return phantom(world)


def phantom(world: World) -> str:
    """Somebody writes a member key, without a lease."""
    tasks = {name: info.mode for name, info in TASKS.items()}
    signs = [*BOTH.marks] if world.plan.keys else []
    member = Member("http://x", ["*"], tasks, dict.fromkeys(CAPACITY, 100), "3.11", "0", 1.0, keys=signs)
    return _write(world, world.keys.nodes + PHANTOM, encode(member))


def exorcise(world: World) -> None:
    """Somebody has read `rota doctor`."""
    world.store.commit(Txn((), (Delete(world.keys.nodes + PHANTOM),)), HAND)


def forgotten(history: History, keys: Keys) -> list[str]:
    """K4. (A person may have had it cancelled.)"""
    ended = {run.job for run in history.runs if run.outcome in ("ok", "failed")}
    kept, emptied = (keys.failed, keys.cancels), set[str]()
    for entry in history.journal:
        if entry.txn is not None and any(one.key.startswith(keys.operations) for one in entry.txn.conditions):
            emptied.update(_bundle(change.event.record) for change in entry.changes if change.event.deleted)
        for record in (change.event.record for change in entry.changes if not change.event.deleted):
            if record.key.startswith(kept):
                ended.add("/".join(record.key.rpartition(b"/")[2].decode(errors="replace").rsplit("-", 1)))
            elif record.key.startswith(keys.results):
                results = results_in(record.value)
                ended.update(job_name(results.bundle, one.index) for one in results.entries)
    return [
        f"K4: the records of job {job} were damaged, and nothing is left of it"
        for bundle in sorted(history.damaged - emptied) if bundle in history.acknowledged
        for job in sorted(history.invoked[bundle]) if job not in ended
    ]


def _of_bundles(world: World, *prefixes: bytes) -> list[Record]:
    """But those of the serial queue, where one that is set aside changes the order of the others; and each bundle once:
    if token and body are gone, nothing says which jobs there were."""
    return [
        record for prefix in prefixes for record in world.records(prefix)
        if (order := world.orders.get(_bundle(record))) is not None and order.queue != SERIAL
        and _bundle(record) not in world.damaged
    ]


def _says_which(record: Record) -> bool:
    """Which jobs a piece of several holds only its body says: without it, the first of them stands for all."""
    return b"." not in record.key or len(indexes_of(record.value)) == 1


def _bundle(record: Record) -> str:
    return whole(record.key.rpartition(b"/")[2].decode())


def _damage(
    world: World, rng: random.Random, records: list[Record], read: Callable[[Record], object | None]
) -> str:
    if not records:
        return ""
    record = rng.choice(records)
    for _ in range(20):
        value = _nonsense(rng, record.value)
        if read(msgspec.structs.replace(record, value=value)) is None:
            break
    else:
        value = b"\xff"
    if not record.key.startswith((world.keys.nodes, world.keys.failed)):
        world.damaged.add(_bundle(record))
        world.tampered.add(_bundle(record))
    return _write(world, record.key, value, record.lease)


def _nonsense(rng: random.Random, value: bytes) -> bytes:
    match rng.randrange(4):
        case 0:
            return rng.randbytes(rng.randrange(60))
        case 1:
            return rng.choice((b"", b"{}", b"[]", b"null", b"7", b"9" * 5_000, b"[" * 5_000, "\u00b2".encode()))
        case 2:
            return value[: len(value) // 2]
    try:
        fields = msgspec.json.decode(value, type=dict[str, Any])
    except msgspec.DecodeError:
        return b"{}"
    name, wrong = rng.choice([(name, wrong) for name, wrong in FIELDS if name in fields] or [("v", -1)])
    return msgspec.json.encode(fields | {name: wrong})


def _write(world: World, key: bytes, value: bytes, lease: int = 0) -> str:
    world.store.commit(Txn((), (Put(key, value, lease),)), HAND)
    return f"{key!r} is {value[:60]!r} now"
