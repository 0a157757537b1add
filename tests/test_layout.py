"""The packaging list is complete, and nothing is importable under a second name."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import rota.client
import rota.cluster
import rota.worker

ROOT = Path(__file__).parent.parent
FACE = "rota.client.face"           # ships as `rota` itself


def test_every_package_is_listed() -> None:
    """An editable install hides a package that `packages` forgets; a wheel would silently lack it."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders: dict[str, str] = setuptools["package-dir"]
    found = {"rota"}
    for package, folder in folders.items():
        if package != "rota":
            found |= {dotted(package, ROOT / folder, init) for init in (ROOT / folder).rglob("__init__.py")}
    assert found - {FACE} == set(setuptools["packages"])


def dotted(package: str, folder: Path, init: Path) -> str:
    return ".".join([package, *init.parent.relative_to(folder).parts])


def test_rooms_are_imported_under_one_name() -> None:
    assert rota.client.__name__ == "rota.client"
    assert not {"client", "cluster", "worker"} & sys.modules.keys()


def test_links_for_type_checkers_follow_the_rooms() -> None:
    links = {link.name: link.resolve() for link in (ROOT / ".types" / "rota").iterdir() if link.is_symlink()}
    assert links == {
        "client": ROOT / "client",
        "cluster": ROOT / "cluster",
        "worker": ROOT / "worker",
        "__init__.py": ROOT / "client" / "face" / "__init__.py",
        "py.typed": ROOT / "client" / "face" / "py.typed",
    }
