"""The README and the documentation tell the truth: commands exist, links lead somewhere, code runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import rota

from .acceptance.processes import ROTA, Running, dev, environment

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("examples/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def shell_lines(page: Path) -> list[str]:
    return shell_lines_of("\n".join(blocks(page, "sh")))


def shell_lines_of(text: str) -> list[str]:
    """Commands, without comments; a line that ends with a backslash goes on."""
    joined = text.replace("\\\n", " ")
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
            if f"Usage: rota {words[1]} [OPTIONS] COMMAND" in shown and len(words) > 2:
                shown = help_of(words[1], words[2])
            for flag in (word.partition("=")[0] for word in words[2:] if word.startswith("--")):
                assert flag in shown, line


_shown: dict[tuple[str, ...], str] = {}


def help_of(*command: str) -> str:
    if command not in _shown:
        done = subprocess.run([ROTA, *command, "--help"], env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        _shown[command] = done.stdout
    return _shown[command]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


# -- followed, word for word -------------------------------------------------------------------------------------------

ELSEWHERE = {
    "make demo", "make test", "git clone … rota && cd rota", "make setup && . .venv/bin/activate",
}
"""Commands of the README and of the tutorial that other tests run, or that run these tests."""

SHOWS = {
    "rota enqueue shop:thumbnail cat.jpg": r"\w+_0\n",
    "rota enqueue shop:thumbnail cat.jpg --set width=120 --wait": r"cat\.jpg at 120 pixels\n",
    "rota enqueue shop:divide 1 0 --wait": r"",
    "rota failed": r"(?s).*shop:divide .*ZeroDivisionError: division by zero",
    "rota nodes": r"(?s).*node-[123]-\w+ +master",
    "rota enqueue shop:nap 20": r"\w+_0\n",
    "rota jobs --place running": r"",
}
"""What each of the others prints."""
FAILS = {"rota enqueue shop:divide 1 0 --wait": 1}


class Reader:
    """Somebody who reads a page and does what it says, in a folder of his own."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self._program = ""
        self._node = contextlib.ExitStack()
        self.node: Running | None = None

    def __enter__(self) -> Reader:
        for language, text in BLOCK.findall(self.page.read_text()):
            if language == "python":
                self._write(text)
            elif language == "sh":
                for line in shell_lines_of(text):
                    self._type(line)
        return self

    def __exit__(self, *_: object) -> None:
        self._node.close()

    def _write(self, code: str) -> None:
        """The first block is the tasks; what follows is one program, which is run as far as it goes."""
        if not (self.folder / "shop.py").exists():
            (self.folder / "shop.py").write_text(code)
            return
        self._program += code
        (self.folder / "program.py").write_text(self._program)
        assert self.node is not None, "the page starts no node before its program"
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=self.folder, env=environment(ROTA_URL=self.node.url),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "cat.jpg at 120 pixels" in done.stdout

    def _type(self, line: str) -> None:
        command, *arguments = line.split()
        if line in ELSEWHERE:
            return
        if command == "export":
            assert arguments == ["ROTA_URL=http://127.0.0.1:4100-4102"]     # what `rota dev --nodes 3` listens on
            assert self.node is not None
            first = int(self.node.url.rpartition(":")[2])
            self.node = replace(self.node, url=f"http://127.0.0.1:{first}-{first + 2}")
            return
        if [command, *arguments[:1]] == ["rota", "dev"]:
            self._node.close()
            self.node = self._node.enter_context(dev(self.folder, *arguments[1:]))
            return
        assert command == "rota" and line in SHOWS, f"no test knows what {line!r} should print"
        assert self.node is not None
        done = self.node.rota(*arguments, cwd=self.folder)
        assert done.returncode == FAILS.get(line, 0), done.stderr
        assert re.match(SHOWS[line], done.stdout), f"{line}: {done.stdout}"


def test_the_readme_can_be_followed(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    with Reader(page, tmp_path) as reader:
        for line in re.findall(r"`(rota enqueue [^`\n]+)`", page.read_text()):
            reader._type(line)


@pytest.mark.timeout(300)       # two dozen processes
def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    with Reader(ROOT / "docs" / "tutorial.md", tmp_path) as reader, contextlib.ExitStack() as stack:
        node = reader.node
        assert node is not None
        client = stack.enter_context(rota.Client(node.url))
        job = client.enqueue("shop:nap", 120).id        # as on the page, and longer than a busy machine takes to look
        first = until_running(client, job, lambda name: True)
        (process,) = re.findall(rf"^{first[:6]}: ready at \S+, process (\d+)", node.log.read_text(), re.MULTILINE)
        os.kill(int(process), signal.SIGKILL)
        until_running(client, job, lambda name: name != first)
        assert [one.node == first for one in client.job(job).history] == [True, False]
        client.cancel(job)
        fits = node.rota("enqueue", "shop:thumbnail")
        assert fits.returncode == 4 and "missing a required argument: 'path'" in fits.stderr, fits


def until_running(client: rota.Client, job: str, on: Callable[[str], bool]) -> str:
    """The name of the node that runs it."""
    deadline = time.monotonic() + 60
    while True:
        for view in client.jobs("running").jobs:
            if view.id == job and on(view.node):
                return view.node
        assert time.monotonic() < deadline, client.job(job)
        time.sleep(0.1)


def test_the_index_names_every_page() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(LINK.findall((ROOT / "docs" / "index.md").read_text()))


def test_internals_name_files_that_exist() -> None:
    """A rename updates docs/internals.md in the same commit."""
    page = ROOT / "docs" / "internals.md"
    named = re.findall(r"`((?:client|worker|cluster|tests)/[\w/]+\.py)`", page.read_text())
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
