"""Which jobs are in a piece, and who can tell."""

from __future__ import annotations

from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.ledger.ledger import Put
from rota.cluster.state import moves
from rota.cluster.state.discarding import Discards
from rota.cluster.state.quarantine import SetAside, belongs
from rota.cluster.state.records import Token, claim_of, decode, header_of, results_in
from rota.cluster.state.splitting import first_of, jobs_in, pieces
from tests.cluster.node.bench import BUNDLE, KEYS, NODE, Bench, body, play, token

SEAL = Seal(UNSIGNED, "c")
DONE = "2f"         # of ten jobs 0 to 3 and 5 have ended
LEFT = [4, 6, 7, 8, 9]


def cut(size: int) -> list[tuple[str, Token, bytes]]:
    return pieces(SEAL, BUNDLE, token(10, done=DONE), body(count=10), size)


def test_a_piece_says_which_jobs_are_in_it() -> None:
    (first, one, _), (second, other, _) = cut(3)
    assert (jobs_in(first, one), jobs_in(second, other)) == ([4, 6, 7], [8, 9])
    assert jobs_in(first, token(3, part=one.part, done="50")) == [7]
    ((name, single, _), *_) = cut(1)
    assert jobs_in(name, single) == [4] and not single.part
    assert jobs_in(BUNDLE, token(10, done=DONE)) == LEFT
    assert jobs_in(first, token(3)) is None and first_of(first, token(3)) == 4      # as the release before wrote it


def test_so_does_what_a_node_gives_back_and_what_is_tried_again() -> None:
    claim = claim_of(token(10), 5)
    back = moves.give_back(KEYS, SEAL, KEYS.claim(NODE, BUNDLE), BUNDLE, claim, body(count=10), [3, 5, 6], 2)
    again = [([1, 4], token(10), 1_000), ([2, 3], token(10), 9_000)]
    later = moves.retry(KEYS, SEAL, KEYS.claim(NODE, BUNDLE), BUNDLE, body(count=10), 0, again)
    found = {}
    for put in (*back, *later):
        if isinstance(put, Put) and put.key.startswith((KEYS.jobs, KEYS.scheduled)):
            name = put.key.rpartition(b"/")[2].decode()
            found[name.partition(".")[2]] = jobs_in(name, decode(Token, put.value) or token())
    assert found == {"03": [3, 5], "06": [6], "01": [1, 4], "02": [2, 3]}


def test_a_body_of_other_jobs_is_not_its_own() -> None:
    (name, one, own), (_, _, other) = cut(2)[:2]
    header, foreign = header_of(own), header_of(other)
    assert header is not None and belongs(header, name, one)
    assert foreign is not None and not belongs(foreign, name, one)


def test_when_its_body_is_gone_each_of_its_jobs_is_set_aside_and_who_waits_is_told() -> None:
    """Only the first was: of the others nothing was left, and who waited for them did so for ever."""
    name, one, _ = cut(5)[0]

    async def deed(bench: Bench) -> None:
        record = await bench.claim(name, claim=claim_of(one, 5), stored=b"")
        await bench.delete(KEYS.body(name))
        aside = SetAside(bench.ledger, KEYS, bench.clock, bench.context.seal, bench.context.buckets)

        await bench.commits.submit(await aside.fail((), record, claim_of(one, 5), "body missing"))
        assert await bench.names(KEYS.failed) == [f"q/{BUNDLE}-{index}" for index in LEFT]
        (notice,) = (await bench.ledger.read(KEYS.results, KEYS.results + b"\xff")).records
        assert [entry.index for entry in results_in(notice.value).entries] == LEFT

    play(deed)


def test_when_its_body_is_gone_who_waits_hears_that_it_was_cancelled() -> None:
    name, one, _ = cut(5)[0]

    async def deed(bench: Bench) -> None:
        record = await bench.claim(name, claim=claim_of(one, 5), stored=b"")
        await bench.delete(KEYS.body(name))
        discards = Discards(bench.ledger, KEYS, bench.context.seal, bench.context.buckets)
        write = await discards.waiting((), record, one)
        assert write is not None and (await bench.commits.submit(write)).applied
        (notice,) = (await bench.ledger.read(KEYS.results, KEYS.results + b"\xff")).records
        assert [entry.index for entry in results_in(notice.value).entries] == LEFT

    play(deed)
