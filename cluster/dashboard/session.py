"""How a person with a browser shows the cluster's token: once, for a cookie.

The cookie holds no token: it says until when it is good, and is sealed with a key made from the token. So every node of
the cluster takes it, none has to remember it, and a new token ends all sessions. Forms carry a second seal, which
another site cannot have.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable

SESSION_S = 12 * 3600
_HEX = 32


class Sessions:
    """`token` None: the port asks for none (loopback); forms are sealed all the same, with a key of this process."""

    def __init__(self, token: str | None, cluster: str, wall: Callable[[], float]) -> None:
        self._token = token
        self._wall = wall
        key = token.encode() if token is not None else secrets.token_bytes(32)
        self._key = hashlib.blake2b(key, digest_size=32, person=b"rota-session").digest()
        self.cookie = f"rota-{hashlib.blake2b(cluster.encode(), digest_size=4).hexdigest()}"
        """Cookies do not tell ports apart: clusters on one machine have names of their own."""

    @property
    def are_needed(self) -> bool:
        return self._token is not None

    def is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), self._token.encode()
        )

    def begin(self) -> str:
        """A new session, as the cookie holds it."""
        content = f"{int(self._wall()) + SESSION_S}.{secrets.token_hex(8)}"
        return f"{content}.{self._seal('session', content)}"

    def is_good(self, cookie: str | None) -> bool:
        if not cookie or len(cookie) > 200 or not cookie.isascii():
            return False
        content, _, seal = cookie.rpartition(".")
        if not hmac.compare_digest(seal, self._seal("session", content)):
            return False
        until = content.partition(".")[0]
        return until.isdecimal() and self._wall() < int(until[:12])

    def form_seal(self, cookie: str | None) -> str:
        return self._seal("form", cookie or "")

    def is_own_form(self, cookie: str | None, seal: str) -> bool:
        return seal.isascii() and hmac.compare_digest(seal, self.form_seal(cookie))

    def _seal(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()[:_HEX]
