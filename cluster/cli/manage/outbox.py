"""`rota outbox …`: jobs that were enqueued in a transaction of your own database."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from rota.client.wire.views import OutboxView
from rota.outbox.opening import rows_at

from ...terminal import Sheet, say
from .. import show
from ..ask import Json, KeyFile, TokenFile, Url, client

Database = Annotated[
    str, typer.Option("--database", "-d", envvar="ROTA_OUTBOX_DATABASE", metavar="URL", help=(
        "SQLAlchemy's address of the database, for plain calls: postgresql+psycopg://shop@db/shop. "
        "Default: $ROTA_OUTBOX_DATABASE, which keeps a password out of the process list."
    ))
]
Table = Annotated[str, typer.Option(help="The outbox's table, or schema.table.")]
Ids = Annotated[list[int] | None, typer.Argument(metavar="[ROW]…", help="Numbers of rows: see `rota outbox aside`.")]

outbox = typer.Typer(
    no_args_is_help=True,
    help="Jobs enqueued in a transaction of your own database (docs/outbox.md): run the relay that moves them into "
    "rota, see how far it is, and what it could not move.",
    epilog="[bold]Examples[/]\n\n"
    "rota outbox create --database postgresql+psycopg://shop@db/shop\n\n"
    "rota outbox run --database postgresql+psycopg://shop@db/shop --name shop\n\n"
    "rota outbox aside && rota outbox retry 17",
)


@outbox.command()
def run(
    database: Database,
    name: Annotated[str, typer.Option(help="Its name in the cluster: relays of one name take turns.")] = "default",
    table: Table = "rota_outbox",
    poll: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a row waits at the most if nothing wakes the relay.")
    ] = 1.0,
    remember: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long the cluster recognises a row that it has taken already.")
    ] = 3600.0,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Take rows that nobody has signed: who can write to the table can run "
                           "code on the nodes then.")
    ] = False,
    url: Url = None,
    token_file: TokenFile = None,
    key_file: KeyFile = None,
) -> None:
    """Move rows into rota, in their order, until it is stopped.

    Run it wherever both the database and a node can be reached, as often as you like: one of them works at a
    time, and another takes over within ten seconds when it dies. A row that is moved twice is still one job.

    [bold]Example[/]

      rota outbox run --database postgresql+psycopg://shop@db/shop --name shop
    """
    from rota.client.settings.config import load_token
    from rota.outbox.relay import Relay

    relay = Relay(
        rows_at(database, table), name, urls=url, token=load_token(token_file) if token_file else None, key=key_file,
        poll=poll, remember=remember, unsigned=unsigned,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: relay.stop(0))
    say(f"outbox {name}: moving rows of {table}; SIGTERM or Ctrl-C ends it")
    relay.run()
    say(f"outbox {name}: {relay.moved:,} rows were moved")


@outbox.command("list")
def list_(url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """The outboxes that have a relay now: how many rows wait, and since when."""
    with client(url, token_file) as asked:
        views: list[OutboxView] = asked.outboxes()
    if json:
        show.as_json(views)
        return
    sheet = Sheet("outbox", "relay", "since", "moved", "waiting", "oldest", "aside")
    for view in views:
        oldest = "–" if view.oldest is None else show.ago(view.oldest)
        sheet.add(
            view.name, view.relay, show.ago(view.since), f"{view.moved:,}", f"{view.waiting:,}", oldest,
            f"{view.aside:,}",
        )
    sheet.show("no outbox has a relay now")


@outbox.command()
def create(database: Database, table: Table = "rota_outbox") -> None:
    """Make the table, where no migration of yours does. It is left as it is if it is there."""
    rows_at(database, table).create()
    say(f"table {table} is there")


@outbox.command()
def aside(database: Database, table: Table = "rota_outbox", limit: int = 100, json: Json = False) -> None:
    """Rows that could not be moved, each with its reason. They stay until somebody retries or drops them."""
    rows = rows_at(database, table).aside(limit)
    if json:
        show.as_json([row._asdict() for row in rows])
        return
    sheet = Sheet("row", "job", "task", "written", "why")
    for row in rows:
        why = row.error + (" (tried again by itself)" if row.retried else "")
        sheet.add(str(row.id), row.job_id, row.task, show.ago(row.created_ms / 1000), why)
    sheet.show("no row was set aside")


@outbox.command()
def retry(
    database: Database, rows: Ids = None,
    all_: Annotated[bool, typer.Option("--all", help="All that were set aside.")] = False, table: Table = "rota_outbox",
) -> None:
    """Move rows that were set aside after all."""
    say(f"{rows_at(database, table).again(_chosen(rows, all_)):,} rows will be moved")


@outbox.command()
def drop(database: Database, rows: Ids = None, table: Table = "rota_outbox") -> None:
    """Delete rows that were set aside: their jobs will never run."""
    chosen = _chosen(rows, False)
    assert chosen is not None
    say(f"{rows_at(database, table).drop(chosen):,} rows are gone")


def _chosen(rows: list[int] | None, all_: bool) -> list[int] | None:
    if bool(rows) == all_:
        raise typer.BadParameter("say which rows (`rota outbox aside` lists them), or --all where that is offered")
    return None if all_ else rows
