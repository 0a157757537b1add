"""Enqueues that want a key for themselves, where another job may have it."""

from __future__ import annotations

from msgspec.structs import replace

from rota.client.errors import JobExists
from rota.client.ids import job_id
from rota.client.model import Enqueue, Receipt, Terms
from rota.cluster.ledger.commits import created
from rota.cluster.node.intake.uniques import Uniques, with_terms
from rota.cluster.state import moves
from rota.cluster.state.uniques import Hold

from ..bench import BUNDLE, KEYS, OTHER, Bench, body, play, token


def bundle(**terms: object) -> Enqueue:
    return Enqueue(BUNDLE, "m:f", "q", 1, "async", body(count=1), terms=Terms(unique="k", **terms))  # type: ignore[arg-type]


async def holder(bench: Bench) -> int:
    """Another job has the key, and waits."""
    held = Hold(created(KEYS.unique("m:f", "k"), 0))
    write = moves.enqueue(
        KEYS, (bench.context.member,), OTHER, token(1, unique="k"), body(OTHER, 1), "", 0, hold=held
    )
    verdict = await bench.commits.submit(write)
    assert verdict.applied
    return verdict.revision


def test_a_key_that_is_free_meanwhile_is_held_as_it_was_seen() -> None:
    async def deed(bench: Bench) -> None:
        uniques = Uniques(bench.context)
        met = await uniques.met(bundle())
        assert met == (Hold(created(KEYS.unique("m:f", "k"), 0)), None)
        for_a_time = await uniques.hold(bundle(until="time", unique_for_s=60.0), created(b"k", 0))
        assert for_a_time.lease and for_a_time.until_ms > bench.clock.wall() * 1000

    play(deed)


def test_who_meets_a_holder_gets_what_its_enqueue_asked_for() -> None:
    async def deed(bench: Bench) -> None:
        revision, uniques = await holder(bench), Uniques(bench.context)
        existing = await uniques.met(bundle(on_conflict="existing"))
        assert existing == Receipt(OTHER, revision, 0, existing=True)
        refused = await uniques.met(bundle(on_conflict="raise"))
        assert isinstance(refused, JobExists) and job_id(OTHER, 0) in str(refused)
        met = await uniques.met(bundle(on_conflict="replace"))
        assert isinstance(met, tuple) and met[1] is not None and met[1].bundle == OTHER

    play(deed)


def test_what_a_token_says_of_them() -> None:
    plain = token(1, weight=1)
    assert with_terms(plain, Terms(unique="k", until="begun")).until_begun
    for_a_time = with_terms(plain, Terms(unique="k", until="time", unique_for_s=5.0))
    assert for_a_time.unique == ""          # the job gives none back
    assert with_terms(replace(plain, at=1_000), Terms(expires_s=2.0)).expires == 3_000
    assert with_terms(plain, Terms(weight=3, fair_key="a", rate_key="b", requires=("gpu",))) == replace(
        plain, weight=3, fair="a", rate_key="b", requires=("gpu",)
    )
