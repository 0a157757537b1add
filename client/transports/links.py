"""The way to the cluster: a link to one of several nodes, replaced by one to the next when it breaks."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterable
from typing import Protocol

import aiohttp

from ..errors import ClientClosed, ConfigError, ProtocolMismatch, ResultInvalid, RotaError, Unauthorized, Unreachable
from ..model import HEADER_SCHEMA_MAX, JOBS_PER_BUNDLE, RESULTS_SCHEMA_MAX
from ..settings.local import Local
from ..wire import frames as wire
from ..wire.codec import is_harmless
from ..wire.keyring import Keyring, Seal
from .direct import Address
from .link import Link
from .transport import Patience

CONNECT_S = 3.0

BACKOFF_S, BACKOFF_S_MAX = 0.05, 1.0
"""Between rounds in which no address answered."""

_FATAL = (Unauthorized, ProtocolMismatch, ConfigError)


class Listener(Protocol):
    """Who wants to know what links bring."""

    def push(self, results: Iterable[tuple[str, bytes]]) -> None: ...
    def refuse(self, bundles: Iterable[str], error: RotaError) -> None: ...
    def link_lost(self) -> None: ...


class Links:
    """Belongs to the event loop it is used on. Waits for an address at most `connect_s` where none has led to a node
    for so long."""

    def __init__(
        self, urls: Iterable[str], keyring: Keyring, token: str | None, tls: ssl.SSLContext | None,
        local: Local | None, connect_s: float, rng: random.Random, listener: Listener,
    ) -> None:
        self.urls = [url.rstrip("/") for url in urls]
        rng.shuffle(self.urls)              # many clients with the same list spread over the nodes
        self._rng = rng
        self._at = 0
        self._keyring = keyring
        self._headers = {
            wire.PROTOCOL_HEADER: str(wire.PROTOCOL), wire.RESULTS_HEADER: str(RESULTS_SCHEMA_MAX),
        }
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._tls = tls
        self._local = local
        self._listener = listener
        self._seal: Seal | None = None
        self._session: aiohttp.ClientSession | None = None
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._faults: dict[str, str] = {}
        self._misses = 0
        self._connect_s = connect_s
        self._down_since: float | None = None       # no address has led to a node since then
        self._round_ended: float | None = None      # when all of them had been tried in vain, the last time
        self._closed = False

    async def seal(self, patience: Patience) -> Seal:
        if self._seal is None:
            await self.by(patience)
        assert self._seal is not None
        return self._seal

    @property
    def jobs_per_bundle(self) -> int:
        """As the node says that this is linked to now, or was."""
        return self._link.hello.limits.jobs_per_bundle_max if self._link is not None else JOBS_PER_BUNDLE

    def address(self) -> Address | None:
        """Of the node that this is linked to now. May be called from any thread."""
        link = self._link
        return Address(link.url, {**self._headers, **link.headers}, self._tls) if link and not link.lost else None

    async def by(self, patience: Patience, *, unsure: bool = False) -> Link:
        """A link that works. Raises `Unreachable` when patience is over, or at once what no other address will mend."""
        if self._link is not None and not self._link.lost:
            return self._link
        entered = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(patience.until):
                while True:
                    async with self._connecting:    # for one address at a time: others may be less patient
                        if self._link is not None and not self._link.lost:
                            return self._link
                        if not unsure and self._is_hopeless(entered, patience.connect_s):
                            raise TimeoutError
                        await self._connect()
        except TimeoutError:
            faults = "; ".join(self._faults.values()) or f"no answer from {', '.join(self.urls)}"
            raise Unreachable(f"no node can be reached: {faults}. Is one running there? (ROTA_URL)") from None

    def _is_hopeless(self, entered: float, connect_s: float) -> bool:
        """Whether no address has led anywhere for so long, and each has been tried since `entered`. So who comes later
        does not wait all over again, and finds a node that has come back meanwhile."""
        round_ended, down_since = self._round_ended, self._down_since
        return down_since is not None and round_ended is not None and (
            round_ended >= entered and asyncio.get_running_loop().time() - down_since >= connect_s
        )

    async def _connect(self) -> None:
        """Try one address."""
        if self._closed:
            raise ClientClosed("the client was closed")
        if self._link is not None:
            lost, self._link = self._link, None
            self._at += 1
            await lost.close()
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
        url = self.urls[self._at % len(self.urls)]
        own = self._local.secrets(url) if self._local is not None else None
        headers = {"Authorization": f"Bearer {own.token}"} if own is not None else {}
        try:
            async with asyncio.timeout(CONNECT_S):
                link = await Link.open(
                    self.session(), url, self._received, self._listener.link_lost, headers
                )
        except TimeoutError:
            await self._missed(url, Unreachable(f"{url}: no answer within {CONNECT_S:g} s"))
            return
        except RotaError as error:      # a token that was found may be that of the node before: look again
            await self._missed(url, Unreachable(str(error)) if own and isinstance(error, Unauthorized) else error)
            return
        self._link = link
        keyring = own.keyring if own is not None else self._keyring
        if self._seal is None:
            self._seal = Seal(keyring, link.hello.cluster)
        elif self._seal.cluster == link.hello.cluster:
            self._seal.keyring = keyring        # one that was found may have changed with its node
        else:
            link.abandon()
            raise ConfigError(
                f"{url} belongs to the cluster {link.hello.cluster!r}, other addresses to {self._seal.cluster!r}: "
                "give one client the addresses of one cluster"
            )
        self._seal.whole = link.hello.limits.header_schema_max >= HEADER_SCHEMA_MAX
        self._faults.clear()
        self._misses = 0
        self._down_since = None

    async def _missed(self, url: str, error: RotaError) -> None:
        self._faults[url] = str(error)
        self._at += 1
        self._misses += 1
        rounds, rest = divmod(self._misses, len(self.urls))
        if isinstance(error, _FATAL) and len(self.urls) == len(self._faults):
            raise error
        if rest == 0:
            now = self._round_ended = asyncio.get_running_loop().time()
            left_s = self._connect_s - (now - self._down_since if self._down_since is not None else 0.0)
            pause_s = backoff_s(rounds, self._rng)
            await asyncio.sleep(min(pause_s, left_s) if left_s > 0 else pause_s)

    def _received(self, link: Link, results: Iterable[tuple[str, bytes]]) -> None:
        if self._keyring or link.is_local:
            self._listener.push(results)
            return
        for bundle, data in results:
            if is_harmless(data):
                self._listener.push([(bundle, data)])
            else:
                self._listener.refuse([bundle], ResultInvalid(without_a_key(f"the results of {bundle}", link.url)))

    def abandon(self) -> None:
        """Go on with the next address."""
        if self._link is not None:
            self._link.abandon()

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls or True)
            self._session = aiohttp.ClientSession(headers=self._headers, connector=connector)
        return self._session

    def stop(self) -> None:
        """No further link is made."""
        self._closed = True

    async def close(self) -> None:
        """After `stop`."""
        if self._link is not None:
            await self._link.close()
        if self._session is not None:
            await self._session.close()


def backoff_s(tries: int, rng: random.Random) -> float:
    """Before the next try; 0 where there was none."""
    if tries < 0:
        return 0.0
    return min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(tries, 10)) * rng.uniform(0.5, 1.0)


def without_a_key(what: str, url: str) -> str:
    return (
        f"{what} would come from {url}, which is not this machine, and without a key nobody can say whose they are: "
        "reading them could run anybody's code. Give the cluster's key file (ROTA_KEY_FILE, or key=...)"
    )
