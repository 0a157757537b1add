"""`rota nodes`, `queues`, `job`: what a cluster is doing."""

from __future__ import annotations

from typing import Annotated

import typer

from rota.client.errors import JobUnknown
from rota.client.ids import parse_job_id

from . import show
from .ask import Json, TokenFile, Url, client


def nodes(url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """List the members of the cluster, and who is master.

    [bold]Example[/]

      rota nodes --url http://10.0.0.5:4100
    """
    with client(url, token_file) as asked:
        views = asked.nodes()
    show.as_json(views) if json else show.nodes(views)


def queues(url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """List the queues: how many jobs wait, run, are scheduled or have failed, and how old the oldest is."""
    with client(url, token_file) as asked:
        views = asked.queues()
    show.as_json(views) if json else show.queues(views)


def job(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `rota enqueue` printed it.")],
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Say where a job is, and why it waits there.

    [bold]Example[/]

      rota job k3f9q2m7xa5t-0000001f/0
    """
    try:
        parse_job_id(id)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with client(url, token_file) as asked:
        view = asked.handle(id).status()
    show.as_json(view) if json else show.job(view)
    if view.place == "unknown":
        raise JobUnknown(f"there is no job {view.id}: {view.why}", id)
