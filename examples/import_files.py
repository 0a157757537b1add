"""An import that says how far it is: all functions of Python's own standard library, into a database.

    rota dev --app import_files     # a node
    python import_files.py          # in another terminal: a line for each thing that happens

The job gets its database from its runner (`rota.Depends`), says with `rota.progress` how far it is, and what it logs is
kept with it.
"""

import ast
import logging
import sqlite3
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import rota

log = logging.getLogger(__name__)


def database() -> Iterator[sqlite3.Connection]:
    """Opened when a job of this runner first needs it, closed when the runner ends."""
    connection = sqlite3.connect(Path(tempfile.gettempdir()) / "rota-functions.db", check_same_thread=False)
    connection.execute("CREATE TABLE IF NOT EXISTS functions (module TEXT, name TEXT, UNIQUE (module, name))")
    yield connection
    connection.close()


def transaction(on: sqlite3.Connection = rota.Depends(database)) -> Iterator[sqlite3.Connection]:
    """Of one job: committed at its end, rolled back if it raises."""
    with on:
        yield on


@rota.task(keep_log=100)
def load(folder: str, *, db: sqlite3.Connection = rota.Depends(transaction, scope="job")) -> int:
    paths, found = sorted(Path(folder).glob("*.py")), 0
    for number, path in enumerate(paths, 1):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, UnicodeDecodeError) as error:
            log.warning("%s is left out: %s", path.name, error)
            continue
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        db.executemany("INSERT OR REPLACE INTO functions VALUES (?, ?)", [(path.stem, name) for name in names])
        found += len(names)
        rota.progress(number, len(paths), path.name)
    log.warning("%d functions in %d files", found, len(paths))
    return found


def main() -> None:
    job = rota.NamedTask("import_files:load").enqueue(sysconfig.get_path("stdlib"))
    for event in job.events():
        if event.progress is not None and event.progress.fraction is not None:
            print(f"{event.progress.fraction:4.0%}  {event.progress.note}")
        elif event.line is not None:
            print(f"log   {event.line.text}")
        else:
            print(f"state {event.place}")
    print(f"{job.result(timeout=30)} functions are in the database")


if __name__ == "__main__":
    main()
