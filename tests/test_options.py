"""The pages name every option of every command, and every setting of a node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from rota.cluster.boot.settings import SETTINGS
from rota.cluster.cli.app import app

DOCS = Path(__file__).parents[1] / "docs"
CLI, CONFIGURATION = [(DOCS / name).read_text() for name in ("cli.md", "configuration.md")]
OF_THE_LIBRARY = {"--help", "--version", "--install-completion", "--show-completion"}


def options(command: Any, *path: str) -> Iterator[tuple[str, str]]:
    for name, sub in getattr(command, "commands", {}).items():
        yield from options(sub, *path, name)
    for parameter in command.params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--") and option not in OF_THE_LIBRARY:
                yield " ".join(path), option


ALL = list(options(get_command(app)))


def setting(option: str) -> str:
    """--no-restart turns `restart` off."""
    name = option[2:].replace("-", "_")
    return name if name in SETTINGS else name.removeprefix("no_")


def test_every_setting_has_a_row_and_every_row_is_a_setting() -> None:
    table = CONFIGURATION.partition("## Clients")[0]
    first = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \| .* \| .* \|$", table, re.M)
    named = [name for names in first for name in re.findall(r"`([a-z_]+)`", names)]
    assert sorted(named) == sorted(SETTINGS)


def test_every_option_of_a_node_is_a_setting() -> None:
    names = {setting(option) for command, option in ALL if command == "node"}
    assert names - {"config"} <= set(SETTINGS)
    assert set(SETTINGS) - names == {"receipt_ttl", "dev"}      # these have no flag


def test_every_option_is_named() -> None:
    missing = [
        f"rota {command} {option}" for command, option in ALL
        if not re.search(rf"{option}(?![a-z-])", CLI) and setting(option) not in SETTINGS
    ]
    assert not missing
