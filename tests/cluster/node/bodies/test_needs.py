"""What a verified bundle lacks before it may run."""

from __future__ import annotations

from typing import Any

from rota.client.model import Header
from rota.cluster.ledger.ledger import Record
from rota.cluster.node.bodies.inputs import Elsewhere
from rota.cluster.node.bodies.loading import Found
from rota.cluster.node.bodies.needs import Needs
from rota.cluster.node.claims.held import Held
from rota.cluster.state.records import claim_of

from ..bench import BUNDLE, token


class Bodies:
    """What a look at the store gives."""

    code: bytes | None = None
    inputs_: object = None
    steps_: object = None

    def function(self, header: Header) -> bytes | None:
        return self.code

    async def fetch_function(self, held: Held) -> Found:
        self.code = b"code"
        return Found(held)

    async def inputs(self, held: Held) -> Any:
        return self.inputs_

    async def steps(self, held: Held) -> Any:
        return self.steps_


def held_of(function: str = "", **claim: object) -> Held:
    made = claim_of(token(2, **claim), 5)
    header = Header(BUNDLE, "m:f", "q", "async", [0, 1], [1, 1], 0.0, function=function)
    return Held(1, BUNDLE, Record(b"", b"", 1, 1, 1), made, header, jobs=[(0, b""), (1, b"")])


async def test_what_has_all_it_needs_lacks_nothing() -> None:
    assert Needs(Bodies()).of(held_of()) is None  # type: ignore[arg-type]


async def test_code_is_fetched_once_and_put_in_place() -> None:
    needs, held = Needs(Bodies()), held_of(function="f" * 64)  # type: ignore[arg-type]
    assert needs.of(held) == "function"
    assert await needs.fetch(held, "function") == Found(held)
    assert needs.of(held) is None and held.code == b"code"


async def test_what_it_gets_of_others_comes_before_what_it_remembers() -> None:
    bodies = Bodies()
    needs, held = Needs(bodies), held_of(inputs=True, steps=True)  # type: ignore[arg-type]
    bodies.inputs_, bodies.steps_ = {"b": []}, {0: {}}
    assert needs.of(held) == "inputs"
    await needs.fetch(held, "inputs")
    assert held.inputs == {"b": []} and needs.of(held) == "steps"
    await needs.fetch(held, "steps")
    assert held.memory is not None and needs.of(held) is None


async def test_what_cannot_be_read_is_refused_or_goes_to_others() -> None:
    bodies = Bodies()
    needs, held = Needs(bodies), held_of(inputs=True)  # type: ignore[arg-type]
    bodies.inputs_ = "inputs unreadable"
    assert await needs.fetch(held, "inputs") == Found(held, refused="inputs unreadable")
    bodies.inputs_ = Elsewhere("k2")
    assert await needs.fetch(held, "inputs") == Found(held, elsewhere="k2")
    held.over = True            # it left meanwhile
    assert await needs.fetch(held, "inputs") is None
