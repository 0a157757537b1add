"""The ledger on a real etcd, with the messages of `aetcd.rpc`.

Start reading at `EtcdLedger`. `endpoints.py` chooses the member to ask, `http2/` (or `channels.py`, over `grpc.aio`)
connects to it as `members.py` says, `watching.py` is
the watch, `messages.py` builds and reads messages, `translate.py` says what an error means, `releases.py` which etcd is
good enough.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from aetcd import rpc

from rota.client import errors

from .channels import EtcdConfig
from .endpoints import Endpoints
from .ledger import Page, StoreStatus, Txn, TxnResult
from .members import Member
from .messages import quota_bytes, records, txn_request, txn_result
from .releases import check_version, release
from .translate import FutureRevision, LeaseExists
from .watching import EtcdWatch

__all__ = ["EtcdConfig", "EtcdLedger", "check_version"]


class EtcdLedger:
    """Implements `ledger.Ledger`. Belongs to the event loop it is first used in. After `StoreRewound` it refuses
    everything: whatever its owner knows is void, so start over with a new one.

    Between several endpoints it keeps to one until that fails or falls silent.
    """

    def __init__(self, config: EtcdConfig) -> None:
        self.config = config
        self._endpoints = Endpoints(config)

    async def read(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        serializable: bool = False,
        min_mod_revision: int = 0,
    ) -> Page:
        request = rpc.RangeRequest(
            key=key,
            range_end=range_end,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            serializable=serializable,
            min_mod_revision=min_mod_revision,
        )
        try:
            response = await self._endpoints.read("range", request, revision=revision, any_member=serializable)
        except FutureRevision:
            if revision <= self._endpoints.revision_seen and not serializable:
                raise self._endpoints.rewound(f"the store has no revision {revision} any more") from None
            raise
        return Page(records(response.kvs), revision or response.header.revision, response.more, response.count)

    async def commit(self, txn: Txn) -> TxnResult:
        response = await self._endpoints.write("txn", txn_request(txn), self.config.commit_timeout_s)
        return txn_result(txn, response)

    def watch(
        self, key: bytes, range_end: bytes = b"", *, from_revision: int, deletes_only: bool = False
    ) -> EtcdWatch:
        return EtcdWatch(self._endpoints, key, range_end, from_revision, deletes_only=deletes_only)

    async def grant(self, ttl_s: int, lease: int) -> int:
        try:
            response = await self._endpoints.read("grant", rpc.LeaseGrantRequest(TTL=ttl_s, ID=lease))
            return int(response.TTL)
        except LeaseExists:
            response = await self._endpoints.read("time_to_live", rpc.LeaseTimeToLiveRequest(ID=lease), any_member=True)
            if response.TTL <= 0:
                raise errors.LeaseGone(f"lease {lease:x} has just ended") from None
            return int(response.grantedTTL)

    async def keep_alive(self, lease: int) -> int:
        request = rpc.LeaseKeepAliveRequest(ID=lease)
        failure: errors.LedgerError | None = None
        for _ in self._endpoints.all:
            endpoint = self._endpoints.current
            try:
                ttl_s = await self._renew(endpoint, request)
            except (errors.LedgerUnavailable, errors.WriteUnknown) as error:
                self._endpoints.blame(endpoint)
                failure = error
                continue
            if ttl_s <= 0:
                raise errors.LeaseGone(f"lease {lease:x} is gone")
            return ttl_s
        raise errors.LedgerUnavailable(f"the lease could not be renewed: {failure}") from failure

    async def revoke(self, lease: int) -> None:
        try:
            await self._endpoints.read("revoke", rpc.LeaseRevokeRequest(ID=lease))
        except errors.LeaseGone:
            return

    async def status(self) -> StoreStatus:
        """Ask all members at once. Sizes are the largest among them, the version is the oldest."""
        answers = await asyncio.gather(*map(self._status_of, self._endpoints.all), return_exceptions=True)
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not found:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        quotas = [quota for answer in found if (quota := quota_bytes(answer))]
        return StoreStatus(
            version=min((str(answer.version) for answer in found), key=release),
            revision=max(answer.header.revision for answer in found),
            bytes_total=max(answer.dbSize for answer in found),
            bytes_in_use=max(answer.dbSizeInUse for answer in found),
            no_space=any("NOSPACE" in text for answer in found for text in answer.errors),
            quota_bytes=min(quotas) if quotas else None,
            cluster_id=found[0].header.cluster_id,
        )

    async def compact(self, revision: int) -> None:
        try:
            await self._endpoints.read("compact", rpc.CompactionRequest(revision=revision), revision=revision)
        except errors.Compacted:
            return

    async def close(self) -> None:
        """End everything that is under way. Closing twice is harmless."""
        await self._endpoints.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _renew(self, endpoint: Member, request: Any) -> int:
        timeout_s = self.config.keep_alive_try_s
        if not await endpoint.ready(timeout_s):
            raise errors.LedgerUnavailable(f"{endpoint.url} accepts no connection")
        return int((await self._endpoints.call(endpoint, "keep_alive", request, timeout_s)).TTL)

    async def _status_of(self, endpoint: Member) -> Any:
        timeout_s = self.config.read_try_s
        if not await endpoint.ready(self.config.connect_timeout_s):
            raise errors.LedgerUnavailable(f"{endpoint.url} accepts no connection")
        try:
            return await self._endpoints.call(endpoint, "status", rpc.StatusRequest(), timeout_s, any_member=True)
        except errors.WriteUnknown as error:
            raise errors.LedgerUnavailable(f"{endpoint.url} does not answer: {error}") from None
