"""Runners find the tests' apps; nothing of the machine's own rota settings reaches them."""

from __future__ import annotations

import os

import pytest

from .rig import APPS


@pytest.fixture(autouse=True)
def apps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(APPS), os.environ.get("PYTHONPATH")))))
