"""Which sections of flows are there, and what waits for those that are not."""

from __future__ import annotations

from rota.cluster.ledger.ledger import Event, Record
from rota.cluster.master.duties.flows import Sections
from rota.cluster.state.keys import Keys

KEYS = Keys("t")
FLOW, MORE = "0s8sf4s75de1-00000009", "0s8sf4s75de1-0000000a"


def event(key: bytes, *, deleted: bool = False) -> Event:
    return Event(deleted, Record(key, b"", 1, 1, 1))


def test_what_waits_for_a_section_goes_on_once_it_is_there() -> None:
    sections = Sections(KEYS)
    sections.hold(MORE, b"one")
    sections.hold(MORE, b"two")
    sections.let_go(MORE, b"two")
    assert sections.see(event(KEYS.section(FLOW, MORE))) == {b"one"}
    assert sections.is_there(MORE) and FLOW in sections.to_load and not sections.held(MORE)
    assert sections.see(event(KEYS.section(FLOW, MORE))) == set()


def test_a_section_that_is_no_longer_on_its_way_is_doubtful_if_somebody_waits_for_it() -> None:
    sections = Sections(KEYS)
    sections.see(event(KEYS.section_open(MORE), deleted=True))
    assert not sections.doubtful
    sections.hold(MORE, b"one")
    sections.see(event(KEYS.section_open(MORE)))
    assert not sections.doubtful
    sections.see(event(KEYS.section_open(MORE), deleted=True))
    assert list(sections.doubtful) == [MORE]
    sections.see(event(KEYS.section(FLOW, MORE)))
    assert not sections.doubtful


def test_with_its_flow_all_its_sections_are_forgotten() -> None:
    sections = Sections(KEYS)
    sections.see(event(KEYS.flow(FLOW)))
    sections.see(event(KEYS.section(FLOW, FLOW)))
    sections.see(event(KEYS.section(FLOW, MORE)))
    sections.see(event(KEYS.flow(FLOW), deleted=True))
    assert sections.over == [FLOW] and not sections.to_load
    assert not sections.is_there(FLOW) and not sections.is_there(MORE)
