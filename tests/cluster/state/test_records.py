"""Whatever lies in the store: it is read, or it is none; nothing else happens."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.client.model import Header
from rota.client.wire.codec import encode_body
from rota.cluster.ledger.ledger import Record
from rota.cluster.state import records
from rota.cluster.state.keys import Keys
from rota.cluster.state.quarantine import belongs
from rota.cluster.state.records import (
    Awaiting,
    BoundRecord,
    Claim,
    FailedRecord,
    FinishedRecord,
    FlowRecord,
    LogRecord,
    Member,
    OperationRecord,
    ProgressRecord,
    QueueRecord,
    RateRecord,
    ReceiptRecord,
    RunningRecord,
    SectionRecord,
    TaskRecord,
    Token,
    claim_in,
    claim_of,
    decode,
    encode,
    failed_at,
    failure_in,
    header_of,
    operation_in,
    results_in,
    tail_of,
    token_in,
    waiting_at,
)

KEYS = Keys("t")
TOKEN = Token("m:f", "q", 0, 7, 3, "sync", 1_000, done="1")
KINDS: tuple[type[msgspec.Struct], ...] = (
    Token, Claim, Awaiting, Member, TaskRecord, QueueRecord, FailedRecord, FinishedRecord, ReceiptRecord,
    OperationRecord, RunningRecord, ProgressRecord, LogRecord, RateRecord, BoundRecord,
    FlowRecord, SectionRecord,
)


def raw(**changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(TOKEN) | changes)


def test_what_was_written_is_read() -> None:
    assert token_in("q", encode(TOKEN)) == TOKEN
    assert claim_in(encode(claim_of(TOKEN, 5))) == claim_of(TOKEN, 5)


@pytest.mark.parametrize("changes", [
    {"done": "zz"}, {"done": "-1"}, {"done": " 1"}, {"done": "0x1"}, {"done": "1_0"}, {"done": "²"},
    {"done": "f" * 121},
    {"done": "f"}, {"done": "7"},                               # more than there are, and all of them
    {"count": 0}, {"count": -3}, {"count": 481}, {"count": 2**70}, {"count": True}, {"count": 1.5},
    {"priority": 101}, {"priority": -101}, {"order": -1}, {"order": 10**16}, {"not_before": -1}, {"at": 10**16},
    {"attempt": -1}, {"lost": -1}, {"orphanings": -1}, {"mode": "both"}, {"queue": "other"}, {"queue": "q\n"},
    {"key": "k" * 129}, {"task": "t" * 257}, {"v": 3}, {"v": -1}, {"task": None},
])
def test_a_field_out_of_range_makes_it_none(changes: dict[str, Any]) -> None:
    assert token_in("q", raw(**changes)) is None


@pytest.mark.parametrize("value", [
    b"", b"null", b"[]", b"{}", b"\xff\xfe", b'{"task":"\xff"}', b"[" * 100_000, b'{"task":' * 50_000,
    raw().replace(b'"order":7', b'"order":' + b"9" * 5_000), raw().replace(b'"order":7', b'"order":NaN'),
    raw().replace(b'"m:f"', b'"\\ud800"'), raw()[:-1] + b',"new":' + b"[" * 100_000 + b"}",
])
def test_bytes_that_are_no_record(value: bytes) -> None:
    assert token_in("q", value) is None and claim_in(value) is None


def test_what_a_claim_says_of_its_queue_is_a_name() -> None:
    assert claim_in(raw(queue="a/b")) is None and claim_in(raw(queue="")) is None and claim_in(raw()) is not None


@pytest.mark.parametrize("record", [
    b'{"mode":"sync","max_concurrency":0}', b'{"mode":"sync","max_per_key":-1}',
    b'{"mode":"sync","requeue_delay_s":-1}',
    b'{"mode":"sync","requeue_delay_s":1e300}', b'{"mode":"sync","max_concurrency":1e3}',
])
def test_settings_out_of_range(record: bytes) -> None:
    assert decode(TaskRecord, record) is None


@given(st.sampled_from(KINDS), st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
).map(lambda value: msgspec.json.encode(value)))
@settings(max_examples=200, deadline=None)
def test_decoding_is_total(kind: type[msgspec.Struct], value: bytes) -> None:
    record = decode(kind, value)
    assert record is None or type(record) is kind
    if isinstance(record, Token):
        assert 0 <= record.pending <= record.count
    operation_in(value), results_in(value), failure_in(value), header_of(value), tail_of(Record(b"k", value, 1, 9, 1))


# -- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_read_as_they_are_written() -> None:
    bundle = "k3f9q2m7xa5t-0000001f.03"
    for priority in (-100, 0, 100):
        place = KEYS.parse_job(KEYS.job("mail", priority, 12, bundle))
        assert place is not None
        assert (place.queue, place.priority, place.order, place.bundle) == ("mail", priority, 12, bundle)
    assert KEYS.parse_due(KEYS.due(99, "mail", bundle)) == (99, "mail", bundle)
    assert KEYS.parse_claim(KEYS.claim("node.example-abc123", bundle)) == ("node.example-abc123", bundle)
    assert KEYS.parse_failed(KEYS.failed_job("mail", bundle, 3)) == ("mail", "k3f9q2m7xa5t-0000001f", 3)
    assert KEYS.parse_cancel(KEYS.cancel(bundle, 3)) == ("k3f9q2m7xa5t-0000001f", 3)
    assert KEYS.parse_candidate(KEYS.candidate(0x7ABC)) == 0x7ABC
    assert KEYS.parse_node(KEYS.node("n-1")) == "n-1" and KEYS.parse_queue(KEYS.queue("mail")) == "mail"
    assert KEYS.parse_task(KEYS.task("m:größe.<locals>.f")) == "m:größe.<locals>.f"


@pytest.mark.parametrize("key", [
    b"q/50/0000000000000001/b", b"q/0050/0000000000000001/b", b"q/ 50/0000000000000001/b", b"q/201/0000000000000001/b",
    b"q/050/1/b", b"q/050/0000000000000001/", b"q/050/0000000000000001/b/c", b"q/050/0000000000000001/x-\xc2\xb2",
    b"/050/0000000000000001/b", b"q\xff/050/0000000000000001/b", "q/٠٥٠/0000000000000001/b".encode(), b"",
    b"q/050/0000000000000001/b\n", b"q/050/-000000000000001/b",
])
def test_what_is_spelt_otherwise_is_no_key_of_ours(key: bytes) -> None:
    """One spelling for each: a key that is read and built again must be the same one, or a loop over keys stands."""
    assert KEYS.parse_job(KEYS.jobs + key) is None


def test_strange_names() -> None:
    assert KEYS.parse_cancel(KEYS.cancels + "x-²".encode()) is None
    assert KEYS.parse_cancel(KEYS.cancels + b"x-480") is None
    assert KEYS.parse_candidate(KEYS.master + b"0") is None and KEYS.parse_candidate(KEYS.master + b"f" * 16) is None
    assert KEYS.parse_node(KEYS.nodes + b"a/b") is None and KEYS.parse_node(KEYS.nodes) is None
    assert KEYS.parse_task(KEYS.tasks + b"\xff") is None and KEYS.parse_queue(KEYS.queues + b".x") is None


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_reading_keys_is_total(tail: bytes) -> None:
    for prefix, parse in (
        (KEYS.jobs, KEYS.parse_job), (KEYS.scheduled, KEYS.parse_due), (KEYS.claims, KEYS.parse_claim),
        (KEYS.failed, KEYS.parse_failed), (KEYS.cancels, KEYS.parse_cancel), (KEYS.master, KEYS.parse_candidate),
        (KEYS.nodes, KEYS.parse_node), (KEYS.queues, KEYS.parse_queue), (KEYS.tasks, KEYS.parse_task),
    ):
        parse(prefix + tail)  # type: ignore[operator]


# -- records beside their keys ----------------------------------------------------------------------------------------


def test_a_token_belongs_to_the_queue_of_its_key() -> None:
    here, there = KEYS.job("q", 0, 7, "b"), KEYS.job("p", 0, 7, "b")
    assert waiting_at(KEYS, Record(here, encode(TOKEN), 1, 1, 1)) == TOKEN
    assert waiting_at(KEYS, Record(there, encode(TOKEN), 1, 1, 1)) is None
    assert waiting_at(KEYS, Record(KEYS.due(5, "p", "b"), encode(TOKEN), 1, 1, 1)) is None


def test_a_failed_record_that_cannot_be_read_is_shown_under_its_key() -> None:
    key = KEYS.failed_job("mail", "b-1", 4)
    for value in (b"\xff", encode(FailedRecord("other/4", "m:f", "mail", "no", 1, "n", 1.0))):
        failed = failed_at(KEYS, Record(key, value, 1, 1, 1))
        assert failed is not None and (failed.id, failed.queue, failed.reason) == ("b-1/4", "mail", "unreadable")
    assert failed_at(KEYS, Record(KEYS.failed + b"mail/x", b"{}", 1, 1, 1)) is None


def test_a_tail_that_is_no_order() -> None:
    for value in (b"", b"x", "٣".encode(), b"9" * 16, b"9" * 5_000, b"-1", b" 1", b"1_0"):
        assert tail_of(Record(b"k", value, 3, 42, 1)) == 42
    assert tail_of(Record(b"k", b"17", 3, 42, 1)) == 17


@pytest.mark.parametrize("changes", [
    {"enqueued_at": float("nan")}, {"enqueued_at": float("inf")}, {"queue": "no name"}, {"task": "t" * 300},
    {"sizes": [-1, 4]}, {"indexes": [0, 0]}, {"indexes": [0, 480]}, {"sizes": [2**62, 3]},
    {"options": {"timeout_s": float("nan")}}, {"options": {"max_attempts": -1}},
    {"options": {"retry_delays_s": [-1.0]}},
])
def test_bodies_out_of_range(changes: dict[str, Any]) -> None:
    fields = {
        "bundle": "b-1", "task": "m:f", "queue": "q", "mode": "sync", "indexes": [0, 1], "sizes": [1, 2],
        "enqueued_at": 1.0,
    }
    def body(fields: dict[str, Any]) -> bytes:
        head = msgspec.msgpack.encode(fields)
        return len(head).to_bytes(4, "big") + head + b"abc"

    assert header_of(body(fields)) is not None
    assert header_of(body(fields | changes)) is None


def test_a_token_says_the_same_as_its_body() -> None:
    header = Header("b-1", "m:f", "q", "sync", [3, 4], [1, 1], 0.0)
    assert header_of(encode_body(header, [b"x", b"y"])) == header
    token = Token("m:f", "q", 0, 1, 2, "sync", 0, done=f"{1 << 3:x}")
    assert belongs(header, "b-1", token)
    assert not belongs(header, "b-1", msgspec.structs.replace(token, done="1"))      # there is no job 0 in it
    assert not belongs(header, "b-1", msgspec.structs.replace(token, count=3))


def test_every_kind_of_record_is_tried_here() -> None:
    kinds = {kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)}
    stored = {kind for kind in kinds if "v" in kind.__struct_fields__ and kind.__module__ == records.__name__}
    assert {kind.__name__ for kind in stored} == {kind.__name__ for kind in (*KINDS, records.Failure)}


@given(st.lists(st.integers(0, 479)), st.integers(0, 479), st.integers(0, 480))
def test_bits_of_jobs_in_a_row_and_of_any_others(indexes: list[int], first: int, count: int) -> None:
    assert records.bits(indexes) == sum(1 << index for index in set(indexes))
    row = list(range(first, first + count))
    assert records.bits(row) == records.bits(iter(row)) == sum(1 << index for index in row)
