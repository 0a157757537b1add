"""A member of etcd over `grpc.aio`, and the settings of all.

One channel per member and our own choice of the next (`endpoints.py`): gRPC's own failover notices a dead socket, but
no black hole.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import grpc.aio
from aetcd import rpc

from rota.client import errors

from .members import Metadata, RpcFailed

GRPC_ERRORS = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError, asyncio.CancelledError)

READY, FAILING = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE

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


Transport = Literal["http2", "grpc"]


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """Where etcd is and how long to wait for it."""

    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    """"http://host:port", "https://host:port" or "host:port", one per member. TLS where a certificate is set, too."""
    user: str = ""
    password: str = ""
    password_file: Path | None = None
    """Instead of `password`: read anew whenever etcd is asked for a token, since passwords change while nodes run."""
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
    transport: Transport = "http2"
    """Our own HTTP/2, or "grpc": `grpc.aio`. Both do the same; decision 33 says why there are two."""

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise errors.ConfigError("no etcd endpoint is given")
        for endpoint in self.endpoints:
            split_endpoint(endpoint)
        if bool(self.cert) != bool(self.key):
            raise errors.ConfigError("an etcd client certificate needs its key, and a key its certificate")
        if bool(self.user) != bool(self.password or self.password_file):
            raise errors.ConfigError("an etcd user needs a password, and a password a user")

    def secret(self) -> str:
        """The password as it is now. Raises `LedgerDenied` if its file cannot be read."""
        if self.password_file is None:
            return self.password
        try:
            return self.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise errors.LedgerDenied(f"etcd's password: {self.password_file} cannot be read ({error})") from None


def split_endpoint(endpoint: str) -> tuple[str, bool | None]:
    """("host:port", TLS or not, None if it does not say). Of `unix:///path`, what gRPC calls that."""
    if endpoint.startswith("unix:///"):
        return f"unix:{endpoint.removeprefix('unix://')}", False
    found = re.fullmatch(r"(?:(https?)://)?(\[[0-9a-fA-F:.]+\]|[^/:\s\[\]]+):(\d{1,5})/?", endpoint)
    if not found:
        raise errors.ConfigError(f"{endpoint!r} is no etcd endpoint: write http://host:2379 or https://host:2379")
    return f"{found[2]}:{found[3]}", None if found[1] is None else found[1] == "https"


class GrpcMember:
    """Implements `members.Member` over `grpc.aio`. Opened at first use, since a channel belongs to its event loop."""

    def __init__(self, url: str, config: EtcdConfig) -> None:
        self.url = url
        self.heard_at = 0.0
        self.writes = 0
        self._config = config
        self._channel: Any = None
        self._closed = False
        self._certificates_at = 0.0
        self._calls: dict[str, Callable[..., Any]] = {}

    async def call(self, name: str, request: Any, timeout_s: float, metadata: Metadata) -> Any:
        self._open()
        try:
            return await self._calls[name](request, timeout=timeout_s, metadata=metadata)
        except GRPC_ERRORS as error:
            raise _failed(error) from None

    def watch(self, metadata: Metadata) -> GrpcWatch:
        return GrpcWatch(rpc.WatchStub(self._open()).Watch(metadata=metadata))

    async def ready(self, timeout_s: float) -> bool:
        channel = self._open()
        state = channel.get_state(try_to_connect=True)
        if state is READY:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                while state not in (READY, FAILING):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
                if state is FAILING and self._certificates_at != _changed_at(self._config):
                    await self.reset()
        except (TimeoutError, grpc.aio.UsageError):     # the latter: it was closed meanwhile
            return False
        return True

    async def reset(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        self._closed = True
        await self.reset()

    def _open(self) -> Any:
        if self._channel is None:
            if self._closed:
                raise errors.LedgerUnavailable("the ledger is closed")
            self._channel = self._make_channel()
            self._calls = _calls_on(self._channel)
        return self._channel

    def _make_channel(self) -> Any:
        target, tls = split_endpoint(self.url)
        config = self._config
        options = list(OPTIONS)
        if not (tls or (tls is None and (config.ca_cert or config.cert))):
            return grpc.aio.insecure_channel(target, options=options)
        self._certificates_at = _changed_at(config)
        if config.server_name:
            options.append(("grpc.ssl_target_name_override", config.server_name))   # type: ignore[arg-type]
        return grpc.aio.secure_channel(target, _credentials(config), options=options)


class GrpcWatch:
    """Implements `members.WatchCall`."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, request: Any) -> None:
        try:
            await self._call.write(request)
        except GRPC_ERRORS as error:
            raise _failed(error) from None

    async def read(self) -> Any:
        try:
            response = await self._call.read()
            if response is grpc.aio.EOF:
                raise RpcFailed(await self._call.code(), await self._call.details())
        except GRPC_ERRORS as error:
            raise _failed(error) from None
        return response

    def cancel(self) -> None:
        self._call.cancel()


def _failed(error: BaseException) -> RpcFailed:
    """What gRPC raised, in our words. A channel that is closed cancels its calls: that is no cancellation of ours."""
    if isinstance(error, grpc.aio.AioRpcError):
        return RpcFailed(error.code(), error.details() or "")
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise error
        return RpcFailed(grpc.StatusCode.UNKNOWN, "the connection was closed before the answer came")
    if isinstance(error, grpc.aio.UsageError):
        return RpcFailed(
            grpc.StatusCode.UNAVAILABLE, f"the connection was closed before the call: {error}", sent=False
        )
    return RpcFailed(grpc.StatusCode.UNKNOWN, f"gRPC: {error}")


def _calls_on(channel: Any) -> dict[str, Callable[..., Any]]:
    kv, lease = rpc.KVStub(channel), rpc.LeaseStub(channel)
    return {
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
        "status": rpc.MaintenanceStub(channel).Status,
        "authenticate": rpc.AuthStub(channel).Authenticate,
    }


def _changed_at(config: EtcdConfig) -> float:
    """When the certificates last changed on disk: they are renewed while nodes run."""
    files = filter(None, (config.ca_cert, config.cert, config.key))
    return max((path.stat().st_mtime for path in files if path.exists()), default=0.0)


def _credentials(config: EtcdConfig) -> Any:
    def content(path: Path | None) -> bytes | None:
        try:
            return path.read_bytes() if path else None
        except OSError as error:
            raise errors.LedgerUnavailable(f"cannot read {path}: {error.strerror}") from error     # being renewed?

    return grpc.ssl_channel_credentials(content(config.ca_cert), content(config.key), content(config.cert))
