"""The API reference says what the docstrings say, and no public name is without one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_is_current() -> None:
    checked = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_name_is_described() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    entries = re.split(r"\n(?=#{2,4} )", text)
    bare = [
        head for entry in entries
        for head, _, rest in [entry.partition("\n")]
        if head.startswith("###") and not re.sub(r"```python.*?```", "", rest, flags=re.DOTALL).strip()
    ]
    assert not bare, bare
