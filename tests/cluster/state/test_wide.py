"""Bundles of more jobs than one transaction can treat one by one."""

from __future__ import annotations

import msgspec
import pytest

from rota.client.errors import InvalidJob
from rota.client.ids import BUNDLE as BUNDLE_ID
from rota.client.ids import index_at, ordinal, parse_job_id
from rota.client.model import JOBS_PER_BUNDLE_MAX, Outcome, Step
from rota.client.wire.codec import HEADER_BYTES_MAX, decode_header, encode_body, slices
from rota.client.wire.frames import Hello, Limits, decode_from_node, encode
from rota.client.wire.keyring import UNSIGNED, Keyring, Seal
from rota.cluster.ledger.commits import Write, unmodified
from rota.cluster.ledger.ledger import OPS_MAX, Delete, Put, Record
from rota.cluster.node.claims.held import Held
from rota.cluster.node.claims.memory import Memory
from rota.cluster.node.outcomes.settle import Keep, settle
from rota.cluster.state import moves
from rota.cluster.state.discarding import Discards
from rota.cluster.state.quarantine import SetAside, left_at
from rota.cluster.state.records import (
    Claim,
    Member,
    Token,
    bits,
    claim_of,
    decode,
    header_of,
    hex_bits,
    results_in,
)
from rota.cluster.state.records import (
    encode as encode_record,
)
from rota.cluster.state.splitting import PIECES_MAX, jobs_in, piece_name, pieces
from rota.worker.channel.job_numbers import job_number, job_of
from tests.cluster.node.bench import BUNDLE, KEYS, NODE, Bench, body, header, play, token

WIDE = JOBS_PER_BUNDLE_MAX
SEAL = Seal(UNSIGNED, "c")
ALL = list(range(WIDE))


def test_names_sort_as_jobs_do_and_below_a_hundred_are_what_they_were() -> None:
    names = [piece_name(BUNDLE, [index]) for index in ALL]
    assert sorted(names) == names and names[7] == f"{BUNDLE}.07" and names[479] == f"{BUNDLE}.x479"
    assert [index_at(ordinal(index)) for index in ALL] == ALL
    for name in (*names, f"{BUNDLE}.7"):
        assert BUNDLE_ID.match(name) and KEYS.parse_claim(KEYS.claim(NODE, name)) == (NODE, name)
    for name in (".x99", ".x480", ".100", ".x0100", ".x", ".-1"):
        assert not BUNDLE_ID.match(BUNDLE + name) and KEYS.parse_claim(KEYS.claim(NODE, BUNDLE + name)) is None
    assert parse_job_id(f"{BUNDLE.replace('-', '_')}_479") == (BUNDLE, 479)
    assert KEYS.parse_cancel(KEYS.cancel(BUNDLE, 479)) == (BUNDLE, 479)
    assert KEYS.parse_failed(KEYS.failed_job("q", BUNDLE, 100)) == ("q", BUNDLE, 100)
    assert job_of(job_number(77, 479)) == (77, 479)


def test_its_header_fits_with_signatures_and_all() -> None:
    wide = msgspec.structs.replace(header(count=WIDE), sizes=[500] * WIDE, task="m:" + "t" * 254, queue="q" * 128)
    signed = Keyring({"k1": bytes(range(32))}).sign(wide, [b"x" * 500] * WIDE, "c")
    _, offset = decode_header(encode_body(signed, [b"x" * 500] * WIDE))
    assert offset < HEADER_BYTES_MAX / 2
    assert header_of(slices(body(count=WIDE), [[0, 479]])[0]) is not None
    with pytest.raises(InvalidJob):
        decode_header(body(count=WIDE + 1))


@pytest.mark.parametrize("size", [1, 2, 7, 8, 60, 200])
def test_it_is_split_in_levels_until_pieces_are_as_small_as_is_wanted(size: int) -> None:
    bodies = {BUNDLE: (token(WIDE), body(count=WIDE))}
    ended: dict[str, list[int]] = {}
    written = 0
    while bodies:
        name, (one, whole) = bodies.popitem()
        if one.pending <= size:
            ended[name] = jobs_in(name, one) or []
            continue
        at = unmodified(KEYS.job("q", 0, 7, name), 3)
        write = moves.split(KEYS, SEAL, (), at, name, one, Record(KEYS.body(name), whole, 1, 1, 1), size)
        assert len(write.ops) <= OPS_MAX
        written += sum(len(op.value) for op in write.ops if isinstance(op, Put))
        made = pieces(SEAL, name, one, whole, size)
        assert len(made) <= PIECES_MAX
        bodies |= {name: (piece, cut) for name, piece, cut in made}
    assert [index for name in sorted(ended) for index in ended[name]] == ALL        # in the order of their names


def test_a_slow_node_with_two_slots_costs_the_store_no_more_than_twice_what_narrow_bundles_do() -> None:
    """Bytes of splits until all are in pieces of two."""
    def bytes_of(count: int) -> int:
        todo, written = [(BUNDLE, token(count), body_of(count))], 0
        while todo:
            name, one, whole = todo.pop()
            if one.pending > 2:
                made = pieces(SEAL, name, one, whole, 2)
                written += sum(len(cut) + len(encode_record(piece)) for _, piece, cut in made)
                todo += made
        return written

    def body_of(count: int) -> bytes:
        return encode_body(msgspec.structs.replace(header(count=count), sizes=[200] * count), [b"x" * 200] * count)

    assert bytes_of(WIDE) < 2 * 8 * bytes_of(60)


@pytest.mark.parametrize("cutter", [Keyring({"k": b"x" * 32}), UNSIGNED])
def test_one_that_is_signed_as_a_whole_is_split_with_its_key_and_without(cutter: Keyring) -> None:
    """Without it a piece has all the bytes, so that there are fewer of them in a write; it comes to the same."""
    signer, payloads = Keyring({"k": b"x" * 32}), [b"%03d" % index * 150 for index in ALL]
    one = msgspec.structs.replace(header(count=WIDE), sizes=list(map(len, payloads)))
    todo = [(BUNDLE, token(WIDE, done=hex_bits(0b11)), Seal(signer, "c", whole=True).body(one, payloads))]
    ended: dict[int, bytes] = {}
    while todo and len(ended) < 3:
        name, piece, cut = todo.pop()
        if piece.pending == 1:
            (index,), (payload,) = (part := signer.verify(cut, "c"))[0].indexes, part[1]
            ended[index] = payload
            continue
        made = pieces(Seal(cutter, "c"), name, piece, cut, 1)
        assert len(made) > 1 and sum(len(cut) for _, _, cut in made) < 1024 * 1024
        todo += made
    assert sorted(ended) == [477, 478, 479] and all(payloads[index] == payload for index, payload in ended.items())


def test_what_a_node_gives_back_fits_one_transaction() -> None:
    claim = claim_of(token(WIDE), 5)
    ops = moves.give_back(KEYS, SEAL, KEYS.claim(NODE, BUNDLE), BUNDLE, claim, body(count=WIDE), ALL[2:], 1)
    assert len(ops) <= OPS_MAX
    tokens = {op.key.rpartition(b"/")[2].decode(): decode(Token, op.value) for op in ops
              if isinstance(op, Put) and op.key.startswith(KEYS.jobs)}
    found = [index for name, one in tokens.items() if one is not None for index in jobs_in(name, one) or ()]
    assert sorted(found) == ALL[2:]


def held_on(record: Record, **more: object) -> Held:
    claim = decode(Claim, record.value)
    assert claim is not None
    return Held(
        1, BUNDLE, record, claim, header(count=WIDE), record.mod_revision, body(count=WIDE),
        [(index, b"x") for index in ALL], **more,  # type: ignore[arg-type]
    )


def settled(bench: Bench, held: Held, outcomes: list[Outcome]) -> list[tuple[Put | Delete, ...]]:
    written = settle(bench.context, held, outcomes, complete=True, keep=Keep(0.0, 0.0))
    assert [one.final for one in written] == [False] * (len(written) - 1) + [True]
    assert all(len(one.ops) <= OPS_MAX - 2 for one in written)      # and a result, and what is kept
    return [one.ops for one in written]


def test_each_job_may_go_on_at_a_time_of_its_own() -> None:
    async def deed(bench: Bench) -> None:
        held = held_on(await bench.claim(count=WIDE))
        held.retries = [Outcome(index, "sleep", delay_s=2.0 * index) for index in ALL[1:]]
        for ops in settled(bench, held, [Outcome(0, "ok")]):
            at = await bench.record(held.record.key)
            assert (await bench.commits.submit(Write((unmodified(at.key, at.mod_revision),), ops))).applied
        names = [name.rpartition("/")[2] for name in await bench.names(KEYS.scheduled)]
        assert sorted(names) == [piece_name(BUNDLE, [index]) for index in ALL[1:]]
        assert await bench.names(KEYS.claims) == [] and await bench.names(KEYS.bodies) == sorted(names)

    play(deed)


def test_what_all_of_them_remember_goes_with_them_and_no_more() -> None:
    async def deed(bench: Bench) -> None:
        held = held_on(await bench.claim(count=WIDE), memory=Memory({index: {0: Step("a")} for index in ALL}))
        await bench.put(*((KEYS.step(BUNDLE, index, 0), b"x") for index in ALL[:120]))
        await bench.put((KEYS.step(BUNDLE + "0", 7, 0), b""), (KEYS.step(BUNDLE, 200, 0), b""))
        for ops in settled(bench, held, [Outcome(index, "ok") for index in ALL]):
            at = await bench.record(held.record.key)
            assert (await bench.commits.submit(Write((unmodified(at.key, at.mod_revision),), ops))).applied
        assert await bench.names(KEYS.steps) == [f"{BUNDLE}0-7/0000"]

    play(deed)


def test_neighbours_in_the_store_are_forgotten_in_one_range() -> None:
    deletes = moves.forget_steps(KEYS, BUNDLE, [index for index in ALL if index != 5])
    assert len(deletes) == 2 and all(isinstance(op, Delete) for op in deletes)

    def is_gone(index: int) -> bool:
        key = KEYS.step(BUNDLE, index, 3)
        return any(op.key <= key < op.range_end for op in deletes if isinstance(op, Delete))

    assert [index for index in ALL if not is_gone(index)] == [5]


@pytest.mark.parametrize("reason", ["lost", "body missing", "body unreadable", "bad signature"])
def test_all_of_it_is_set_aside_for_its_reason_and_who_waits_is_told(reason: str) -> None:
    stored = {"body missing": b"", "body unreadable": b"no body"}.get(reason, body(count=WIDE))

    async def deed(bench: Bench) -> None:
        record = await bench.claim(count=WIDE, claim=claim_of(token(WIDE, done="1"), 5), stored=stored)
        if not stored:
            await bench.delete(KEYS.body(BUNDLE))
        aside = SetAside(bench.ledger, KEYS, bench.clock, bench.context.seal, bench.context.buckets)
        left: bytes | None = b""
        tries = 0
        while left is not None:
            claim = decode(Claim, record.value)
            assert claim is not None
            write = await aside.fail((), record, claim, reason)
            assert len(write.ops) <= OPS_MAX and (await bench.commits.submit(write)).applied
            left, tries = left_at(write, record.key), tries + 1
            if left is not None:
                record = await bench.record(record.key)
        assert tries == 8
        assert {name.rpartition("-")[2] for name in await bench.names(KEYS.failed)} == {str(index) for index in ALL[1:]}
        told = (await bench.ledger.read(KEYS.results, KEYS.results + b"\xff")).records
        assert sorted(entry.index for one in told for entry in results_in(one.value).entries) == ALL[1:]
        assert await bench.names(KEYS.claims) == await bench.names(KEYS.bodies) == []

    play(deed)


def test_one_that_cannot_be_read_is_set_aside_whole() -> None:
    async def deed(bench: Bench) -> None:
        key = KEYS.job("q", 0, 7, BUNDLE)
        await bench.put((key, b"{no token"), (KEYS.body(BUNDLE), body(count=WIDE)))
        aside = SetAside(bench.ledger, KEYS, bench.clock, bench.context.seal, bench.context.buckets)
        while await bench.names(KEYS.jobs):
            record = await bench.record(key)
            assert record.value == b"{no token"
            assert (await bench.commits.submit(await aside.unreadable((), record))).applied
        assert len(await bench.names(KEYS.failed)) == WIDE and await bench.names(KEYS.bodies) == []

    play(deed)


def test_cancelling_and_requests_to_cancel_fit_transactions() -> None:
    async def deed(bench: Bench) -> None:
        discards = Discards(bench.ledger, KEYS, bench.context.seal, bench.context.buckets)
        every_other = hex_bits(bits(ALL[::2]))
        held = await bench.claim(count=WIDE, claim=claim_of(token(WIDE, done="1"), 5))
        writes = await discards.claimed((), held, claim_of(token(WIDE, done="1"), 5))
        assert all(len(write.ops) <= OPS_MAX for write in writes)
        assert [KEYS.parse_cancel(op.key) for write in writes for op in write.ops] == [
            (BUNDLE, index) for index in ALL[1:]
        ]
        scattered = token(WIDE, done=every_other, steps=True, late=every_other)
        key = KEYS.job("q", 0, 7, BUNDLE)
        await bench.put((key, encode_record(scattered)))
        write = await discards.waiting((), await bench.record(key), scattered)
        assert write is not None and len(write.ops) <= OPS_MAX

    play(deed)


def test_who_says_nothing_takes_what_was_taken_before_there_were_wide_ones() -> None:
    member = Member("", [], {}, {}, "", "", 0.0)
    assert b"jobs_per_bundle" not in encode_record(member) and member.jobs_per_bundle == 60
    hello = decode_from_node(encode(Hello(1, "c", "n", [])))
    assert isinstance(hello, Hello) and hello.limits.jobs_per_bundle_max == 60
    hello = decode_from_node(encode(Hello(1, "c", "n", [], Limits(jobs_per_bundle_max=WIDE))))
    assert isinstance(hello, Hello) and hello.limits.jobs_per_bundle_max == WIDE
