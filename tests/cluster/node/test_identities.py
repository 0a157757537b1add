"""One identity after the other."""

from __future__ import annotations

import pytest

from rota.client.errors import LedgerError, StoreRewound
from rota.cluster.events.records import IdentityEnded, LeaseExpired, LeaseSurvived, NodeJoined

from .bench import KEYS, a_moment
from .whole import Whole, live


def test_when_its_lease_is_lost_its_runners_die_before_it_joins_again() -> None:
    async def deed(whole: Whole) -> None:
        whole.listen(IdentityEnded, NodeJoined)
        await whole.ready()
        (first,) = await whole.bench.names(KEYS.nodes)
        killed_at_join = []
        whole.node.events.listen(lambda event: killed_at_join.append(whole.runners.killed), [NodeJoined])
        await whole.bench.ledger.revoke((await whole.bench.record(KEYS.node(first))).lease)
        await whole.until(lambda: whole.node.identities.count == 2)
        await whole.ready()
        assert [type(event) for event in whole.events] == [NodeJoined, IdentityEnded, NodeJoined]
        assert killed_at_join == [1] and await whole.bench.names(KEYS.nodes) == [whole.node.service.node] != [first]

    live(deed)


def test_what_the_store_refuses_ends_an_identity_not_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deed(whole: Whole) -> None:
        whole.listen(IdentityEnded)
        await whole.ready()
        life = whole.node.identities.life
        assert life is not None and whole.node.standing.tasks is not None

        async def refused() -> None:
            raise LedgerError("no such range")

        whole.node.standing.tasks.create_task(refused(), name="refused")
        await whole.until(lambda: whole.node.identities.count == 2)
        assert "the store refused this identity: no such range" in whole.events[0].why
        assert whole.node.identities.life is not life

    live(deed)


def test_a_store_that_was_set_back_ends_the_process() -> None:
    async def deed(whole: Whole) -> None:
        await whole.ready()
        assert whole.node.standing.tasks is not None

        async def rewound() -> None:
            raise StoreRewound("it is at 7, and was at 9")

        whole.node.standing.tasks.create_task(rewound(), name="rewound")
        with pytest.raises(ExceptionGroup) as caught:
            await whole.running
        assert caught.group_contains(StoreRewound) and whole.node.identities.life is None

    live(deed)


def test_a_lease_that_survives_is_used_on_and_what_lay_under_it_goes_back() -> None:
    async def deed(whole: Whole) -> None:
        whole.listen(LeaseExpired, LeaseSurvived)
        await whole.ready()
        before = whole.node.service.node
        whole.node.identities.on_suspended()
        whole.node.identities.on_resumed()
        await a_moment()
        assert [type(event) for event in whole.events] == [LeaseExpired, LeaseSurvived]
        assert whole.runners.killed == 1 and whole.node.service.node == before

    live(deed)
