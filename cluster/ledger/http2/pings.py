"""Pings of one connection: ours to a peer that has been silent for long, and answers to its own."""

from __future__ import annotations

import asyncio

from .frames import ACK, PING, Frame, frame

KEEPALIVE_S, KEEPALIVE_TIMEOUT_S = 6.0, 4.0
"""A ping after so much silence while calls are open; etcd hangs up on pings more often than every 5 s."""

LAZY_ACK_S = 0.1
"""etcd's gRPC measures its bandwidth with a ping beside each request, and sends the next one when the last is answered:
an answer that takes its time spares both sides a frame a call."""

BANDWIDTH_PING = bytes((2, 4, 16, 16, 9, 14, 7, 7))
_PING = b"rotaping"


class Pings:
    """`heard_at`: when the peer said something last; whoever reads it says so here."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.heard_at = loop.time()
        self._transport = transport
        self._loop = loop
        self._asked_at = 0.0
        self._answer: asyncio.TimerHandle | None = None

    @property
    def due(self) -> float:
        """When to look again."""
        return self._asked_at + KEEPALIVE_TIMEOUT_S if self._asked_at else self.heard_at + KEEPALIVE_S

    def is_answered(self, now: float) -> bool:
        """False: the peer has said nothing since it was pinged, and its time is over."""
        if self._asked_at and now >= self._asked_at + KEEPALIVE_TIMEOUT_S:
            if self.heard_at <= self._asked_at:
                return False
            self._asked_at = 0.0
        return True

    def ask(self, now: float) -> None:
        """Something is waited for: ping a peer that has been silent for long."""
        if not self._asked_at and now >= self.heard_at + KEEPALIVE_S:
            self._asked_at = now
            self._transport.write(frame(PING, 0, 0, _PING))

    def on_ping(self, got: Frame) -> None:
        if got.flags & ACK:
            self._asked_at = 0.0
        elif got.payload != BANDWIDTH_PING:
            self._transport.write(frame(PING, ACK, 0, got.payload))
        elif self._answer is None:
            self._answer = self._loop.call_later(LAZY_ACK_S, self._answer_lazily)

    def _answer_lazily(self) -> None:
        self._answer = None
        self._transport.write(frame(PING, ACK, 0, BANDWIDTH_PING))

    def stop(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
