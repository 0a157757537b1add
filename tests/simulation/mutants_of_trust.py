"""Planted bugs about whom nodes believe: see `mutants.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from rota.client.errors import LedgerError
from rota.client.wire import codec, tags
from rota.cluster.ledger.commits import Write
from rota.cluster.ledger.ledger import Event, Get, Txn
from rota.cluster.master.dispatch.claims import Claims
from rota.cluster.master.duties import flows
from rota.cluster.node.bodies import loading as bodies
from rota.cluster.node.claims.held import Held
from rota.cluster.node.running import running
from rota.cluster.state import quarantine, records, splitting
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Member

from .mutants import mutant

# mypy: disable-error-code="method-assign, assignment, attr-defined"


@mutant
def keys_are_not_looked_at() -> None:
    """The master gives a job to whoever has room, whether he has its key or not. (It was so.)"""
    Member.can_verify = lambda self, signed: True


@mutant
def a_missing_key_ends_a_job() -> None:
    """What a node cannot verify is set aside, though others can run it. (It was so.)"""
    running.Running._give_elsewhere = lambda self, held, key_id: self._refuse(held, "bad signature")


@mutant
def set_aside_without_arguments() -> None:
    """What is set aside leaves its arguments behind: nobody can retry it. (It was so.)"""
    quarantine.SetAside._parts = lambda self, body, indexes, reason, *, last: [b""] * len(indexes)


@mutant
def the_signature_of_a_bundle_is_not_looked_at() -> None:
    """What is signed as a whole is run as it lies there."""
    original = tags.of_bundle
    tags.of_bundle = lambda key, header, payloads, cluster: header.tags or original(key, header, payloads, cluster)


@mutant
def cut_without_its_key_it_is_lost() -> None:
    """Who has not the key of a bundle that is signed as a whole cuts it all the same: nobody can verify the pieces."""
    original = codec.slices

    def slices(body: bytes, parts: Iterable[Sequence[int]]) -> list[bytes]:
        whole = codec.decode_header(body)[0].signed_whole
        return codec.broken_slices(body, parts) if whole else original(body, parts)

    codec.slices = slices


@mutant
def nobody_is_told() -> None:
    """Who waits for a job that is set aside waits on. (It was so.)"""
    original = quarantine.SetAside._write

    async def _write(self: quarantine.SetAside, *arguments: Any) -> Write:
        write = await original(self, *arguments)
        return Write(write.conditions, tuple(op for op in write.ops if not op.key.startswith(self._keys.results)))

    quarantine.SetAside._write = _write


@mutant
def bodies_are_not_compared() -> None:
    """A body that is signed is run under whatever claim it lies. (It was so.)"""
    quarantine.belongs = bodies.belongs = lambda header, bundle, token: True


@mutant
def silence_is_an_outcome() -> None:
    """A store that does not answer when a body is read counts as one that has none."""
    async def fetch(self: bodies.Bodies, batch: list[Held]) -> AsyncIterator[bodies.Found]:
        try:
            result = await self._ledger.commit(Txn((), tuple(Get(self._keys.body(held.bundle)) for held in batch)))
        except LedgerError:
            for held in batch:
                yield self._refuse(held, "body missing")
            return
        for held, answer in zip(batch, result.answers, strict=True):
            if not held.over:
                held.body = answer[0].value if answer else b""
                yield self._prepare(held)

    bodies.Bodies.fetch = fetch


@mutant
def silence_about_code_is_an_outcome() -> None:
    """Likewise, when code is read that was shipped by value. (It was so.)"""
    async def fetch_function(self: bodies.Bodies, held: Held) -> bodies.Found:
        try:
            page = await self._ledger.read(self._keys.function(held.header.function))
        except LedgerError:
            return self._refuse(held, "code missing")
        self._keep(held.header.function, bodies.function_in(held.header.function, page.records[0].value))
        return bodies.Found(held)

    bodies.Bodies.fetch_function = fetch_function


@mutant
def what_cannot_be_read_is_an_error() -> None:
    """Whoever reads a record that is none raises, wherever that is. (It was so.)"""
    records._try = lambda decoder, value: decoder.decode(value)


@mutant
def members_need_no_lease() -> None:
    """A member key that somebody wrote by hand is a member, and swallows what it is given. (It was so.)"""
    original = Claims.see_node

    def see_node(self: Claims, event: Event) -> str | None:
        if event.deleted or event.record.lease:
            return original(self, event)
        return original(self, Event(False, msgspec.structs.replace(event.record, lease=1)))

    Claims.see_node = see_node


@mutant
def a_digit_is_a_number() -> None:
    """A key that asks to cancel job "²" ends the node that reads it. (It was so.)"""
    original = Keys.parse_cancel

    def parse_cancel(self: Keys, key: bytes) -> Any:
        int(key.rpartition(b"-")[2].decode())
        return original(self, key)

    Keys.parse_cancel = parse_cancel


@mutant
def pieces_do_not_say_what_is_in_them() -> None:
    """When the body of a piece is gone, nobody knows any more which jobs it was: one is set aside, the others are
    nowhere. (It was so.)"""
    splitting.hex_bits = lambda found: ""


@mutant
def a_graph_that_cannot_be_read_is_empty() -> None:
    """A flow of which nobody can tell what it consists of is over, and what waits in it is given up. (It was so.)"""
    original = flows.unpack
    flows.unpack = lambda graph: original(graph) or []
