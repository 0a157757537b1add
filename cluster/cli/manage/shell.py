"""`rota shell`: a Python prompt with a connected client."""

from __future__ import annotations

import code
import importlib
from pathlib import Path
from typing import Annotated

import typer

from rota.client.errors import ConfigError

from ..ask import KeyFile, TokenFile, Url, client

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
    from rota.client.calls import default

    names: dict[str, object] = {"rota": rota}
    if app:
        sys.path.append(str(Path.cwd()))        # as a node does: where it is started, but behind what is installed
    for name in app or []:
        first = name.partition(".")[0]
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"--app {name} cannot be imported here: {error}") from error
        names[first] = sys.modules[first]
    with client(url, token_file, key_file) as connected:
        default.replace(connected)          # so that task.enqueue goes the same way
        names["client"] = connected
        urls = ", ".join(view.address for view in connected.nodes()[:3])
        banner = BANNER.format(version=version("rota"), python=sys.version.split()[0], urls=urls)
        _complete_with_tab(names)
        code.interact(banner, local=names, exitmsg="")


def _complete_with_tab(names: dict[str, object]) -> None:
    """As at Python's own prompt."""
    try:
        import readline
        import rlcompleter
    except ImportError:         # a Python that was built without it
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
