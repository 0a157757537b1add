"""What an error of etcd or gRPC means: one table.

The question that matters is whether a write can have been applied. "Certainly not" needs proof: a refusal by etcd
before it proposed, or a connection that never came up. Everything else is `WriteUnknown`.
"""

from __future__ import annotations

from typing import NamedTuple

from grpc import StatusCode

from rota.client import errors

from .members import RpcFailed


class TokenRefused(errors.LedgerDenied):
    """The token has expired, or users changed since: authenticate again, then repeat."""


class AuthDisabled(errors.LedgerDenied):
    """The server has no authentication switched on: go on without a token."""


class LeaseExists(errors.TransactionInvalid):
    """A lease with this id has been granted before."""


class FutureRevision(errors.TransactionInvalid):
    """The revision asked for does not exist yet on the member that was asked."""


class Row(NamedTuple):
    code: StatusCode
    words: str      # of the details, in lower case; "" fits all
    meaning: type[errors.LedgerError]


TABLE: tuple[Row, ...] = (
    # Certainly not applied, and another endpoint may do it.
    Row(StatusCode.UNAVAILABLE, "failed to connect to all addresses", errors.LedgerUnavailable),
    Row(StatusCode.UNAVAILABLE, "dns resolution failed", errors.LedgerUnavailable),
    Row(StatusCode.UNAVAILABLE, "etcdserver: no leader", errors.LedgerUnavailable),     # our own `hasleader` demand
    Row(StatusCode.UNAVAILABLE, "not supported for learner", errors.LedgerUnavailable),
    Row(StatusCode.FAILED_PRECONDITION, "not supported for learner", errors.LedgerUnavailable),
    Row(StatusCode.UNKNOWN, "raft proposal dropped", errors.LedgerUnavailable),
    Row(StatusCode.DATA_LOSS, "corrupt cluster", errors.LedgerUnavailable),
    # Refused.
    Row(StatusCode.UNAUTHENTICATED, "", TokenRefused),
    Row(StatusCode.INVALID_ARGUMENT, "revision of auth store is old", TokenRefused),
    Row(StatusCode.INVALID_ARGUMENT, "user name is empty", TokenRefused),
    Row(StatusCode.INVALID_ARGUMENT, "authentication failed", errors.LedgerDenied),
    Row(StatusCode.FAILED_PRECONDITION, "authentication is not enabled", AuthDisabled),
    Row(StatusCode.PERMISSION_DENIED, "", errors.LedgerDenied),
    Row(StatusCode.RESOURCE_EXHAUSTED, "database space exceeded", errors.NoSpace),
    Row(StatusCode.RESOURCE_EXHAUSTED, "too many requests", errors.StoreBusy),
    Row(StatusCode.RESOURCE_EXHAUSTED, "larger than max", errors.TransactionTooLarge),
    Row(StatusCode.INVALID_ARGUMENT, "too many operations", errors.TransactionTooLarge),
    Row(StatusCode.INVALID_ARGUMENT, "request is too large", errors.TransactionTooLarge),
    Row(StatusCode.NOT_FOUND, "lease not found", errors.LeaseGone),
    Row(StatusCode.FAILED_PRECONDITION, "lease already exists", LeaseExists),
    Row(StatusCode.OUT_OF_RANGE, "future revision", FutureRevision),
    Row(StatusCode.OUT_OF_RANGE, "", errors.TransactionInvalid),
    Row(StatusCode.INVALID_ARGUMENT, "", errors.TransactionInvalid),
    Row(StatusCode.FAILED_PRECONDITION, "", errors.TransactionInvalid),
    Row(StatusCode.UNIMPLEMENTED, "", errors.TransactionInvalid),
)


def meaning(failure: RpcFailed, *, revision: int = 0) -> errors.LedgerError:
    """What a call that failed means; `revision` is the one the caller had asked for."""
    if not failure.sent:
        return errors.LedgerUnavailable(str(failure))
    return translate(failure.code, failure.details, revision=revision)


def translate(code: StatusCode, details: str | None, *, revision: int = 0) -> errors.LedgerError:
    """Turn a status into an error of ours; `revision` is the one the caller had asked for."""
    words = (details or "").lower()
    if code is StatusCode.OUT_OF_RANGE and "compacted" in words:
        return errors.Compacted(revision)
    text = f"{details or 'no details'} ({code.name})"
    for row in TABLE:
        if row.code is code and row.words in words:
            return row.meaning(text)
    return errors.WriteUnknown(text)
