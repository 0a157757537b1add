"""The packaging list is complete, and nothing is importable under a second name."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
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


def test_the_image_is_built_from_every_room() -> None:
    """`docker build` says only that a folder is absent, and only where there is an engine."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {Path(folder).parts[0] for folder in setuptools["package-dir"].values()}
    assert rooms <= {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}


def dotted(package: str, folder: Path, init: Path) -> str:
    return ".".join([package, *init.parent.relative_to(folder).parts])


def test_rooms_are_imported_under_one_name() -> None:
    assert rota.client.__name__ == "rota.client"
    assert not {"client", "cluster", "worker"} & sys.modules.keys()


def test_names_that_harnesses_use_are_where_they_were() -> None:
    """They close the default client after each case, and start an etcd, by the names that these had first."""
    import rota.client.calls.default as default
    import rota.client.default as known
    from rota.cluster.boot.embedded import EmbeddedEtcd
    from rota.cluster.embedded import EmbeddedEtcd as Known

    assert known.replace is default.replace and Known is EmbeddedEtcd


def test_links_for_type_checkers_follow_the_rooms() -> None:
    links = {link.name: link.resolve() for link in (ROOT / ".types" / "rota").iterdir() if link.is_symlink()}
    assert links == {
        "client": ROOT / "client",
        "cluster": ROOT / "cluster",
        "worker": ROOT / "worker",
        "outbox": ROOT / "outbox",
        "testing.py": ROOT / "client" / "face" / "testing.py",
        "__init__.py": ROOT / "client" / "face" / "__init__.py",
        "py.typed": ROOT / "client" / "face" / "py.typed",
    }


def test_a_wheel_installs_nothing_but_rota(tmp_path: Path) -> None:
    """Built from a copy: a build leaves folders behind, and takes up what an earlier one has left."""
    source = tmp_path / "source"
    modules = {
        f"rota/{path.relative_to(ROOT)}".replace("rota/client/face/", "rota/")
        for name in ("client", "cluster", "outbox", "worker") for path in (ROOT / name).rglob("*.py")
    }
    for name in ("client", "cluster", "outbox", "worker"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check",
         "--wheel-dir", tmp_path, source],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"rota"}
    assert {name for name in names if name.endswith(".py")} == modules
    assert "rota/py.typed" in names
    pages = {f"rota/{path.relative_to(ROOT)}" for path in (ROOT / "cluster" / "dashboard").glob("[ts]*/*")}
    assert pages and pages <= set(names)


def test_a_folder_of_the_same_name_does_not_shadow_the_package(tmp_path: Path) -> None:
    """A script beside a clone named `rota`: the install must win over the bare folder."""
    (tmp_path / "rota").mkdir()
    (tmp_path / "script.py").write_text("import rota; print(rota.task.__name__)")
    ran = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "task\n", ran.stderr


def test_type_checkers_resolve_the_install_from_a_users_project(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import rota\n\n@rota.task\ndef add(a: int, b: int) -> int:\n    return a + b\n\n"
        "add.enqueue(1, b='2')\nreveal_type(add.enqueue(1, b=2).result())\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "app.py"], cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert 'Argument "b" to "enqueue" of "Task" has incompatible type "str"' in checked.stdout, checked.stdout
    assert 'Revealed type is "int"' in checked.stdout and "Found 1 error" in checked.stdout


MIRRORED = ("cluster/node", "cluster/master")
TESTED_IN = {       # by the test of the part that they are a part of
    "cluster/node/bodies/cache.py": "bodies/test_body_cache.py",
    "cluster/node/bodies/loading.py": "bodies/test_bodies.py",
    "cluster/node/claims/held.py": "claims/test_claims.py",
    "cluster/node/claims/table.py": "claims/test_claims.py",
    "cluster/node/outcomes/settle.py": "outcomes/test_outcomes.py",
    "cluster/node/running/leaving.py": "running/test_running.py",
    "cluster/node/settings.py": "test_node.py",
    "cluster/master/dispatch/aggregator.py": "dispatch/test_dispatch.py",
    "cluster/master/dispatch/commands.py": "dispatch/test_dispatch.py",
    "cluster/master/dispatch/expiries.py": "dispatch/test_dispatch.py",
    "cluster/master/dispatch/pages.py": "dispatch/test_dispatch.py",
    "cluster/master/dispatch/picture.py": "dispatch/test_first_pages.py",
    "cluster/master/dispatch/queues.py": "dispatch/test_dispatch.py",
    "cluster/master/dispatch/turns.py": "dispatch/test_dispatch.py",
    "cluster/master/duties/due.py": "duties/test_scheduler.py",
    "cluster/master/duties/flags.py": "duties/test_lending.py",
    "cluster/master/duties/operation.py": "duties/test_bulk.py",
}


def test_each_module_of_a_node_and_of_a_master_has_a_test_of_its_own() -> None:
    """It lies where the module does, and needs neither a store nor processes."""
    modules = {
        str(path.relative_to(ROOT)) for room in MIRRORED for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert TESTED_IN.keys() <= modules, "these are gone: take them off the list"
    without = {
        module for module in modules
        if not (ROOT / "tests" / module).with_name(f"test_{Path(module).name}").exists()
    }
    assert without == TESTED_IN.keys()
    for module, test in TESTED_IN.items():
        room = "/".join(Path(module).parts[:2])
        assert Path(module).stem in (ROOT / "tests" / room / test).read_text(), f"{test} knows nothing of {module}"
