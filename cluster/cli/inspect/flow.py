"""`rota flow`, `rota flows`: graphs of jobs, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rota.client.errors import FlowUnknown, InvalidJob
from rota.client.wire.views import FlowView

from ...terminal import Sheet, complain, say
from .. import show
from ..ask import Json, TokenFile, Url, client

if TYPE_CHECKING:
    from rota.client.api.clients import Client

FAILED = 1


def flows(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only those of this name.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Show at most this many.")] = 50,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """List flows, the newest first: those that are not over, and those that are kept."""
    with client(url, token_file) as asked:
        page = asked.flows(name, limit=limit)
    if json:
        show.as_json(page)
        return
    table = Sheet("flow", "name", "state", "jobs>", "ended>", "failed>", "begun")
    for view in page.flows:
        ended = view.counts.get("ok", 0) + view.counts.get("cancelled", 0)
        table.add(
            view.id, view.name, view.state, f"{view.jobs:,}", f"{ended:,}", f"{view.counts.get('failed', 0):,}",
            show.ago(view.started_at),
        )
    table.show("no flow goes on, and none is kept")
    if page.next:
        complain(f"there are more than these {limit:,}: --limit shows more")


def flow(
    which: Annotated[str, typer.Argument(metavar="ID|NAME", help="A flow's id, or a name: then the newest of it.")],
    dot: Annotated[bool, typer.Option("--dot", help="Print it for Graphviz.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print it for a page in Markdown.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is over, or can go on no more.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel all of it that has not ended.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run its failed jobs again.")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Draw a flow: what waits for what, and how far it is.

    [bold]Examples[/]

      rota flow import
      rota flow k3f9q2m7xa5t-00000000 --dot | dot -Tsvg > import.svg
      rota flow import --retry --wait
    """
    from rota.client.api import drawing  # late, as in `ask.py`

    with client(url, token_file) as asked:
        handle = asked.flow_handle(_id_of(asked, which))
        if cancel:
            complain(f"{handle.cancel():,} jobs are cancelled, or asked to stop")
        if retry:
            complain(f"{handle.retry():,} jobs are tried again")
        if wait:
            handle.wait()
        view = handle.status()
    if json:
        show.as_json(view)
    elif dot or mermaid:
        say((drawing.as_dot if dot else drawing.as_mermaid)(view), lines=True)
    else:
        counts = ", ".join(f"{count:,} {state}" for state, count in view.counts.items())
        say((view.name, "bold"), f"  {view.id} is ", (view.state, "bold"), f": {counts}")
        say(drawing.as_text(view), lines=True)
        for job in view.failed:
            say(f"job {job} failed: `rota job {job}` says why, `rota flow {view.id} --retry` runs it again")
    if wait and view.state != "done":
        raise typer.Exit(FAILED)


def _id_of(asked: Client, which: str) -> str:
    try:
        return asked.flow_handle(which).id
    except InvalidJob:
        found: list[FlowView] = asked.flows(which, limit=1).flows
        if not found:
            raise FlowUnknown(f"there is no flow {which!r:.80}, neither going on nor kept") from None
        return found[0].id
