"""`manage.py rota_outbox`: the relay of a Django project."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from rota.outbox.django import Outbox


class Command(BaseCommand):
    help = (
        "Move the rows of the outbox into rota until it is stopped. Run as many as you like: one works at a time, and "
        "another takes over when it dies. Nodes are found as every client finds them (ROTA_URL, ROTA_KEY_FILE, …)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--database", default="default", help="The alias of the database. Default: default.")
        parser.add_argument("--name", default="default", help="Of the outbox in its cluster. Default: default.")
        parser.add_argument("--poll", type=float, default=1.0, help="Seconds between two looks. Default: 1.")
        parser.add_argument("--unsigned", action="store_true", help="Trust whoever can write to the table.")

    def handle(self, *args: Any, **options: Any) -> None:
        relay = Outbox(options["database"]).relay(
            options["name"], poll=options["poll"], unsigned=options["unsigned"]
        )
        signal.signal(signal.SIGTERM, lambda *_: relay.stop(0))
        signal.signal(signal.SIGINT, lambda *_: relay.stop(0))
        relay.run()
