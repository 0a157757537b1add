"""The other transport. `ROTA_ETCD_TRANSPORT=grpc` runs all other tests of the ledger on it, too."""

from __future__ import annotations

import pytest

from rota.client import errors
from rota.cluster.boot.embedded import EmbeddedEtcd
from rota.cluster.ledger.etcd import EtcdConfig, EtcdLedger
from rota.cluster.ledger.ledger import Put, Txn, prefix_end


async def test_calls_watches_and_errors_over_grpc(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    root = f"/{cluster_name}/".encode()
    async with EtcdLedger(EtcdConfig((etcd.endpoint,), transport="grpc")) as ledger:
        done = await ledger.commit(Txn((), (Put(root + b"a", b"1"),)))
        assert (await ledger.read(root, prefix_end(root))).records[0].value == b"1"
        async with ledger.watch(root, prefix_end(root), from_revision=done.revision) as watch:
            assert [event.record.value for event in (await anext(aiter(watch))).events] == [b"1"]
        with pytest.raises(errors.TransactionInvalid, match="duplicate key"):
            await ledger.commit(Txn((), (Put(root + b"a", b""), Put(root + b"a", b""))))
        with pytest.raises(errors.LeaseGone):
            await ledger.keep_alive(12345)


async def test_nobody_there_over_grpc() -> None:
    config = EtcdConfig(("127.0.0.1:1",), transport="grpc", connect_timeout_s=0.5, read_timeout_s=0.5)
    async with EtcdLedger(config) as ledger:
        with pytest.raises(errors.LedgerUnavailable):
            await ledger.commit(Txn((), (Put(b"/a", b""),)))
        with pytest.raises(errors.LedgerUnavailable):
            await ledger.read(b"/a")
