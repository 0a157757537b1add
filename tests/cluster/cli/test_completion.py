"""Completion in shells: one command installs it, and bash completes with what it has installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
FILES = {"bash": ".bash_completions/rota.sh", "zsh": ".zfunc/_rota", "fish": ".config/fish/completions/rota.fish"}


def ran(home: Path, *command: str) -> str:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "SHELL": "/bin/bash"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.parametrize("shell", FILES)
def test_one_command_installs_it(tmp_path: Path, shell: str) -> None:
    ran(tmp_path, "rota", "completion", shell, "--install")
    assert "_ROTA_COMPLETE" in (tmp_path / FILES[shell]).read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    ran(tmp_path, "rota", "completion", "--install")
    script = (
        'source "$HOME/.bashrc"; complete -p rota >&2\n'
        'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rota_completion rota; echo "${COMPREPLY[@]}"; }\n'
        "try rota que; try rota failed ret; try rota jobs --pla"
    )
    first, second, third = ran(tmp_path, "bash", "--norc", "-c", script).splitlines()
    assert set(first.split()) == {"queue", "queues"} and second == "retry" and third == "--place"
