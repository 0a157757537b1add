"""`rota shell`: a Python prompt with a connected client."""

from __future__ import annotations

import code
import importlib
from typing import Annotated

import typer

from .ask import KeyFile, TokenFile, Url, client

BANNER = """rota {version}, Python {python}. `client` is connected to {urls}.

    client.failed()                      jobs that failed for good
    client.retry_failed(queue="mail")    run them again
    client.handle("…").status()          where a job is, and why it waits there
    client.pause("mail")                 start no more jobs of a queue
"""


def shell(
    app: Annotated[
        list[str] | None, typer.Option("--app", "-a", metavar="MODULE", help="Import these, too. Repeatable.")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    key_file: KeyFile = None,
) -> None:
    """Open a Python prompt with a connected client, to look at jobs and to retry or delete failed ones.

    [bold]Example[/]

      rota shell --app shop.tasks
    """
    import sys
    from importlib.metadata import version

    import rota
    from rota.client import default

    names: dict[str, object] = {"rota": rota}
    for name in app or []:
        importlib.import_module(name)
        names[name.partition(".")[0]] = sys.modules[name.partition(".")[0]]
    with client(url, token_file, key_file) as connected:
        default.replace(connected)          # so that task.enqueue goes the same way
        names["client"] = connected
        urls = ", ".join(view.address for view in connected.nodes()[:3])
        banner = BANNER.format(version=version("rota"), python=sys.version.split()[0], urls=urls)
        code.interact(banner, local=names, exitmsg="")
