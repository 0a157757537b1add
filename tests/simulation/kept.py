"""What a master keeps when all is over: nothing that grows with the names that were used.

    L11 of queues, keys, tasks and bundles that are over the master keeps nothing
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from rota.cluster.master.dispatch.aggregator import Aggregator


def kept_by(aggregator: Aggregator, with_settings: Container[str]) -> Iterator[str]:
    """Looked at when nothing waits or runs, and the watch has shown it. `with_settings`: queues that have a record."""
    for name in aggregator.queues:
        if name not in with_settings:
            yield f"queue {name}"
    limits, claims = aggregator.limits, aggregator.claims
    for what, names in (
        ("the count of task", limits.of_task), ("the count of key", limits.of_key), ("what waits for", limits._parked),
        ("a decision over", aggregator.picture.deciding), ("the split of", aggregator._splitting),
        ("claims of the lost node", claims.gone),
    ):
        for thing in names:
            yield f"{what} {thing}"
    for node in claims.nodes.values():
        for bundle in node.held:
            yield f"the claim of {node.name} on {bundle}"
    for gate in aggregator._turns.gates.values():
        if gate.splitting:
            yield f"{gate.splitting} jobs that are being split, at gate {gate.id}"
