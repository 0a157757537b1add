"""What a node's port serves beside the jobs: what is to be seen, for programs and for people."""

from __future__ import annotations

from ..dashboard.site import Dashboard
from ..port.http import Site
from ..port.seen import SeenPages
from ..port.service import NodeService
from ..telemetry.telemetry import Telemetry


def sites_of(service: NodeService, telemetry: Telemetry, token: str | None, *, secure: bool = False) -> list[Site]:
    """`secure`: the port speaks TLS."""
    return [SeenPages(telemetry), Dashboard(service, telemetry, token, secure=secure)]
