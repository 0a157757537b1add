"""The transport of an application: a link to one of several nodes, replaced by one to the next node when it breaks.

Everything it asks can be asked again, of any node: bundles carry their ids, and a receipt answers a repeat. So whatever
is unanswered when a link breaks goes out again, unchanged, until the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Iterable
from itertools import count
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from ..calls.watching import Watch
from ..errors import (
    EnqueueUnknown,
    Overloaded,
    QueueFull,
    RotaError,
    SignatureRefused,
    Unreachable,
)
from ..model import UNREADABLE, Enqueue, Mode, QueueInfo, Receipt
from ..settings.config import CONNECT_TIMEOUT_S, RETRY_WINDOW_S
from ..settings.hosts import is_loopback
from ..settings.local import Local
from ..wire import frames as wire
from ..wire.frames import NodeFault
from ..wire.keyring import Keyring, Seal
from ..wire.views import EventsPage, JobView
from .direct import Address
from .following import Following
from .link import Link, LinkLost
from .links import Links, backoff_s, without_a_key
from .transport import Follower, Patience

T = TypeVar("T")

ANSWER_S = 10.0
"""How long to wait for one node's answer while there are others to ask, and for a page."""

LISTED_MAX = 1_000
"""Items that a node lists at a time."""

UNSURE_S = 0.5
"""Room in a full queue is not asked for so shortly before the end: without an answer one would not know."""

MISSES_MAX, MISS_FORGOTTEN_S = 10, 30.0
"""How often in a row a watched job may find no node before its watcher is told."""

UNSURE = (LinkLost, NodeFault, EnqueueUnknown)
_RETRIED = (*UNSURE, Overloaded)


class Connection:
    """A `Transport` over WebSocket. Belongs to the event loop it is made on."""

    def __init__(
        self,
        urls: Iterable[str],
        keyring: Keyring,
        token: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        local: Local | None = None,
        connect_s: float = CONNECT_TIMEOUT_S,
        retry_s: float = RETRY_WINDOW_S,
        rng: random.Random | None = None,
    ) -> None:
        rng = rng or random.Random()
        self._keyring = keyring
        self._following = Following(self._link_to_follow, retry_s)
        self._links = Links(urls, keyring, token, tls, local, connect_s, rng, self._following)
        self._connect_s = connect_s
        self._rng = rng

    # -- requests

    async def seal(self, patience: Patience) -> Seal:
        return await self._links.seal(patience)

    @property
    def jobs_per_bundle(self) -> int:
        return self._links.jobs_per_bundle

    def address(self) -> Address | None:
        """Of the node that this is linked to now. May be called from any thread."""
        return self._links.address()

    async def enqueue(
        self, bundles: list[Enqueue], seen_revision: int, patience: Patience, *, tried: bool = False
    ) -> list[Receipt | RotaError]:
        """`tried`: they have been handed over already, without a definite answer."""
        answers: dict[int, Receipt | RotaError] = {}
        todo = list(range(len(bundles)))
        unsure = set(todo) if tried else set[int]()     # handed over at least once without a definite answer
        for tries in count():
            request = wire.EnqueueRequest(0, seen_revision, [bundles[i] for i in todo])
            try:
                reply = await self._ask(request, wire.EnqueueReply, patience, unsure=bool(unsure))
                found = outcomes(reply, len(todo))
            except RotaError as error:
                found = [error] * len(todo)
            answers.update(zip(todo, found, strict=True))
            unsure.update(i for i in todo if isinstance(answers[i], UNSURE))
            todo = [i for i in todo if is_asked_again(answers[i])]
            if not todo or not await self._pause(answers[todo[0]], tries, patience):
                break
        for i, answer in answers.items():
            if i in unsure and isinstance(answer, (*_RETRIED, Unreachable, QueueFull)):
                answers[i] = EnqueueUnknown(bundles[i].bundle)
        return [answers[i] for i in range(len(bundles))]

    async def put_function(self, digest: str, code: bytes, patience: Patience) -> None:
        link = await self._links.by(patience)
        if digest not in link.functions:
            blob = (await self.seal(patience)).function(code)
            await self._ask_until(wire.FunctionRequest(0, digest, blob), wire.Done, patience)
            link.functions.add(digest)      # if meanwhile another link took it: the cluster has it

    async def task_mode(self, task: str, patience: Patience) -> Mode | None:
        return (await self._ask_until(wire.TaskModeRequest(0, task), wire.TaskModeReply, patience)).mode

    async def declare(self, queue: QueueInfo, patience: Patience) -> None:
        path, changes = f"/v1/queues/{quote(queue.name, safe='')}", queue.settings
        for tries in count():
            try:
                await self.post(path, changes, dict[str, Any])
            except (Unreachable, Overloaded) as error:      # saying it twice is harmless
                if not await self._pause(error, tries, patience):
                    raise Unreachable(f"queue {queue.name} could not be declared: {error}") from None
            else:
                return

    def follow(self, bundles: Iterable[str], follower: Follower) -> None:
        self._following.follow(bundles, follower)

    def unfollow(self, bundles: Iterable[str]) -> None:
        self._following.unfollow(bundles)

    async def news(self, watch: Watch) -> EventsPage:
        """What is new of a job that is watched, from whichever node there is. Raises `Unreachable`, or `Overloaded`,
        after `MISSES_MAX` misses, each soon after the other; and what no other node will mend."""
        loop, misses, last_s = asyncio.get_running_loop(), 0, 0.0
        while True:
            try:
                return await watch.page(await self._links.by(Patience(loop.time() + ANSWER_S, self._connect_s)))
            except (*_RETRIED, Unreachable) as error:
                now_s = loop.time()
                misses, last_s = misses + 1 if now_s - last_s < MISS_FORGOTTEN_S else 1, now_s
                if misses > MISSES_MAX:
                    raise error if isinstance(error, Overloaded | Unreachable) else Unreachable(str(error)) from None
                if isinstance(error, Overloaded) and len(self._links.urls) > 1:
                    self._links.abandon()       # another one may have room
                pause_s = error.retry_after_s if isinstance(error, Overloaded) else backoff_s(misses, self._rng)
                await asyncio.sleep(min(pause_s, MISS_FORGOTTEN_S / 2))

    async def job(self, job_id: str) -> JobView:
        return await self.get(f"/v1/jobs/{job_id}", JobView)

    async def get(self, path: str, kind: type[T]) -> T:
        """One of the JSON pages that nodes serve, from the first node that answers."""
        return msgspec.json.decode(await self.fetch(path), type=kind)

    async def listed(self, path: str, item: type[T], limit: int) -> list[T]:
        """Up to `limit` items of a list that nodes serve in parts."""
        items: list[T] = []
        part = f"{path}limit={min(limit, LISTED_MAX)}"
        while part and len(items) < limit:
            body, part = await self._look(part)
            items += msgspec.json.decode(body, type=list[item])  # type: ignore[valid-type]
        return items[:limit]

    async def fetch_to_unpickle(self, path: str) -> bytes:
        """The same, of what may be read by unpickling it. Raises `SignatureRefused` where it could not be told whose it
        is: a name may stand for one machine now and for another one a moment later."""
        strangers = [url for url in self._links.urls if not is_loopback(urlsplit(url).hostname or "")]
        if strangers and not self._keyring:
            raise SignatureRefused(without_a_key(path, strangers[0]))
        return await self.fetch(path)

    async def fetch(self, path: str) -> bytes:
        """What a node answers to a GET."""
        return (await self._look(path))[0]

    async def _look(self, path: str) -> tuple[bytes, str]:
        """The answer to a GET, and the path of the next part of it, if there is one."""
        patience = Patience(asyncio.get_running_loop().time() + ANSWER_S, self._connect_s)
        for tries in count(1):
            link = await self._links.by(patience)
            try:
                async with asyncio.timeout_at(patience.until), self._get(link, path) as response:
                    body = await response.read()
                if response.status < 300:
                    following = response.links.get("next")
                    parts = urlsplit(str(following["url"])) if following is not None else None
                    return body, f"{parts.path}?{parts.query}" if parts is not None else ""
                if not self._cut_off(response.status, tries):
                    raise _error_in(body, response)
                link.abandon()
            except TimeoutError:
                raise Unreachable(f"{link.url}{path}: no answer within {ANSWER_S:g} s") from None
            except (OSError, aiohttp.ClientError):
                link.abandon()
        raise AssertionError("count() never ends")

    def _cut_off(self, status: int, tries: int) -> bool:
        """Whether a node could not do now what another one may: each is asked once."""
        return status == 503 and tries < len(self._links.urls)

    async def post(self, path: str, body: object, kind: type[T]) -> T:
        """Ask for something to be done: by another node if one certainly did not do it, never twice."""
        patience = Patience(asyncio.get_running_loop().time() + ANSWER_S, self._connect_s)
        data = msgspec.json.encode(body)
        for tries in count(1):
            link = await self._links.by(patience)
            try:
                async with (
                    asyncio.timeout_at(patience.until),
                    self._links.session().post(
                        link.url + path, data=data, headers=link.headers, allow_redirects=False
                    ) as response,
                ):
                    answer = await response.read()
                if response.status < 300:
                    return msgspec.json.decode(answer, type=kind)
                if not self._cut_off(response.status, tries):
                    raise _error_in(answer, response)
                link.abandon()
            except Overloaded as error:         # it has no identity now: nothing was done
                if not await self._pause(error, 0, patience):
                    raise
                link.abandon()
            except aiohttp.ClientConnectorError:
                link.abandon()
            except (TimeoutError, OSError, aiohttp.ClientError) as error:
                raise Unreachable(
                    f"{link.url}{path}: no answer ({type(error).__name__}); it may have been carried out: have a look"
                ) from None
        raise AssertionError("count() never ends")

    async def close(self) -> None:
        self._links.stop()
        await self._following.close()
        await self._links.close()

    async def _link_to_follow(self, until: float) -> Link:
        return await self._links.by(Patience(until, self._connect_s), unsure=True)

    async def _ask_until(self, request: wire.Request, reply: type[T], patience: Patience) -> T:
        """Ask until there is a definite answer."""
        for tries in count():
            try:
                return await self._ask(request, reply, patience)
            except _RETRIED as error:
                if not await self._pause(error, tries, patience):
                    raise Unreachable(str(error)) from None
        raise AssertionError("count() never ends")

    async def _ask(self, request: wire.Request, reply: type[T], patience: Patience, *, unsure: bool = False) -> T:
        """Ask one node, once. `unsure`: somebody has been asked the same, and may have carried it out."""
        link = await self._links.by(patience, unsure=unsure)
        elsewhere = len(self._links.urls) > 1
        until = patience.until
        if elsewhere:
            until = min(until, asyncio.get_running_loop().time() + ANSWER_S)
        try:
            answer = await link.ask(request, until)
        except TimeoutError:
            if elsewhere:
                link.abandon()              # it is alive, but stuck: perhaps cut off from the store
            raise LinkLost(f"the node at {link.url} gave no answer in time") from None
        except Overloaded:
            if elsewhere:
                link.abandon()              # the node as a whole cannot now
            raise
        if not isinstance(answer, reply):
            link.abandon()
            raise LinkLost(f"the node at {link.url} answered with a {type(answer).__name__}")
        return answer

    async def _pause(self, why: object, tries: int, patience: Patience) -> bool:
        """Wait before asking again: as long as the node said, or ever longer; not at all after the first lost link.
        False if the deadline comes first."""
        if isinstance(why, Overloaded | QueueFull):
            pause_s = why.retry_after_s * self._rng.uniform(0.5, 1.5)
        else:
            pause_s = backoff_s(tries - isinstance(why, LinkLost), self._rng)
        left_s = UNSURE_S if isinstance(why, QueueFull) else 0.0
        if asyncio.get_running_loop().time() + pause_s >= patience.until - left_s:
            return False
        await asyncio.sleep(pause_s)
        return True

    def _get(self, link: Link, path: str) -> aiohttp.client._RequestContextManager:
        return self._links.session().get(link.url + path, headers=link.headers, allow_redirects=False)

def is_asked_again(answer: Receipt | RotaError) -> bool:
    """Whether another answer may come, of a node that can, or of a queue that has room then."""
    return isinstance(answer, _RETRIED) or (isinstance(answer, QueueFull) and answer.waits)


def outcomes(reply: wire.EnqueueReply, count: int) -> list[Receipt | RotaError]:
    found: list[Receipt | RotaError] = []
    for place in range(count):
        receipt = reply.receipts[place] if place < len(reply.receipts) else None
        refusal = reply.refusals.get(place)
        found.append(receipt or (wire.error_of(refusal) if refusal else NodeFault("the node left out an answer")))
    return found


class _Page(msgspec.Struct):
    error: str = ""
    message: str = ""


def _error_in(body: bytes, response: aiohttp.ClientResponse) -> RotaError:
    try:
        page = msgspec.json.decode(body, type=_Page)
    except UNREADABLE:
        return NodeFault(f"the node answered {response.status}")
    error = wire.error_of(wire.Refusal(page.error, page.message))
    if isinstance(error, Overloaded):
        with contextlib.suppress(ValueError):
            error.retry_after_s = float(response.headers.get("Retry-After", error.retry_after_s))
    return error
