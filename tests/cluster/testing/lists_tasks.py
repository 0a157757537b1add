"""Tasks to be listed."""

from __future__ import annotations

import rota


@rota.task(max_per_key=1, key="who")
def keyed(who: str) -> str:
    return who


@rota.task
def plain() -> None:
    return


@rota.task(requires={"gpu"})
def drawn() -> None:
    """No node of the tests has one."""
