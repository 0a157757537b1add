"""`rota completion`: what makes a shell complete rota's commands and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script
from typer._completion_shared import install as install_in

from rota.client.errors import ConfigError

from ..terminal import say

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_ROTA_COMPLETE"


def completion(
    shell: Annotated[str, typer.Argument(metavar="[bash|zsh|fish]", help="Default: yours, as $SHELL says.")] = "",
    install: Annotated[
        bool, typer.Option("--install", help="Write it where your shell looks for it, and have it loaded.")
    ] = False,
) -> None:
    """Complete commands and options in your shell: print the script for it, or install that.

    [bold]Examples[/]

      rota completion --install

      rota completion fish > ~/.config/fish/completions/rota.fish
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise ConfigError(f"{shell!r:.40}: completion is there for {', '.join(SHELLS)}; say which")
    if not install:
        say(get_completion_script(prog_name="rota", complete_var=VARIABLE, shell=shell))
        return
    _, path = install_in(shell=shell, prog_name="rota", complete_var=VARIABLE)
    say(f"Installed in {path}; it is there in the next shell you open.")
