"""`rota nodes`, `queues`, `finished`, `job`: what a cluster is doing, and what it has done."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rota.client.errors import JobUnknown, KeyMissing, OffloadUnavailable
from rota.client.ids import parse_job_id
from rota.client.wire.views import PLACES, JobsPage, JobView, Place

from ...terminal import complain
from .. import show
from ..ask import Json, KeyFile, TokenFile, Url, client
from ..options import moment

if TYPE_CHECKING:
    from rota.client.api.clients import Client


def nodes(url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """List the members of the cluster, and who is master.

    [bold]Example[/]

      rota nodes --url http://10.0.0.5:4100
    """
    with client(url, token_file) as asked:
        views = asked.nodes()
    show.as_json(views) if json else show.nodes(views)


def queues(url: Url = None, token_file: TokenFile = None, json: Json = False) -> None:
    """List the queues: how many jobs wait, run, are scheduled, await others or have failed.

    And how old the oldest is that waits.
    """
    with client(url, token_file) as asked:
        views = asked.queues()
    show.as_json(views) if json else show.queues(views)


def finished(
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 50,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """List jobs that ended well and are kept (keep_finished, of a task, an enqueue or a node)."""
    with client(url, token_file) as asked:
        views = asked.finished(queue, limit + 1)
    show.as_json(views[:limit]) if json else show.finished(views[:limit])
    show.more(views, limit)


def jobs(
    place: Annotated[
        str, typer.Option(help="running, claimed, waiting, blocked, retrying, scheduled, awaiting, failed, finished.")
    ] = "",
    queue: Annotated[str, typer.Option(help="Only this queue.")] = "",
    task: Annotated[str, typer.Option(metavar="MODULE:TASK", help="Only jobs of this task.")] = "",
    key: Annotated[str, typer.Option(help="Only jobs with this key (max_per_key) that have not ended.")] = "",
    label: Annotated[
        str, typer.Option(help="Only jobs that require this label of their node, and have not ended.")
    ] = "",
    since: Annotated[
        datetime | None, typer.Option(
            metavar="TIME", parser=moment, help="Enqueued, or ended, no sooner: 2h (ago), 30m, 2026-11-26T08:00."
        )
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(metavar="TIME", parser=moment, help="Enqueued, or ended, before then.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Show at most this many.")] = 50,
    after: Annotated[str, typer.Option(metavar="CURSOR", help="Go on behind what was listed before.")] = "",
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """List jobs: those that run first, then those that wait, are scheduled, have failed, or have ended and are kept.

    A job counts as running when it has run for a second; until then it is
    claimed. Where there is more, it says how to go on.

    [bold]Example[/]

      rota jobs --place running --queue mail
      rota jobs --place failed --since 2h
    """
    if place and place not in PLACES:
        raise typer.BadParameter(f"a job is {', '.join(PLACES)}", param_hint="--place")
    with client(url, token_file) as asked:
        found: list[JobView] = []
        page = JobsPage([], after)
        while len(found) < limit and (page.next or not found):      # a part may be short, and the list go on
            page = asked.jobs(
                cast("Place", place) or None, queue=queue, task=task, key=key, label=label, since=since,
                until=until, limit=limit - len(found), after=page.next,
            )
            found += page
            if not page.next:
                break
        page = JobsPage(found, page.next)
    if json:
        show.as_json(page)
    else:
        show.jobs(page.jobs)
        if page.next:
            complain(f"there is more: --after {shlex.quote(page.next)} goes on")


def job(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `rota enqueue` printed it.")],
    arguments: Annotated[
        bool, typer.Option("--arguments", help="Show its arguments, too. Unpickles them here: needs the signing key.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Say what happens to it, until it has ended.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="Show the lines kept of its log (keep_log).")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> None:
    """Say where a job is, how far, and why it waits there.

    [bold]Examples[/]

      rota job k3f9q2m7xa5t_0000001f_0
      rota job k3f9q2m7xa5t_0000001f_0 --follow
    """
    try:
        parse_job_id(id)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with client(url, token_file, key_file) as asked:
        if follow:
            for event in asked.handle(id).events():
                show.as_json_line(event) if json else show.event(event)
            return
        if log:
            kept = asked.handle(id).log()
            show.as_json(kept) if json else show.log(kept)
            return
        view = asked.handle(id).status()
        shown = _arguments(asked, id) if arguments else ""
    if json:
        show.as_json(view, arguments=shown) if arguments else show.as_json(view)
    else:
        show.job(view, shown)
    if view.place == "unknown":
        raise JobUnknown(f"there is no job {view.id}: {view.why}", id)


def _arguments(asked: Client, id: str) -> str:
    try:
        return show.call(*asked.arguments(id))
    except KeyMissing as error:
        return f"encrypted ({error})"
    except OffloadUnavailable as error:
        return f"in the object store ({error})"
