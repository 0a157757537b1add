"""What waits for jobs, put down as the watch shows it."""

from __future__ import annotations

from rota.client.model import Upstream
from rota.cluster.ledger.ledger import Changes, Event, Record
from rota.cluster.master.duties.awaited import Awaited
from rota.cluster.master.duties.flows import Sections
from rota.cluster.master.duties.notes import Notes
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Awaiting, encode

KEYS = Keys("t")
WAITS, UPSTREAM, FLOW = "0s8sf4s75de1-00000004", "0s8sf4s75de1-00000005", "0s8sf4s75de1-00000009"
KEY = KEYS.awaits("q", WAITS)


def token(**more: object) -> bytes:
    made = Awaiting("m:f", "q", 0, 7, 1, "sync", 0, upstream=(Upstream(UPSTREAM, jobs="3"),), **more)  # type: ignore[arg-type]
    return encode(made)


class Stage:
    def __init__(self) -> None:
        self.awaited, self.sections = Awaited(), Sections(KEYS)
        self.notes = Notes(KEYS, self.awaited, self.sections)

    def see(self, key: bytes, value: bytes | None, revision: int = 10) -> None:
        record = Record(key, value or b"", revision, revision, 1)
        self.notes.see(Changes(revision, [Event(value is None, record)]))


def test_a_token_waits_and_its_bundles_are_looked_at_when_something_becomes_of_them() -> None:
    stage = Stage()
    stage.see(KEY, token())
    assert stage.awaited.waiting[KEY].left == {UPSTREAM: 3} and stage.notes.wake.is_set()
    stage.awaited.to_look.clear()
    for number, key in enumerate((
        KEYS.result(UPSTREAM, 0, 5), KEYS.failed_job("q", UPSTREAM, 1), KEYS.job("q", 0, 7, "another-1"),
    )):
        stage.awaited.to_look.clear()
        stage.see(key, b"", 11 + number)
        assert list(stage.awaited.to_look) == ([UPSTREAM] if number == 1 else [])
    stage.see(KEY, None, 20)
    assert not stage.awaited.waiting and stage.notes.revision == 20


def test_what_is_older_than_what_is_known_changes_nothing() -> None:
    stage = Stage()
    stage.see(KEY, token(), 10)
    stage.see(KEY, token(expires=5), 9)
    known = stage.awaited.waiting[KEY].token
    assert known is not None and known.expires == 0
    stage.see(KEY, token(expires=5), 11)
    known = stage.awaited.waiting[KEY].token
    assert known is not None and known.expires == 5


def test_what_belongs_to_a_section_begins_when_that_is_there() -> None:
    stage = Stage()
    stage.see(KEY, token(flow=FLOW, section=FLOW))
    assert not stage.awaited.waiting[KEY].begun and stage.sections.held(FLOW) == {KEY}
    stage.see(KEYS.section(FLOW, FLOW), b"")
    assert stage.awaited.waiting[KEY].begun and UPSTREAM in stage.awaited


def test_what_cannot_be_read_is_kept_for_who_sets_it_aside() -> None:
    stage = Stage()
    stage.see(KEY, b"nonsense")
    assert [record.key for record in stage.notes.unreadable] == [KEY] and not stage.awaited.waiting
    stage.see(KEYS.awaiting + b"not/ours/at/all", b"nonsense")
    assert len(stage.notes.unreadable) == 1
