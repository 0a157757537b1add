"""The README and the documentation tell the truth: commands exist, links lead somewhere, code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .acceptance.processes import ROTA, dev, environment

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("examples/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def shell_lines(page: Path) -> list[str]:
    """Commands, without comments; a line that ends with a backslash goes on."""
    joined = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line.partition("  #")[0].strip() for line in joined.splitlines() if line.strip()]


def test_the_readme_opens_with_demo_and_test_which_are_the_first_targets() -> None:
    assert [line.split()[:2] for line in shell_lines(ROOT / "README.md")[:2]] == [["make", "demo"], ["make", "test"]]
    targets = re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets[:2] == ["demo", "test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    """Every `make X` has its target, every `rota X --flag` its command and flag."""
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in shell_lines(page):
        words = line.removeprefix("$ ").split()
        if words[:1] == ["make"]:
            assert words[1] in targets, line
        if words[:1] == ["rota"] and len(words) > 1:
            shown = help_of(words[1])
            for flag in (word.partition("=")[0] for word in words[2:] if word.startswith("--")):
                assert flag in shown, line


_shown: dict[str, str] = {}


def help_of(command: str) -> str:
    if command not in _shown:
        done = subprocess.run([ROTA, command, "--help"], env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        _shown[command] = done.stdout
    return _shown[command]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "tutorial.md"], ids=lambda page: page.name)
def test_the_code_runs(page: Path, tmp_path: Path) -> None:
    """The first block of Python is the tasks, in shop.py; what follows is a program that uses them."""
    tasks, *programs = blocks(page, "python")
    (tmp_path / "shop.py").write_text(tasks)
    with dev(tmp_path, "--app", "shop", "--sync", "1") as node:
        (tmp_path / "program.py").write_text("\n".join(programs))
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, env=environment(ROTA_URL=node.url), capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "cat.jpg at 120 pixels" in done.stdout
        _, *arguments = re.search(r"rota enqueue shop:[^`\n]+", page.read_text()).group().split()
        said = node.rota(*arguments, *({"--wait"} - set(arguments)))
        assert said.stdout.startswith("cat.jpg at "), said.stderr


def test_internals_name_files_that_exist() -> None:
    """A rename updates docs/internals.md in the same commit."""
    page = ROOT / "docs" / "internals.md"
    named = re.findall(r"`((?:client|worker|cluster|tests)/[\w/]+\.py)`", page.read_text())
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
