"""How lanes stand in line: each once, however long a stream goes on."""

from __future__ import annotations

from rota.cluster.state.records import Token

from ..table import Table


def stream(table: Table, bundles: int) -> None:
    """One bundle after the other; something of the queue always runs, so it is never forgotten."""
    before: tuple[str, str, Token] | None = None
    for number in range(bundles):
        token = table.job(f"b{number}")
        ((bundle, node),) = table.given()
        table.claimed(node, bundle, token)
        if before is not None:
            table.ended(*before[:2])
        before = (node, bundle, token)


def test_a_stream_leaves_nothing_behind_in_the_line() -> None:
    table = Table()
    table.member("n1", slots=4)
    stream(table, 100)
    (family,) = table.picture.queues["q"].windows[0].families.values()
    assert len(family.heads) <= 2
