"""Jobs that are enqueued in a transaction of Django's. Its settings are a process's, so all of it is in one of its
own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from rota.testing import MemoryCluster

from . import shop

ROOT = Path(__file__).parents[2]

PROGRAM = """
    import sys
    import django
    from django.conf import settings
    settings.configure(
        INSTALLED_APPS=["rota.outbox.django"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1] + "/default.db"},
            "orders": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1] + "/orders.db"},
            **({"real": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "USER": "postgres",
                         "NAME": "postgres", "PORT": sys.argv[2]}} if sys.argv[2] else {}),
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()

    import asyncio
    from django.core.management import call_command
    from django.db import connections, transaction
    from rota.outbox.django import Outbox
    from rota.outbox.django.models import OutboxRow
    from rota.outbox.relay import Relay
    from tests.outbox import shop

    call_command("makemigrations", "rota_outbox", check=True, dry_run=True, verbosity=0)    # nothing is missing
    for database in settings.DATABASES:
        call_command("migrate", database=database, verbosity=0)
        outbox = Outbox(database)
        with transaction.atomic(using=database):
            kept = outbox.enqueue(shop.note, database)
            later = outbox.enqueue(shop.note.using(headers={"a": "b"}), "two")
        try:
            with transaction.atomic(using=database):
                outbox.enqueue(shop.note, "lost")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        alone = asyncio.run(outbox.aenqueue(shop.note, "alone"))
        broken = outbox.enqueue("tests.nowhere:task")
        assert OutboxRow.objects.using(database).count() == 4
        assert outbox.rows().counts()[:2] == (4, 0)
        Relay.run = Relay.run_until_empty
        call_command("rota_outbox", database=database, name=database)
        assert [handle.result(timeout=60) for handle in (kept, later, alone)] == [database, "two", "alone"]
        (aside,) = outbox.rows().aside(10)
        assert aside.error.startswith("UnknownTask") and outbox.rows().again([aside.id]) == 1
        assert outbox.rows().counts()[:2] == (1, 0)
    import sqlalchemy as sa
    from rota.outbox.sqlalchemy import Outbox as Other
    rows = Other().rows(sa.create_engine("sqlite:///" + sys.argv[1] + "/orders.db"))
    assert rows.counts().waiting == 1       # `rota outbox` reads Django's table, too
    print("done with", ", ".join(settings.DATABASES))
"""


def test_in_a_project(cluster: MemoryCluster, tmp_path: Path, postgres_port: str) -> None:
    assert shop.note.name, "the cluster runs it"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), tmp_path, postgres_port], cwd=ROOT, capture_output=True,
        text=True, timeout=60, env=os.environ | {"ROTA_URL": cluster.url, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done with default, orders")
