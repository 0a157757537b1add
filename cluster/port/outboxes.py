"""The outboxes of the port, as JSON: whose turn it is to move rows, and what relays have told."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from rota.client.wire.views import TurnAsked

from .service import NodeService
from .verbs import read


class OutboxPages:
    """Handlers; each returns what is answered as JSON."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def list(self, _request: web.Request) -> Any:
        return await self._service.outboxes.list()

    async def turn(self, request: web.Request) -> Any:
        return await self._service.outboxes.turn(request.match_info["outbox"], await read(request, TurnAsked))
