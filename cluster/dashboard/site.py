"""The dashboard on the port: who gets in, which page is where, and what its buttons do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from rota.client.errors import LedgerError, RotaError

from ..port.routes import ANSWER_S, STATUS, of_store
from ..port.service import NodeService
from ..port.verbs import Allowance
from ..telemetry.telemetry import Telemetry
from .actions import Actions
from .render import SECURITY, STATIC, Note, Renderer
from .session import SESSION_S, Sessions
from .views import Views

log = logging.getLogger("rota.http")

LOGIN_BYTES_MAX = 4_096
LOGIN_S = 5.0
FORM_BYTES_MAX = 256 * 1024
NOTE_COOKIE = "rota-note"
NOTE_S = 60
LINES_PER_MINUTE = 30
STATIC_S = 365 * 86_400

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dashboard:
    """A `Site` of the port. `token` as the port has it; `secure`: the port speaks TLS."""

    def __init__(
        self, service: NodeService, telemetry: Telemetry, token: str | None, *, secure: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = service.cluster
        self._sessions = Sessions(token, service.cluster, wall)
        self._secure = secure
        self._renderer = Renderer()
        self._views = Views(service, telemetry)
        self._actions = Actions(service)
        self._lines = Allowance(LINES_PER_MINUTE)

    def add_to(self, app: web.Application) -> None:
        router, views = app.router, self._views
        for path, template, view in (
            ("/", "overview.html", views.overview), ("/queues", "queues.html", views.queues),
            ("/jobs", "jobs.html", views.jobs), ("/jobs/{id}", "job.html", views.job),
            ("/failed", "failed.html", views.failed), ("/schedules", "schedules.html", views.schedules),
            ("/nodes", "nodes.html", views.nodes), ("/flows", "flows.html", views.flows),
            ("/flows/{id}", "flow.html", views.flow), ("/settings", "settings.html", views.settings),
        ):
            router.add_get(path, self._page(template, view))
        router.add_get("/login", self._show_login)
        router.add_post("/login", self._login)
        router.add_post("/logout", self._logout)
        router.add_post("/ui/{what}", self._act)
        router.add_get("/static/{name}", self._asset)

    # -- who gets in -------------------------------------------------------------------------------------------------

    def admits(self, request: web.Request) -> bool:
        """A session is good for looking, and for the forms of these pages; not for the port of programs."""
        looks = request.method in ("GET", "HEAD")
        acts = request.method == "POST" and (request.path.startswith("/ui/") or request.path == "/logout")
        return (looks or acts) and self._sessions.is_good(self._session_of(request))

    def is_open(self, request: web.Request) -> bool:
        return request.path == "/login" or (request.method == "GET" and request.path.startswith("/static/"))

    def shown_in(self, request: web.Request) -> web.StreamResponse | None:
        wants_page = "text/html" in request.headers.get("Accept", "") and not request.path.startswith("/v1/")
        if request.method != "GET" or not wants_page:
            return None
        where = "" if request.path == "/" else "?" + urlencode({"next": request.path_qs})
        return _go("/login" + where)

    async def _show_login(self, request: web.Request) -> web.StreamResponse:
        if not self._sessions.are_needed or self._sessions.is_good(self._session_of(request)):
            return _go(_own_path(request.query.get("next", "/")))
        return self._html(self._renderer.page(
            "login.html", cluster=self._cluster, wrong=False, next=_own_path(request.query.get("next", "/"))
        ))

    async def _login(self, request: web.Request) -> web.StreamResponse:
        length = request.content_length
        if length is None or length > LOGIN_BYTES_MAX:
            return web.Response(status=413, text="too large")
        try:
            async with asyncio.timeout(LOGIN_S):
                form = await request.post()
        except (TimeoutError, ValueError):
            return web.Response(status=400, text="no form")
        where = _own_path(str(form.get("next", "/")))
        if not self._sessions.is_token(str(form.get("token", ""))):
            if self._lines.take():
                log.warning("the dashboard: a wrong token from %s", request.remote)
            page = self._renderer.page("login.html", cluster=self._cluster, wrong=True, next=where)
            return self._html(page, status=401)
        response = _go(where)
        response.set_cookie(
            self._sessions.cookie, self._sessions.begin(), max_age=SESSION_S, httponly=True, samesite="Lax",
            secure=self._secure, path="/",
        )
        return response

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        if not self._is_ours(request, form):
            return self._refused(request)
        response = _go("/login")
        response.del_cookie(self._sessions.cookie, path="/")
        return response

    def _session_of(self, request: web.Request) -> str | None:
        return request.cookies.get(self._sessions.cookie)

    def _is_ours(self, request: web.Request, form: Any) -> bool:
        return self._sessions.is_own_form(self._session_of(request), str(form.get("seal", "")))

    # -- looking -----------------------------------------------------------------------------------------------------

    def _page(self, template: str, view: Callable[[web.Request], Awaitable[dict[str, Any]]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                async with asyncio.timeout(ANSWER_S):
                    values = await view(request)
            except TimeoutError:
                return self._trouble(request, "The store (etcd) gives this node no answer. Try again.", 503)
            except LedgerError as error:
                return self._trouble(request, str(of_store(error)), 503)
            except RotaError as error:
                return self._trouble(request, str(error), STATUS.get(type(error), 500))
            if (where := values.get("go")) is not None:
                return _go(where)
            return self._shown(request, template, values)

        return answer

    def _shown(self, request: web.Request, template: str, values: dict[str, Any], status: int = 200) -> web.Response:
        """A page, with the note that waits for it."""
        note = Note.from_cookie(request.cookies.get(NOTE_COOKIE))
        is_part = request.headers.get("X-Rota-Part") == "1"
        page = self._renderer.page(
            template, cluster=self._cluster, path=request.path, here=request.path_qs, note=None if is_part else note,
            seal=self._sessions.form_seal(self._session_of(request)), can_leave=self._sessions.are_needed, **values,
        )
        response = self._html(page, status=status)
        if note is not None and not is_part:
            response.del_cookie(NOTE_COOKIE, path="/")
        return response

    def _trouble(self, request: web.Request, text: str, status: int) -> web.Response:
        return self._shown(request, "trouble.html", {"text": text, "status": status}, status)

    def _html(self, page: str, status: int = 200) -> web.Response:
        return web.Response(text=page, status=status, content_type="text/html", headers=SECURITY)

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in STATIC:
            raise web.HTTPNotFound
        headers = SECURITY | {"Cache-Control": f"public, max-age={STATIC_S}, immutable"}
        return web.Response(body=self._renderer.static[name], content_type=STATIC[name], headers=headers)

    # -- doing -------------------------------------------------------------------------------------------------------

    async def _act(self, request: web.Request) -> web.StreamResponse:
        """One form. Whatever comes of it is said on the page that it came from."""
        if request.content_length is None or request.content_length > FORM_BYTES_MAX:
            return web.Response(status=413, text="too large")
        form = await request.post()
        if not self._is_ours(request, form):
            return self._refused(request)
        where = _own_path(str(form.get("back", "/")))
        note = await self._outcome(request.match_info["what"], form)
        if self._lines.take():
            log.info("the dashboard: %s", note.text)
        response = _go(where)
        response.set_cookie(
            NOTE_COOKIE, note.to_cookie(), max_age=NOTE_S, httponly=True, samesite="Strict", secure=self._secure,
            path="/",
        )
        return response

    async def _outcome(self, what: str, form: Any) -> Note:
        try:
            async with asyncio.timeout(ANSWER_S):
                return Note(await self._actions.do(what, form))
        except TimeoutError:
            return Note("The store (etcd) gives no answer: it may be carried out yet. Have a look.", bad=True)
        except LedgerError as error:
            return Note(str(of_store(error)), bad=True)
        except RotaError as error:
            return Note(str(error), bad=True)

    def _refused(self, request: web.Request) -> web.Response:
        return self._trouble(
            request, "This form is not from a page of your session, or the session is over. Load the page again.", 403
        )


def _go(where: str) -> web.Response:
    return web.Response(status=303, headers=SECURITY | {"Location": where})


def _own_path(where: str) -> str:
    """A path of this port, never another place."""
    is_own = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable()
    return quote(where, safe="/?&=%:;,+@!$'()*~._-#") if is_own and len(where) < 2_000 else "/"
