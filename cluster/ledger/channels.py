"""Connections to etcd's endpoints: which one to ask, when to turn to the next, and with whose token.

One channel per endpoint and our own choice of the next: gRPC's own failover notices a dead socket, but no black hole.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc

from rota.client import errors

from .translate import AuthDisabled, TokenRefused, translate

READY, FAILING, CLOSED = (
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
    grpc.ChannelConnectivity.SHUTDOWN,
)
RETRY_PAUSE_S = 0.1
REWOUND_PROOFS = 3
"""Reads in a row that answer from the past before we believe it: a member that was paused could answer stale until
3.5.28 and 3.6.9."""

OPTIONS = (
    ("grpc.max_receive_message_length", -1),    # a page of 10,000 jobs is over gRPC's 4 MiB
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 6000),           # etcd hangs up on pings more often than every 5 s
    ("grpc.keepalive_timeout_ms", 4000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3000),    # which is how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),                 # a repeated write is ours to decide
    ("grpc.enable_http_proxy", 0),              # etcd is not behind the web proxy of the environment
    ("grpc.use_local_subchannel_pool", 1),      # no sharing of sockets and back-offs with other ledgers of this process
)


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """Where etcd is and how long to wait for it."""

    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    """"http://host:port", "https://host:port" or "host:port", one per member. TLS where a certificate is set, too."""
    user: str = ""
    password: str = ""
    ca_cert: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""
    """The name to expect in the server's certificate, if it is not the host's."""
    connect_timeout_s: float = 2.0
    read_try_s: float = 2.5
    """How long one endpoint may take over a read before the next is asked (the last one has the rest)."""
    read_timeout_s: float = 8.0
    commit_timeout_s: float = 9.0
    """Above the server's own 7 s, so that the verdict is etcd's where it has one."""
    keep_alive_try_s: float = 1.0
    progress_interval_s: float = 1.0
    """How often a watch asks for progress; without any answer for three times as long it turns to the next endpoint."""
    shuffle: bool = True
    """Start at a random endpoint, so that nodes spread over the members."""

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise errors.ConfigError("no etcd endpoint is given")
        for endpoint in self.endpoints:
            split_endpoint(endpoint)
        if bool(self.cert) != bool(self.key):
            raise errors.ConfigError("an etcd client certificate needs its key, and a key its certificate")
        if bool(self.user) != bool(self.password):
            raise errors.ConfigError("an etcd user needs a password, and a password a user")


def split_endpoint(endpoint: str) -> tuple[str, bool | None]:
    """("host:port", TLS or not, None if it does not say)."""
    found = re.fullmatch(r"(?:(https?)://)?(\[[0-9a-fA-F:.]+\]|[^/:\s\[\]]+):(\d{1,5})/?", endpoint)
    if not found:
        raise errors.ConfigError(f"{endpoint!r} is no etcd endpoint: write http://host:2379 or https://host:2379")
    return f"{found[2]}:{found[3]}", None if found[1] is None else found[1] == "https"


class Endpoint:
    """One member: a channel and etcd's calls on it. Opened at first use, since a channel belongs to its event loop."""

    def __init__(self, url: str, config: EtcdConfig) -> None:
        self.url = url
        self._config = config
        self._channel: Any = None
        self.calls: dict[str, Callable[..., Any]] = {}

    def open(self) -> Any:
        if self._channel is None:
            self._channel = channel = self._make_channel()
            kv, lease = rpc.KVStub(channel), rpc.LeaseStub(channel)
            maintenance = rpc.MaintenanceStub(channel)
            self.calls = {
                "range": kv.Range,
                "txn": kv.Txn,
                "compact": kv.Compact,
                "grant": lease.LeaseGrant,
                "revoke": lease.LeaseRevoke,
                "time_to_live": lease.LeaseTimeToLive,
                # A stream of one request and one answer is a unary call on the wire, with a unary call's deadline.
                "keep_alive": channel.unary_unary(
                    "/etcdserverpb.Lease/LeaseKeepAlive",
                    request_serializer=rpc.LeaseKeepAliveRequest.SerializeToString,
                    response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
                ),
                "watch": rpc.WatchStub(channel).Watch,
                "status": maintenance.Status,
                "authenticate": rpc.AuthStub(channel).Authenticate,
            }
        return self._channel

    async def ready(self, timeout_s: float) -> bool:
        """Wait until it is connected, or known not to be (a call will then say why). False: nobody answered."""
        channel = self.open()
        state = channel.get_state(try_to_connect=True)
        if state is READY:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                while state not in (READY, FAILING, CLOSED):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close the channel, ending all that is under way on it. The next use opens a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _make_channel(self) -> Any:
        target, tls = split_endpoint(self.url)
        config = self._config
        options = list(OPTIONS)
        if not (tls or (tls is None and (config.ca_cert or config.cert))):
            return grpc.aio.insecure_channel(target, options=options)
        if config.server_name:
            options.append(("grpc.ssl_target_name_override", config.server_name))   # type: ignore[arg-type]
        return grpc.aio.secure_channel(target, _credentials(config), options=options)


def _credentials(config: EtcdConfig) -> Any:
    def content(path: Path | None) -> bytes | None:
        try:
            return path.read_bytes() if path else None
        except OSError as error:
            raise errors.ConfigError(f"cannot read {path}: {error.strerror}") from error

    return grpc.ssl_channel_credentials(content(config.ca_cert), content(config.key), content(config.cert))


class Endpoints:
    """All members: calls go to the current one; a failure turns to the next."""

    def __init__(self, config: EtcdConfig) -> None:
        self.config = config
        self.all = [Endpoint(url, config) for url in config.endpoints]
        self.closed = False
        self.revision_seen = 0
        self._current = random.randrange(len(self.all)) if config.shuffle else 0
        self._cluster_id = 0
        self._rewound: str | None = None
        self._authenticating = asyncio.Lock()
        self._token: str | None = None      # None: not asked for yet; "": none needed
        self._metadata, self._metadata_any = _metadata("")

    @property
    def current(self) -> Endpoint:
        return self.all[self._current]

    def blame(self, endpoint: Endpoint) -> None:
        """Turn to the next endpoint, if this one still is the current one."""
        if self.current is endpoint:
            self._current = (self._current + 1) % len(self.all)

    async def connected(self) -> Endpoint:
        """A connected endpoint, preferably the current one. Raises LedgerUnavailable if there is none."""
        for _ in self.all:
            endpoint = self.current
            if await endpoint.ready(self.config.connect_timeout_s):
                return endpoint
            self.blame(endpoint)
        raise errors.LedgerUnavailable(f"no etcd endpoint accepts connections: {', '.join(self.config.endpoints)}")

    async def write(self, name: str, request: Any, timeout_s: float) -> Any:
        """Send one write, once: on to the next endpoint only while it is certain that it was not sent."""
        failure: errors.LedgerError = errors.LedgerUnavailable("no etcd endpoint could be reached")
        for _ in self.all:
            endpoint = await self.connected()
            seen = self.revision_seen
            try:
                response = await self.call(endpoint, name, request, timeout_s)
            except errors.LedgerUnavailable as error:
                self.blame(endpoint)
                failure = error
            except errors.WriteUnknown:
                self.blame(endpoint)
                raise
            else:
                self._check(response.header, seen)
                return response
        raise failure

    async def read(
        self, name: str, request: Any, *, revision: int = 0, any_member: bool = False, try_s: float | None = None
    ) -> Any:
        """Ask until an endpoint answers. `any_member` takes the answer of one without a leader; it may be stale."""
        pause = _Pause(self, self.config.read_timeout_s)
        stale = 0
        while True:
            endpoint = self.current
            seen = self.revision_seen
            timeout_s = min(pause.left_s, try_s or (self.config.read_try_s if len(self.all) > 1 else pause.left_s))
            try:
                if not await endpoint.ready(min(timeout_s, self.config.connect_timeout_s)):
                    raise errors.LedgerUnavailable(f"{endpoint.url} accepts no connection")
                response = await self.call(endpoint, name, request, timeout_s, revision, any_member)
                if not any_member:
                    self._check_cluster(response.header)
                    if response.header.revision < seen:
                        stale += 1
                        if stale >= REWOUND_PROOFS:
                            self._check(response.header, seen)
                        raise errors.LedgerUnavailable(f"{endpoint.url} answers from the past")
                    self.revision_seen = max(self.revision_seen, response.header.revision)
                return response
            except (errors.LedgerUnavailable, errors.WriteUnknown) as error:
                await pause.after(error, endpoint)

    async def call(
        self,
        endpoint: Endpoint,
        name: str,
        request: Any,
        timeout_s: float,
        revision: int = 0,
        any_member: bool = False,
    ) -> Any:
        """One call on one endpoint, repeated only when the token was refused."""
        if self._rewound:
            raise errors.StoreRewound(self._rewound)
        if self.closed:
            raise errors.LedgerUnavailable("the ledger is closed")
        if self._token is None and self.config.user:
            await self._authenticate(endpoint, None)
        token = self._token
        try:
            return await self._send(endpoint, name, request, timeout_s, revision, any_member)
        except TokenRefused:
            if not self.config.user:
                raise
            await self._authenticate(endpoint, token)
            return await self._send(endpoint, name, request, timeout_s, revision, any_member)

    def metadata(self, any_member: bool = False) -> Any:
        """Token, and the demand that the member has a leader: one cut off from the others must refuse, not wait."""
        return self._metadata_any if any_member else self._metadata

    async def refresh_token(self, endpoint: Endpoint) -> bool:
        """Authenticate again, for streams. False if there is no user to authenticate."""
        if not self.config.user:
            return False
        await self._authenticate(endpoint, self._token)
        return True

    async def close(self) -> None:
        self.closed = True
        for endpoint in self.all:
            await endpoint.close()

    def check_stream(self, header: Any) -> None:
        """Check the header of a watch's answer: another store is never the same one again."""
        self._check_cluster(header)
        self.revision_seen = max(self.revision_seen, header.revision)

    def rewound(self, text: str) -> errors.StoreRewound:
        """Remember that the store went back: whatever was read from it is void, so nothing may be written any more."""
        self._rewound = text
        return errors.StoreRewound(text)

    def _check(self, header: Any, seen: int) -> None:
        self._check_cluster(header)
        if header.revision < seen:
            raise self.rewound(f"the store is at revision {header.revision}, but was at {seen} before")
        self.revision_seen = max(self.revision_seen, header.revision)

    def _check_cluster(self, header: Any) -> None:
        if header.cluster_id != self._cluster_id:
            if self._cluster_id:
                raise self.rewound(f"this is another store (cluster {header.cluster_id:x}, not {self._cluster_id:x})")
            self._cluster_id = header.cluster_id

    async def _send(
        self, endpoint: Endpoint, name: str, request: Any, timeout_s: float, revision: int, any_member: bool
    ) -> Any:
        endpoint.open()
        return await self._translated(
            endpoint.calls[name](request, timeout=timeout_s, metadata=self.metadata(any_member)), revision
        )

    async def _translated(self, call: Awaitable[Any], revision: int = 0) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise translate(error.code(), error.details(), revision=revision) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise errors.WriteUnknown("the connection was closed before the answer came") from None

    async def _authenticate(self, endpoint: Endpoint, refused: str | None) -> None:
        """Get a token, unless someone got another than the refused one meanwhile: each costs etcd 100 ms of CPU."""
        async with self._authenticating:
            if self._token != refused:
                return
            endpoint.open()
            request = rpc.AuthenticateRequest(name=self.config.user, password=self.config.password)
            call = endpoint.calls["authenticate"](request, timeout=self.config.read_timeout_s)
            try:
                self._set_token((await self._translated(call)).token)
            except AuthDisabled:
                self._set_token("")
            except errors.WriteUnknown as error:
                raise errors.LedgerUnavailable(f"authentication: {error}") from None

    def _set_token(self, token: str) -> None:
        self._token = token
        self._metadata, self._metadata_any = _metadata(token)


def _metadata(token: str) -> tuple[Any, Any]:
    """With and without the demand for a leader."""
    pairs = (("token", token),) if token else ()
    return grpc.aio.Metadata(("hasleader", "true"), *pairs), grpc.aio.Metadata(*pairs)


class _Pause:
    """The patience of a read: an endpoint failed, is there time for another try?"""

    def __init__(self, endpoints: Endpoints, timeout_s: float) -> None:
        self._endpoints = endpoints
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + timeout_s
        self._failures = 0

    @property
    def left_s(self) -> float:
        return max(self._deadline - self._loop.time(), 0.05)

    async def after(self, error: errors.LedgerError, endpoint: Endpoint) -> None:
        """Turn to the next endpoint; pause once all have failed. Raises LedgerUnavailable when the time is over."""
        endpoints = self._endpoints
        endpoints.blame(endpoint)
        self._failures += 1
        if endpoints.closed or self._loop.time() + RETRY_PAUSE_S >= self._deadline:
            raise errors.LedgerUnavailable(f"no etcd endpoint answered in time: {error}") from error
        if self._failures % len(endpoints.all) == 0:
            await asyncio.sleep(RETRY_PAUSE_S)
