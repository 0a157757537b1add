"""A member of etcd over our own HTTP/2: connects when it is needed, and says why when it cannot."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aetcd import rpc
from grpc import StatusCode

from rota.client import errors

from ..channels import EtcdConfig, split_endpoint
from ..members import Metadata, RpcFailed
from .calls import Stream
from .connection import Connection, connect
from .headers import request_block

ATTEMPT_S = 3.0
"""How long one attempt to connect may take."""
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 1.0
BLOCKS_KEPT = 100

CALLS: dict[str, tuple[str, Any]] = {
    "range": ("KV/Range", rpc.RangeResponse),
    "txn": ("KV/Txn", rpc.TxnResponse),
    "compact": ("KV/Compact", rpc.CompactionResponse),
    "grant": ("Lease/LeaseGrant", rpc.LeaseGrantResponse),
    "revoke": ("Lease/LeaseRevoke", rpc.LeaseRevokeResponse),
    "time_to_live": ("Lease/LeaseTimeToLive", rpc.LeaseTimeToLiveResponse),
    # A stream of one request and one answer is a unary call on the wire.
    "keep_alive": ("Lease/LeaseKeepAlive", rpc.LeaseKeepAliveResponse),
    "status": ("Maintenance/Status", rpc.StatusResponse),
    "authenticate": ("Auth/Authenticate", rpc.AuthenticateResponse),
}
"""The calls that have one answer: the path below etcdserverpb, and the answer's message."""


class Http2Member:
    """Implements `members.Member`."""

    def __init__(self, url: str, config: EtcdConfig) -> None:
        self.url = url
        self.heard_at = 0.0
        self.writes = 0
        self._config = config
        self._target, tls = split_endpoint(url)
        self._authority = "localhost" if self._target.startswith("unix:") else self._target
        self._tls = bool(tls or (tls is None and (config.ca_cert or config.cert)))
        self._connection: Connection | None = None
        self._before: set[Connection] = set()       # that were told to go, and still answer what they had
        self._attempt: asyncio.Task[None] | None = None
        self._failure = ""
        self._failed_at = 0.0
        self._backoff_s = BACKOFF_MIN_S
        self._closed = False
        self._blocks: dict[tuple[str, Metadata], bytes] = {}

    async def ready(self, timeout_s: float) -> bool:
        if self._usable() is not None:
            return True
        attempt = self._connect()
        await asyncio.wait([attempt], timeout=timeout_s)
        return attempt.done()

    async def call(self, name: str, request: Any, timeout_s: float, metadata: Metadata) -> Any:
        path, answer = CALLS[name]
        connection = self._usable() or await self._connected(timeout_s)
        block = self._blocks.get((path, metadata)) or self._block(path, metadata)
        return answer.FromString(await connection.unary(block, request.SerializeToString(), timeout_s))

    def watch(self, metadata: Metadata) -> Http2Watch:
        return Http2Watch(self, self._block("Watch/Watch", metadata))

    async def open(self, block: bytes) -> Stream:
        """A stream. Raises `RpcFailed`."""
        return (self._usable() or await self._connected(ATTEMPT_S)).stream(block)

    async def reset(self) -> None:
        connection, self._connection = self._connection, None
        for open_ in (connection, *self._before):
            if open_ is not None:
                open_.close()
        self._before.clear()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
            await asyncio.wait([attempt])

    async def close(self) -> None:
        self._closed = True
        await self.reset()

    def _usable(self) -> Connection | None:
        connection = self._connection
        if connection is None or connection.usable:
            return connection
        self._before = {one for one in (*self._before, connection) if one.lost is None}
        self._connection = None
        return None

    async def _connected(self, timeout_s: float) -> Connection:
        await asyncio.wait([self._connect()], timeout=timeout_s)
        connection = self._usable()
        if connection is None:
            why = self._failure or f"failed to connect to {self.url}: no answer within {timeout_s:g} s"
            raise RpcFailed(StatusCode.UNAVAILABLE, why, sent=False)
        return connection

    def _connect(self) -> asyncio.Task[None]:
        """The attempt that is under way, or a new one."""
        if self._closed:
            raise errors.LedgerUnavailable("the ledger is closed")
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.get_running_loop().create_task(self._try(), name=f"connect to {self.url}")
        return self._attempt

    async def _try(self) -> None:
        """Never raises: why it failed is kept for those who call."""
        loop = asyncio.get_running_loop()
        if self._failure and loop.time() < self._failed_at + self._backoff_s:
            return
        try:
            self._connection = await connect(
                self._target, tls=self._context() if self._tls else None,
                server_name=self._config.server_name or None, timeout_s=ATTEMPT_S,
            )
        except (OSError, ValueError, OverflowError, RpcFailed, errors.LedgerUnavailable) as error:   # (names, ports)
            why = error.details if isinstance(error, RpcFailed) else str(error) or f"no answer within {ATTEMPT_S:g} s"
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S) if self._failure else BACKOFF_MIN_S
            self._failure, self._failed_at = f"failed to connect to {self.url}: {why}", loop.time()
        else:
            self._failure = ""

    def _context(self) -> ssl.SSLContext:
        """Made for each attempt: certificates are renewed while nodes run."""
        config = self._config
        for path in filter(None, (config.ca_cert, config.cert, config.key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise errors.LedgerUnavailable(f"cannot read {path}: {error.strerror}") from error
        context = ssl.create_default_context(cafile=config.ca_cert)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.cert:
            context.load_cert_chain(config.cert, config.key)
        context.set_alpn_protocols(["h2"])
        return context

    def _block(self, path: str, metadata: Metadata) -> bytes:
        if len(self._blocks) >= BLOCKS_KEPT:
            self._blocks.clear()        # tokens change
        block = request_block(self._authority, f"/etcdserverpb.{path}", tls=self._tls, metadata=metadata)
        self._blocks[path, metadata] = block
        return block


class Http2Watch:
    """Implements `members.WatchCall`."""

    def __init__(self, member: Http2Member, block: bytes) -> None:
        self._member, self._block = member, block
        self._stream: Stream | None = None

    async def write(self, request: Any) -> None:
        if self._stream is None:
            self._stream = await self._member.open(self._block)
        self._stream.write(request.SerializeToString())

    async def read(self) -> Any:
        if self._stream is None:
            raise RpcFailed(StatusCode.CANCELLED, "a watch that asks for nothing", sent=False)
        return rpc.WatchResponse.FromString(await self._stream.read())

    def cancel(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
