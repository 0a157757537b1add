"""All members of etcd: which one to ask, when to turn to the next, and with whose token.

Also the place where it shows that the store is not the one it was: every answer's header is checked here.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from aetcd import rpc

from rota.client import errors

from .channels import EtcdConfig, GrpcMember
from .http2.member import Http2Member
from .members import Member, Metadata, RpcFailed
from .translate import AuthDisabled, TokenRefused, meaning

RETRY_PAUSE_S = 0.1
AUTHENTICATE_TIMEOUT_S = 5.0
"""A password costs etcd 100 ms of CPU, and after a restart all nodes ask at once."""

REFUSED_AGAIN_S = 5.0
"""A password that etcd has refused is tried again after this, unless it has changed: then at once."""

REWOUND_PROOFS = 3
"""Reads in a row that answer from the past before we believe it: a member that was paused could answer stale until
3.5.28 and 3.6.9."""


class Endpoints:
    """All members: calls go to the current one; a failure turns to the next."""

    def __init__(self, config: EtcdConfig) -> None:
        self.config = config
        member = GrpcMember if config.transport == "grpc" else Http2Member
        self.all: list[Member] = [member(url, config) for url in config.endpoints]
        self.closed = False
        self.revision_seen = 0
        self._current = random.randrange(len(self.all)) if config.shuffle else 0
        self._cluster_id = 0
        self._rewound: str | None = None
        self._guardian: asyncio.Task[None] | None = None
        self._authenticating = asyncio.Lock()
        self._refusal: tuple[str, float, errors.LedgerDenied] | None = None     # of which password, until when, and how
        self._token: str | None = None      # None: not asked for yet; "": none needed
        self._metadata, self._metadata_any = _metadata("")

    @property
    def current(self) -> Member:
        return self.all[self._current]

    def blame(self, endpoint: Member) -> None:
        """Turn to the next endpoint, if this one still is the current one."""
        if self.current is endpoint:
            self._current = (self._current + 1) % len(self.all)

    async def connected(self) -> Member:
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
            if self._guardian is None and len(self.all) > 1:
                self._guardian = asyncio.create_task(self._end_silence(), name="etcd silence")
            seen = self.revision_seen
            endpoint.writes += 1
            try:
                response = await self.call(endpoint, name, request, timeout_s)
            except errors.LedgerDenied:
                raise
            except errors.LedgerUnavailable as error:
                self.blame(endpoint)
                failure = error
            except errors.WriteUnknown:
                self.blame(endpoint)
                raise
            else:
                self._check(response.header, seen)
                return response
            finally:
                endpoint.writes -= 1
        raise failure

    async def read(self, name: str, request: Any, *, revision: int = 0, any_member: bool = False) -> Any:
        """Ask until an endpoint answers. `any_member` takes the answer of one without a leader; it may be stale."""
        pause = _Pause(self)
        stale = 0
        while True:
            endpoint = self.current
            seen = self.revision_seen
            timeout_s = pause.try_s
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
            except errors.LedgerDenied:
                raise               # by all of them
            except (errors.LedgerUnavailable, errors.WriteUnknown) as error:
                await pause.after(error, endpoint)

    async def call(
        self,
        endpoint: Member,
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
            return await self._send(endpoint, name, request, timeout_s, self.metadata(any_member), revision)
        except TokenRefused:
            if not self.config.user:
                raise
            await self._authenticate(endpoint, token)
            return await self._send(endpoint, name, request, timeout_s, self.metadata(any_member), revision)

    def metadata(self, any_member: bool = False) -> Metadata:
        """Token, and the demand that the member has a leader: one cut off from the others must refuse, not wait."""
        return self._metadata_any if any_member else self._metadata

    async def refresh_token(self, endpoint: Member) -> bool:
        """Authenticate again, for streams. False if there is no user to authenticate."""
        if not self.config.user:
            return False
        await self._authenticate(endpoint, self._token)
        return True

    async def close(self) -> None:
        self.closed = True
        if self._guardian is not None:
            self._guardian.cancel()
            await asyncio.gather(self._guardian, return_exceptions=True)
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

    async def _end_silence(self) -> None:
        """Free the writes that wait for an endpoint which has fallen silent: with another one to turn to, they need not
        sit out their long deadline."""
        interval_s = self.config.progress_interval_s
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(interval_s)
            for endpoint in self.all:
                if endpoint.writes and loop.time() - endpoint.heard_at > interval_s:
                    try:
                        await self.call(endpoint, "status", rpc.StatusRequest(), 2 * interval_s, any_member=True)
                    except errors.WriteUnknown:
                        self.blame(endpoint)
                        await endpoint.reset()
                    except errors.LedgerError:
                        pass    # it spoke

    async def _send(
        self, endpoint: Member, name: str, request: Any, timeout_s: float, metadata: Metadata, revision: int = 0
    ) -> Any:
        """One call, with its errors turned into ours."""
        try:
            response = await endpoint.call(name, request, timeout_s, metadata)
        except RpcFailed as error:
            raise meaning(error, revision=revision) from None
        endpoint.heard_at = asyncio.get_running_loop().time()
        return response

    async def _authenticate(self, endpoint: Member, refused: str | None) -> None:
        """Get a token, unless someone got another than the refused one meanwhile: each costs etcd 100 ms of CPU."""
        async with self._authenticating:
            if self._token != refused:
                return
            password = self.config.secret()
            now = asyncio.get_running_loop().time()
            if self._refusal is not None and self._refusal[0] == password and now < self._refusal[1]:
                raise self._refusal[2].with_traceback(None)
            request = rpc.AuthenticateRequest(name=self.config.user, password=password)
            try:
                answer = await self._send(endpoint, "authenticate", request, AUTHENTICATE_TIMEOUT_S, ())
                self._set_token(answer.token)
            except AuthDisabled:
                self._set_token("")
            except errors.LedgerDenied as error:
                self._refusal = password, now + REFUSED_AGAIN_S, error
                raise
            except errors.WriteUnknown as error:
                raise errors.LedgerUnavailable(f"authentication: {error}") from None

    def _set_token(self, token: str) -> None:
        self._token, self._refusal = token, None
        self._metadata, self._metadata_any = _metadata(token)


def _metadata(token: str) -> tuple[Metadata, Metadata]:
    """With and without the demand for a leader."""
    pairs = (("token", token),) if token else ()
    return (("hasleader", "true"), *pairs), pairs


class _Pause:
    """The patience of a read: an endpoint failed, is there time for another try?"""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + endpoints.config.read_timeout_s
        self._failures = 0

    @property
    def try_s(self) -> float:
        """How long the next try may take: longer each time, for it may be the read that is large, not the endpoint that
        is silent."""
        left_s = max(self._deadline - self._loop.time(), 0.05)
        if len(self._endpoints.all) == 1:
            return left_s
        return min(left_s, self._endpoints.config.read_try_s * (1 + self._failures))

    async def after(self, error: errors.LedgerError, endpoint: Member) -> None:
        """Turn to the next endpoint; pause once all have failed. Raises LedgerUnavailable when the time is over."""
        endpoints = self._endpoints
        endpoints.blame(endpoint)
        self._failures += 1
        if endpoints.closed or self._loop.time() + RETRY_PAUSE_S >= self._deadline:
            raise errors.LedgerUnavailable(f"no etcd endpoint answered in time: {error}") from error
        if self._failures % len(endpoints.all) == 0:
            await asyncio.sleep(RETRY_PAUSE_S)
