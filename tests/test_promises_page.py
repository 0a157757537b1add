"""docs/promises.md is complete, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = dict(re.findall(r"^\| ([ETQXB]\d+) (\|.*)\|$", (ROOT / "docs" / "promises.md").read_text(), re.MULTILINE))
NUMBERS = {"E": 17, "T": 49, "Q": 14, "X": 15, "B": 15}


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
