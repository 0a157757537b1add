"""What a node's port serves beside the jobs: what is to be seen, for programs and for people."""

from __future__ import annotations

import logging

from ..port.http import Site
from ..port.seen import SeenPages
from ..port.service import NodeService
from ..telemetry.telemetry import Telemetry

log = logging.getLogger(__name__)


def sites_of(service: NodeService, telemetry: Telemetry, token: str | None, *, secure: bool = False) -> list[Site]:
    """`secure`: the port speaks TLS. A node works without its pages, too."""
    sites: list[Site] = [SeenPages(telemetry)]
    try:
        from ..dashboard.site import Dashboard
    except ImportError as error:
        log.warning("no dashboard is served: %s", error)
    else:
        sites.append(Dashboard(service, telemetry, token, secure=secure))
    return sites
