"""The one port of a node: WebSocket frames for rota's own clients (`/v1/ws`), JSON for everyone else, health pages.

The bearer token is checked before anything else of a request is looked at; only `/livez` and `/readyz` are open, and
say no more than yes or no to who has not shown it. (Who may connect, and for how long, is the affair of `gate.py`.)
Without a token (loopback only) the Host header must name this machine, so that no web page can reach the port by
rebinding a name; a foreign Origin is refused always.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from aiohttp import web

from rota.client.errors import ConfigError
from rota.client.settings.hosts import is_loopback
from rota.client.wire import frames as wire
from rota.client.wire.keyring import UNSIGNED, Keyring

from . import openapi
from .answers import json_page, refuse
from .gate import Gate
from .happenings import Streams
from .routes import Routes
from .service import NodeService
from .websocket import Socket

log = logging.getLogger("rota.http")

OPEN_PATHS = ("/livez", "/readyz")
BODY_S = 30.0
"""A request's body is here after so long."""

STOP_S = 1.0
"""How long connections get to end when the port closes. Clients lose nothing: they ask the next node."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site(Protocol):
    """Pages that somebody else adds to the port, and how people get in who cannot send a header."""

    def add_to(self, app: web.Application) -> None: ...

    def admits(self, request: web.Request) -> bool:
        """Whether the request shows in another way that its sender had the token."""
        ...

    def is_open(self, request: web.Request) -> bool:
        """Whether strangers may ask for this: the way in."""
        ...

    def shown_in(self, request: web.Request) -> web.StreamResponse | None:
        """For who is not let in: the way in, instead of a refusal; None for a program."""
        ...


class HttpPort:
    """Serves a `NodeService` while it is entered. `port` 0 lets the system choose: see `url`."""

    def __init__(
        self,
        service: NodeService,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        keyring: Keyring = UNSIGNED,
        *,
        tls: ssl.SSLContext | None = None,
        sites: Sequence[Site] = (),
    ) -> None:
        if not is_loopback(host) and not (token and keyring):
            raise ConfigError(
                f"listening on {host} without {'a bearer token' if not token else 'a signing key'}: whoever reaches "
                "the port could run code. `rota init` writes both; or listen on 127.0.0.1"
            )
        self._service = service
        self._host = host
        self._port = port
        self._token = f"Bearer {token}".encode() if token else None
        self._keyring = keyring
        self._tls = tls
        self._sites = sites
        self._sockets: set[Socket] = set()
        self._streams = Streams()
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._guard], client_max_size=wire.FRAME_BYTES_MAX)
        app.router.add_get(wire.PATH, self._serve_socket)
        app.router.add_get("/v1/openapi.json", openapi.serve)
        Routes(self._service, self._keyring, self._streams).add_to(app.router)
        for site in self._sites:
            site.add_to(app)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)
        await runner.setup()
        assert runner.server is not None
        self._gate = Gate(runner.server, tls=self._tls)
        try:
            self._port = await self._gate.open(self._host, self._port)
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(f"cannot listen on {self._host}:{self._port}: {error}") from None
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        await self._gate.close()
        await asyncio.gather(*(served.close() for served in list(self._sockets)))
        await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is None and not self._gate.trust(request.protocol):
            full = f"{self._gate.trusted_max:,} connections are open already"
            refusal = refuse(503, "Overloaded", full, headers={"Retry-After": "1"})
        if refusal is not None and request.path not in OPEN_PATHS:
            return await self._turn_away(request, handler, refusal)
        if refusal is None and (fault := await _read_body(request)) is not None:
            return fault
        try:
            response = await handler(request)
            return response if refusal is None else _yes_or_no(response)
        except web.HTTPException as error:      # no such path, or not with this method
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            what = f"{request.method} {request.path:.200}: {error.reason}"
            return refuse(error.status, "NotFound", what, headers=allow)

    async def _turn_away(self, request: web.Request, handler: Handler, refusal: web.Response) -> web.StreamResponse:
        """A stranger is shown the way in, if there is one; it answers him as long as strangers are borne."""
        if refusal.status == 401:
            for site in self._sites:
                if site.is_open(request):
                    return self._foreign(request) or await handler(request)
                if (shown := site.shown_in(request)) is not None:
                    return shown
        refusal.force_close()
        return refusal

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._token is not None:
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._token) and not any(site.admits(request) for site in self._sites):
                if given:
                    self._gate.note("a request had a wrong token")
                return refuse(401, "Unauthorized", "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        elif not self._names_this_machine(request.host):
            return refuse(403, "Unauthorized", "the Host header names another machine")
        return self._foreign(request)

    @staticmethod
    def _foreign(request: web.Request) -> web.Response | None:
        origin = request.headers.get("Origin")
        if origin is not None and origin not in (f"http://{request.host}", f"https://{request.host}"):
            return refuse(403, "Unauthorized", "requests from other origins are refused")
        return None

    def _names_this_machine(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name == self._host or is_loopback(name)

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        theirs = request.headers.get(wire.PROTOCOL_HEADER, str(wire.PROTOCOL))
        if theirs != str(wire.PROTOCOL):
            return refuse(
                426, "ProtocolMismatch", f"this node speaks protocol {wire.PROTOCOL}, not {theirs!r:.20}",
                headers={wire.PROTOCOL_HEADER: str(wire.PROTOCOL)},
            )  # fmt: skip
        served = Socket(self._service, self._keyring, self._gate.note, self._streams)
        self._sockets.add(served)
        try:
            return await served.serve(request)
        finally:
            self._sockets.discard(served)


def _yes_or_no(response: web.StreamResponse) -> web.Response:
    """For a stranger: why a node is not ready may be a traceback, or hold an address with a password."""
    return json_page({"status": "ok" if response.status == 200 else "not ready"}, response.status)


async def _read_body(request: web.Request) -> web.Response | None:
    """aiohttp keeps it: handlers read it again. What is wrong with it, or None."""
    if request.can_read_body:
        try:
            async with asyncio.timeout(BODY_S):
                await request.read()
        except TimeoutError:
            return refuse(408, "Timeout", f"the body of the request was not here after {BODY_S:.0f} s")
        except web.HTTPRequestEntityTooLarge:
            return refuse(413, "JobTooLarge", "the body is over 4 MiB")
    return None
