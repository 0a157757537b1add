"""How a run of the simulation names its jobs."""

from __future__ import annotations

from rota.cluster.state.keys import whole


def job_name(bundle: str, index: int) -> str:
    """`<bundle>/<index>`, as keys of the store have it. Dice are thrown by it: another name would be another run."""
    return f"{whole(bundle)}/{index}"
