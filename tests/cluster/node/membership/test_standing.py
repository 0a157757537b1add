"""How a node stands at present."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rota.cluster.node.membership.standing import Standing


def member(*, sure: bool = True) -> Standing:
    standing: Any = Standing()
    standing.context, standing.membership = object(), SimpleNamespace(is_sure=sure)
    return standing  # type: ignore[no-any-return]


def test_it_is_sure_while_its_lease_is_and_it_stays() -> None:
    assert member().is_sure
    assert not member(sure=False).is_sure
    assert not Standing().is_sure
    leaving = member()
    leaving.leaving.set()
    assert not leaving.is_sure


def test_with_its_identity_goes_what_lay_under_it() -> None:
    standing = member()
    claims, standing.is_master = standing.claims, True
    standing.ended()
    assert standing.context is None and standing.tasks is None and not standing.is_master
    assert standing.claims is not claims and not standing.is_sure
