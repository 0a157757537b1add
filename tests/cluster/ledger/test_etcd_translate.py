"""The table of errors, and the rules about releases."""

from __future__ import annotations

import pytest
from aetcd import rpc
from grpc import StatusCode

from rota.client import errors
from rota.cluster.ledger.channels import EtcdConfig, split_endpoint
from rota.cluster.ledger.messages import quota_bytes
from rota.cluster.ledger.releases import check_version, progress_is_ordered, release
from rota.cluster.ledger.translate import AuthDisabled, FutureRevision, LeaseExists, TokenRefused, translate

AMBIGUOUS = [
    (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    (StatusCode.CANCELLED, "Locally cancelled by application!"),
    (StatusCode.UNAVAILABLE, "etcdserver: request timed out"),
    (StatusCode.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"),
    (StatusCode.UNAVAILABLE, "etcdserver: request timed out, possibly due to connection lost"),
    (StatusCode.UNAVAILABLE, "etcdserver: leader changed"),
    (StatusCode.UNAVAILABLE, "etcdserver: server stopped"),
    (StatusCode.UNAVAILABLE, "Socket closed"),
    (StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer"),
    (StatusCode.UNAVAILABLE, "GOAWAY received"),
    # A proxy's words about its own connection are no proof that ours did not come through before.
    (StatusCode.UNAVAILABLE, "upstream connect error: connection refused"),
    (StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
    (StatusCode.UNKNOWN, "context canceled"),
    (StatusCode.RESOURCE_EXHAUSTED, "something new"),
    (StatusCode.ABORTED, None),
]

DEFINITE = [
    (StatusCode.UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused",
     errors.LedgerUnavailable),
    (StatusCode.UNAVAILABLE, "DNS resolution failed for etcd:2379: …", errors.LedgerUnavailable),
    (StatusCode.UNAVAILABLE, "etcdserver: no leader", errors.LedgerUnavailable),
    (StatusCode.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner", errors.LedgerUnavailable),
    (StatusCode.UNKNOWN, "raft proposal dropped", errors.LedgerUnavailable),
    (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token", TokenRefused),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", TokenRefused),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty", TokenRefused),
    (StatusCode.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", AuthDisabled),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password",
     errors.LedgerDenied),
    (StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", errors.LedgerDenied),
    (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", errors.NoSpace),
    (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", errors.StoreBusy),
    (StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (2100000 vs. 2097152)",
     errors.TransactionTooLarge),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", errors.TransactionTooLarge),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", errors.TransactionTooLarge),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", errors.TransactionInvalid),
    (StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided", errors.TransactionInvalid),
    (StatusCode.NOT_FOUND, "etcdserver: requested lease not found", errors.LeaseGone),
    (StatusCode.FAILED_PRECONDITION, "etcdserver: lease already exists", LeaseExists),
    (StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", errors.Compacted),
    (StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", FutureRevision),
    (StatusCode.OUT_OF_RANGE, "etcdserver: too large lease TTL", errors.TransactionInvalid),
]


@pytest.mark.parametrize(("code", "details"), AMBIGUOUS)
def test_what_may_have_been_applied(code: StatusCode, details: str | None) -> None:
    assert type(translate(code, details)) is errors.WriteUnknown


@pytest.mark.parametrize(("code", "details", "meaning"), DEFINITE)
def test_what_is_certain(code: StatusCode, details: str, meaning: type[errors.LedgerError]) -> None:
    error = translate(code, details, revision=7)
    assert type(error) is meaning
    assert not isinstance(error, errors.WriteUnknown)


def test_compacted_tells_the_revision() -> None:
    error = translate(StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", revision=7)
    assert isinstance(error, errors.Compacted) and error.revision == 7


@pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2", "3.5.0-rc.1"])
def test_releases_that_lose_writes(version: str) -> None:
    with pytest.raises(errors.StoreTooOld, match="can lose acknowledged writes"):
        check_version(version)
    assert "trying out" in (check_version(version, embedded=True) or "")


@pytest.mark.parametrize(
    ("version", "warned"),
    [("3.4.23", True), ("3.5.3", True), ("3.5.17", True), ("3.5.18", False), ("3.5.33", False), ("3.6.0", False),
     ("3.7.1", False)],
)
def test_releases_that_are_warned_about(version: str, warned: bool) -> None:
    assert bool(check_version(version)) is warned


def test_releases_before_the_protocol() -> None:
    with pytest.raises(errors.StoreTooOld, match="not supported"):
        check_version("3.3.27")


def test_release_numbers() -> None:
    assert release("v3.6.0-rc.1") == (3, 6, 0)
    assert release("strange") == (0, 0, 0)
    ordered = ["3.4.25", "3.4.33", "3.5.8", "3.6.0"]
    assert all(map(progress_is_ordered, ordered))
    assert not any(map(progress_is_ordered, ["3.4.24", "3.5.0", "3.5.7"]))


def test_the_quota_of_newer_releases() -> None:
    """A field that aetcd's messages do not know: number 12, a varint."""
    status = rpc.StatusResponse(version="3.6.14", dbSize=5).SerializeToString()
    assert quota_bytes(rpc.StatusResponse.FromString(status)) == 0
    assert quota_bytes(rpc.StatusResponse.FromString(status + b"\x60\x80\x80\x80\x80\x08")) == 2 * 1024**3


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [("http://etcd:2379", ("etcd:2379", False)), ("https://10.0.0.1:2379/", ("10.0.0.1:2379", True)),
     ("etcd:2379", ("etcd:2379", None)), ("http://[::1]:2379", ("[::1]:2379", False))],
)
def test_endpoints(endpoint: str, target: tuple[str, bool | None]) -> None:
    assert split_endpoint(endpoint) == target


@pytest.mark.parametrize(
    "endpoint", ["", "etcd", "ftp://etcd:2379", "http://etcd", "http://etcd:2379/path", "::1:2379"]
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(errors.ConfigError):
        EtcdConfig((endpoint,))


def test_settings_that_belong_together() -> None:
    with pytest.raises(errors.ConfigError, match="password"):
        EtcdConfig(user="rota")
    with pytest.raises(errors.ConfigError, match="no etcd endpoint"):
        EtcdConfig(())
