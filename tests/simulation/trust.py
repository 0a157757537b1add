"""Whom nodes believe: nodes with different keys, some of them of the release before, which said nothing of keys; and a
writer of the store who has no key.

    K1  a node is given only what it can verify
    K2  a job is set aside only if somebody has laid hand on its records
    K3  what is set aside keeps its arguments, and who waits for it is told
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from rota.client.model import Results
from rota.client.wire.codec import decode_header
from rota.client.wire.keyring import UNSIGNED, Keyring
from rota.cluster.ledger.ledger import Put, Record, Txn
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys, whole
from rota.cluster.state.records import Claim, FailedRecord, Failure, Member, decode

if TYPE_CHECKING:
    from .world import World

HAND = "hand"
"""Who writes to the store by hand. (As the history calls him.)"""

BY_HAND = ("unreadable", "body missing", "body unreadable", "bad signature", "another's body", "code missing")
"""Reasons for which a job is set aside that nothing but a hand can make."""


class KeyringBefore(Keyring):
    """Of a node of the release before: its record and its tokens say nothing of keys."""

    @property
    def marks(self) -> Any:
        return None

    def mark(self, key_id: str) -> Any:
        return None


OLD, NEW, OTHER = ({"old": b"o" * 32}, {"new": b"n" * 32}, {"old": b"x" * 32})     # the last: the same id, another key
BOTH = Keyring(OLD | NEW)
KEYRINGS = (
    (BOTH, Keyring(OLD), Keyring(NEW | OLD), Keyring(OTHER)),
    (BOTH, Keyring(OLD), Keyring(NEW | OLD), KeyringBefore(OLD), KeyringBefore(OLD | NEW)),
)
"""Of a run. (Where nothing is said of keys, two of one id cannot be told apart.)"""

SIGNERS = (Keyring(OLD), Keyring(NEW))
"""Of clients."""


def keyring_for(seed: int, number: int, others: Iterable[Keyring]) -> Keyring:
    """For a new process. Somebody has to be there who can run everything."""
    if not any({*BOTH.ids} <= {*other.ids} and not isinstance(other, KeyringBefore) for other in others):
        return BOTH
    return random.Random(f"{seed} keys {number}").choice(KEYRINGS[seed % 2])


def signer_for(rng: random.Random, plan_has_keys: bool) -> Keyring:
    return rng.choice(SIGNERS) if plan_has_keys else UNSIGNED


def exchange_bodies(world: World, rng: random.Random) -> str:
    """By hand: the bodies of two bundles change places. Returns what was done, "" if there are no two."""
    keys, bodies = world.keys, list(world.records(world.keys.bodies))
    rng.shuffle(bodies)
    alike: dict[tuple[int, ...], Record] = {}
    for record in bodies:
        header, _ = decode_header(record.value)
        other = alike.setdefault(tuple(header.indexes), record)
        if header.bundle == decode_header(other.value)[0].bundle:
            continue
        world.store.commit(Txn((), (Put(record.key, other.value), Put(other.key, record.value))), HAND)
        names = [key[len(keys.bodies):].decode() for key in (record.key, other.key)]
        world.tampered.update(map(whole, names))
        return " and ".join(names)
    return ""


class Trust:
    """Judges one revision after the other."""

    def __init__(self, keys: Keys, tampered: set[str], say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._tampered = tampered
        self._say = say

    def see(self, entry: Entry, members: dict[str, Member], own: set[tuple[str, str]]) -> None:
        """`members`: before this revision. `own`: (bundle, node) of claims that an enqueue brought along."""
        keys = self._keys
        puts = {
            change.event.record.key: change.event.record.value for change in entry.changes if not change.event.deleted
        }
        for change in entry.changes:
            record = change.event.record
            if change.previous is None and record.key.startswith(keys.failed) and (     # else: by hand
                failed := decode(FailedRecord, record.value)
            ) is not None:
                self._check_failed(record.key, failed, puts)
            if change.previous is None and record.key.startswith(keys.claims):
                self._check_claim(record, members, own)

    def _check_claim(self, record: Record, members: dict[str, Member], own: set[tuple[str, str]]) -> None:
        claim, parsed = decode(Claim, record.value), self._keys.parse_claim(record.key)
        if claim is None or parsed is None or (parsed[1], parsed[0]) in own:
            return
        member = members.get(parsed[0])
        if member is None or claim.signed is None:
            return
        fits = [mark for mark in member.keys or () if claim.signed in (mark, mark.partition("#")[0])]
        if not (fits if claim.signed else not member.keys):
            self._say("K1", f"{record.key.decode()}, signed {claim.signed!r}, is for a node with {member.keys}")

    def _check_failed(self, key: bytes, failed: FailedRecord, puts: dict[bytes, bytes]) -> None:
        name = key.rpartition(b"/")[2].decode()
        bundle, _, index = name.rpartition("-")
        if failed.reason in BY_HAND and bundle not in self._tampered:
            self._say("K2", f"{name} is set aside ({failed.reason}), and nobody has touched it")
        if failed.reason in ("error", "skipped"):
            return
        failure = puts.get(self._keys.failures + name.encode())
        if failure is None or not msgspec.msgpack.decode(failure, type=Failure).body:
            self._say("K3", f"{name} is set aside ({failed.reason}) without its arguments")
        if failed.reason == "volatile":
            return          # of level `none`: its node tells who waits there
        told = [
            entry.index for key, value in puts.items() if key.startswith(self._keys.bundle_results(bundle))
            for entry in msgspec.msgpack.decode(value, type=Results).entries
        ]
        if int(index) not in told:
            self._say("K3", f"{name} is set aside ({failed.reason}), and nobody is told")
