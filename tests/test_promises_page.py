"""docs/promises.md is complete, names tests that exist, and what they assert is known to fail when it is not so."""

from __future__ import annotations

import re
from pathlib import Path

from .acceptance.switches import WITHOUT
from .acceptance.switching import SWITCHES

ROOT = Path(__file__).parent.parent
ROWS = dict(re.findall(r"^\| ([ETQXB]\d+) (\|.*)\|$", (ROOT / "docs" / "promises.md").read_text(), re.MULTILINE))
NUMBERS = {"E": 17, "T": 49, "Q": 14, "X": 15, "B": 15}


SHOWN = {
    row: [f"{file}: {name}" for file, name in re.findall(r"`([\w/]+\.py): (\w+)`", cells)]
    for row, cells in ROWS.items()
}


def test_every_promise_has_its_row() -> None:
    assert set(ROWS) == {f"{letter}{number + 1}" for letter, count in NUMBERS.items() for number in range(count)}
    assert all(row.count("|") == 3 and all(cell.strip() for cell in row[1:].split("|")) for row in ROWS.values())


def test_the_tests_it_names_exist() -> None:
    wrong = [
        f"{promise}: {file}: {name}"
        for promise, row in ROWS.items()
        for file, name in re.findall(r"`([\w/]+\.py): (\w+)`", row)
        if not (ROOT / "tests" / file).exists() or f"def {name}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert not wrong, "\n".join(wrong)


def test_every_row_has_a_switch() -> None:
    """One that takes its feature out and fails a test that the row names; or none of its tests can have one."""
    wrong = [
        f"{row}: no switch for {row} in tests/acceptance/switches is about {', '.join(tests)}"
        for row, tests in SHOWN.items()
        if not any(row in switch.rows and switch.test in tests for switch in SWITCHES.values())
        and not all(test in WITHOUT for test in tests)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_test_it_names_has_a_switch() -> None:
    named = {test for tests in SHOWN.values() for test in tests}
    missed = {switch.test for switch in SWITCHES.values()}
    assert not named - missed - WITHOUT.keys(), "they may not fail at all"
    assert not missed - named, "no row names them"
    assert not WITHOUT.keys() - named | WITHOUT.keys() & missed, "these need no excuse"


def test_the_rows_that_switches_are_about_name_their_tests() -> None:
    wrong = [
        f"{switch.name}: {row} does not name {switch.test}"
        for switch in SWITCHES.values() for row in switch.rows if switch.test not in SHOWN.get(row, [])
    ]
    assert not wrong, "\n".join(wrong)
