"""Between our values and etcd's messages.

This is the hot path of every commit. Fields are set on messages added in place: building them by keyword arguments
costs three times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aetcd import rpc
from google.protobuf import unknown_fields  # type: ignore[import-untyped]  # its stubs are not worth a dependency

from .ledger import Condition, Delete, Event, Get, Op, Put, Record, Target, Txn, TxnResult

EQUAL, GREATER, LESS, NOT_EQUAL = 0, 1, 2, 3
RESULTS = {"==": EQUAL, ">": GREATER, "<": LESS, "!=": NOT_EQUAL}
VERSION, CREATE, MOD, VALUE, LEASE = 0, 1, 2, 3, 4
DELETED = 1
STATUS_QUOTA_FIELD = 12
"""`StatusResponse.dbSizeQuota`, which etcd tells from 3.6 on and aetcd's messages do not know."""


def txn_request(txn: Txn) -> Any:
    request = rpc.TxnRequest()
    _add_conditions(request.compare.add, txn.conditions)
    _add_ops(request.success.add, txn.then)
    _add_ops(request.failure.add, txn.orelse)
    return request


def _add_conditions(add: Callable[[], Any], conditions: Iterable[Condition]) -> None:
    for condition in conditions:
        compare = add()
        compare.key = condition.key
        if condition.is_ != "==":
            compare.result = RESULTS[condition.is_]
        target = condition.target
        if target is Target.MOD:
            compare.target = MOD
            compare.mod_revision = condition.operand
        elif target is Target.CREATE:
            compare.target = CREATE
            compare.create_revision = condition.operand
        elif target is Target.VERSION:
            compare.version = condition.operand
        elif target is Target.VALUE:
            compare.target = VALUE
            compare.value = condition.operand
        else:
            compare.target = LEASE
            compare.lease = condition.operand
        if condition.range_end:
            compare.range_end = condition.range_end


def _add_ops(add: Callable[[], Any], ops: Iterable[Op]) -> None:
    for op in ops:
        if isinstance(op, Put):
            put = add().request_put
            put.key = op.key
            put.value = op.value
            if op.lease:
                put.lease = op.lease
        elif isinstance(op, Delete):
            delete = add().request_delete_range
            delete.key = op.key
            if op.range_end:
                delete.range_end = op.range_end
        else:
            get = add().request_range
            get.key = op.key
            if op.keys_only:
                get.keys_only = True
            if op.range_end:
                get.range_end = op.range_end
                get.limit = op.limit


def txn_result(txn: Txn, response: Any) -> TxnResult:
    succeeded = response.succeeded
    taken = txn.then if succeeded else txn.orelse
    answers: tuple[tuple[Record, ...], ...] = ((),) * len(taken)
    if Get in set(map(type, taken)):
        answers = tuple(
            records(answer.response_range.kvs) if isinstance(op, Get) else ()
            for op, answer in zip(taken, response.responses, strict=True)
        )
    return TxnResult(succeeded, response.header.revision, answers)


def records(kvs: Iterable[Any]) -> tuple[Record, ...]:
    return tuple(
        [Record(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in kvs]
    )


def events(messages: Iterable[Any]) -> list[Event]:
    found = []
    for message in messages:
        kv = message.kv
        if message.type == DELETED:
            found.append(Event(True, Record(kv.key, b"", 0, kv.mod_revision, 0)))
        else:
            record = Record(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
            found.append(Event(False, record))
    return found


def quota_bytes(status: Any) -> int:
    """The quota that a StatusResponse tells, or 0."""
    for field in unknown_fields.UnknownFieldSet(status):
        if field.field_number == STATUS_QUOTA_FIELD:
            return int(field.data)
    return 0
