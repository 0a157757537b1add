"""What is followed over a connection: keeps a link while anybody waits, and tells each new link of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from ..errors import JobUnknown, Overloaded, RotaError
from ..wire import frames as wire
from ..wire.frames import NodeFault
from .link import Link, LinkLost
from .transport import Follower

ANSWER_S = 10.0
PAUSE_S = 0.5
"""Before asking again where following just failed; the first times it is shorter."""


class Following:
    """`link_by(until)` gives a link that works, or raises. Nodes may be unreachable for `patience_s` before whoever
    waits for a result is told."""

    def __init__(self, link_by: Callable[[float], Awaitable[Link]], patience_s: float) -> None:
        self._link_by = link_by
        self._patience_s = patience_s
        self._followers: dict[str, Follower] = {}
        self._unsent: set[str] = set()      # the present link has not heard of these
        self._ended: set[str] = set()       # the present link is to forget these, before it hears of any new one
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def follow(self, bundles: Iterable[str], follower: Follower) -> None:
        for bundle in bundles:
            self._followers[bundle] = follower
            self._unsent.add(bundle)
        self._changed.set()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="rota results")

    def unfollow(self, bundles: Iterable[str]) -> None:
        for bundle in bundles:
            if self._followers.pop(bundle, None) is not None and bundle not in self._unsent:
                self._ended.add(bundle)
            self._unsent.discard(bundle)
        self._changed.set()

    def push(self, results: Iterable[tuple[str, bytes]]) -> None:
        for bundle, data in results:
            follower = self._followers.get(bundle)
            if follower is not None:
                follower.push(bundle, data)

    def link_lost(self) -> None:
        self._changed.set()

    async def close(self) -> None:
        self._followers.clear()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    async def _keep(self) -> None:
        registered: Link | None = None
        failures = 0
        while self._followers or (self._ended and registered is not None and not registered.lost):
            self._changed.clear()
            try:
                link = registered
                if link is None or link.lost:
                    link = await self._link_by(asyncio.get_running_loop().time() + self._patience_s)
                    self._unsent, self._ended = set(self._followers), set()
                    registered = link
                await self._tell(link)
                failures = 0
            except (LinkLost, Overloaded, NodeFault):
                registered = None
                failures += 1
                await asyncio.sleep(min(PAUSE_S, PAUSE_S * failures / 10))
                continue
            except RotaError as error:
                self.refuse(list(self._followers), error)
                continue
            await self._changed.wait()

    async def _tell(self, link: Link) -> None:
        if self._ended:
            ended, self._ended = self._ended, set()
            await link.send(wire.Unfollow(list(ended)))
        sessions: dict[str, list[str]] = {}
        for bundle in self._unsent:
            sessions.setdefault(bundle.partition("-")[0], []).append(bundle)
        self._unsent = set()
        size = wire.FOLLOWED_PER_FRAME_MAX
        for session, bundles in sessions.items():
            for start in range(0, len(bundles), size):
                await self._ask(link, wire.FollowRequest(0, session, bundles[start : start + size]))

    async def _ask(self, link: Link, request: wire.FollowRequest) -> None:
        try:
            answer = await link.ask(request, asyncio.get_running_loop().time() + ANSWER_S)
        except TimeoutError:
            link.abandon()
            raise LinkLost(f"the node at {link.url} gave no answer in time") from None
        if isinstance(answer, wire.Done):
            for bundle in answer.unknown:
                self.refuse([bundle], JobUnknown(f"no trace of {bundle}: it never was, or it has expired", bundle))
            for bundle in request.bundles:
                if (follower := self._followers.get(bundle)) is not None:
                    follower.registered(bundle)

    def refuse(self, bundles: Iterable[str], error: RotaError) -> None:
        """Tell who follows them why there will be no results."""
        for bundle in bundles:
            follower = self._followers.pop(bundle, None)
            self._unsent.discard(bundle)
            if follower is not None:
                follower.refuse(bundle, error)
