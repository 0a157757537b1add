"""`rota demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Where the files are. Default: the standard library.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=2, max=9, help="How many nodes.")] = 3,
) -> None:
    """Watch three nodes count files, and two of them end. Takes less than a minute.

    It starts an etcd and three nodes on this machine, enqueues a job for every
    Python file of the standard library, kills the process of the master on the
    way, and later every process of another node at once, as when a machine is
    lost. It shows how others take over and how fast, and compares the result
    with a direct count made meanwhile. The exit code is 0 only if every file
    was counted once and all totals agree.
    """
    from ...demo.performance import DemoConfig, Performance
    from ...demo.screen import Screen

    with Screen() as screen:
        performance = Performance(DemoConfig(folder, nodes), screen)
        verdict = asyncio.run(performance.run())
        screen.close_with(performance.epilogue(verdict))
    raise typer.Exit(0 if verdict.good else 1)
