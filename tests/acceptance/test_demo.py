"""`rota demo` over a small folder; `make demo` does it over the whole standard library."""

from __future__ import annotations

from pathlib import Path

from .processes import rota


def test_every_file_is_counted_once_although_nodes_end(tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"module_{number}.py").write_text("\n".join(f"name_{n} = {n}" for n in range(50 + number)) + "\n")
    (tmp_path / "broken.py").write_text("def\n")
    done = rota("demo", str(tmp_path), "--nodes", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "151 files enqueued",
        "kill -9",
        "the master, crashes",
        "is master",
        "in the cluster  151 files",
        "1 do not parse",
    ):
        assert words in done.stdout, done.stdout
    assert done.stdout.splitlines()[-1] == "Every one of 151 files was counted once, and all totals agree."


def test_nothing_to_count(tmp_path: Path) -> None:
    done = rota("demo", str(tmp_path))
    assert done.returncode == 2
    assert "no .py file" in done.stderr
