"""docs/features.md has all its rows, counts them right, and names tests that exist."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "features.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|([^|]+)\| (yes|in part|no) \|([^|]+)\|([^|]*)\|$", PAGE, re.MULTILINE)


def test_every_feature_has_its_row() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 94))
    counts = Counter(row[2] for row in ROWS)
    told = re.search(r"(\d+) are there, (\d+) in part, (\d+) are not", PAGE)
    assert told is not None and [int(count) for count in told.groups()] == [
        counts["yes"], counts["in part"], counts["no"],
    ]


def test_what_is_there_is_shown_by_tests_that_exist() -> None:
    wrong = [number for number, _, has, _, shown in ROWS if (has != "no") != bool(shown.strip())]
    for number, *_, shown in ROWS:
        for file, name in re.findall(r"`([\w/]+\.py): (\w+)`", shown):
            path = ROOT / "tests" / file
            if not path.exists() or f"def {name}(" not in path.read_text():
                wrong.append(f"{number}: {file}: {name}")
    assert not wrong, wrong
