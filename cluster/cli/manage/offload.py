"""`rota offload …`: payloads over the limit, which lie in an object store."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ...terminal import say
from .. import show
from ..ask import Json, TokenFile, Url, client
from ..options import seconds

offload = typer.Typer(no_args_is_help=True, help="Payloads over 256 KiB, in an object store (docs/offload.md).")


@offload.callback()
def _group() -> None:
    pass


@offload.command()
def sweep(
    store: Annotated[str, typer.Option(envvar="ROTA_OFFLOAD", metavar="URL", help=(
        "The object store, as clients and runners have it: s3://bucket/rota. Default: $ROTA_OFFLOAD."
    ))],
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", parser=seconds, help="Go on, and sweep so often. Default: once.")
    ] = None,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", parser=seconds, help="Arguments younger than this are left alone.")
    ] = 3600.0,
    keep_results: Annotated[
        float, typer.Option(metavar="SECONDS", parser=seconds, help="Results younger than this are left alone.")
    ] = 7 * 86_400.0,
    url: Url = None, token_file: TokenFile = None, json: Json = False,
) -> None:
    """Delete objects whose job is over and of which nothing is kept, and those that never got a job.

    [bold]Example[/]

      rota offload sweep --store s3://bucket/rota --every 600
    """
    from rota.client.api.sweeping import sweep
    from rota.client.wire import offload as objects

    objects.use(store)
    while True:
        with client(url, token_file) as asked:
            swept = sweep(lambda id_: asked.handle(id_).status(), grace, keep_results)
        if json:
            show.as_json(swept._asdict())
        else:
            say(f"{swept.deleted:,} objects were deleted, {swept.kept:,} are kept")
        if every is None:
            return
        time.sleep(every)
