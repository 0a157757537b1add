"""Extract, transform, load as a flow: the sizes of Python's own packages, by the kinds of their files, into a table.

    rota dev --app etl      # a node
    python etl.py           # in another terminal: stores the flow, and prints what its last job returned

One job for each folder reads its files (fan-out), one job gathers what they found (fan-in), and one writes the table
and checks it. `rota flow etl` draws it, and so does the dashboard, at /flows.
"""

import csv
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import cast

import rota

TABLE = Path(tempfile.gettempdir()) / "rota-etl.csv"

Found = dict[str, tuple[int, int]]
"""By kind of file: how many, and their bytes."""


@rota.task(name="etl:extract")
def extract(folder: str) -> Found:
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for path in Path(folder).rglob("*"):
        if path.is_file():
            files[path.suffix] += 1
            sizes[path.suffix] += path.stat().st_size
    return {kind: (files[kind], sizes[kind]) for kind in files}


@rota.task(name="etl:transform")
def transform(parts: list[Found]) -> list[tuple[str, int, int]]:
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for part in parts:
        for kind, (count, size) in part.items():
            files[kind] += count
            sizes[kind] += size
    return sorted(((kind, files[kind], sizes[kind]) for kind in files), key=lambda row: -row[2])


@rota.task(name="etl:load")
def load(rows: list[tuple[str, int, int]]) -> str:
    with TABLE.open("w", newline="") as file:
        csv.writer(file).writerows([("kind", "files", "bytes"), *rows])
    return str(TABLE)


@rota.task(name="etl:check")
def check(rows: list[tuple[str, int, int]], folders: int) -> str:
    with TABLE.open(newline="") as file:
        written = sum(int(row["files"]) for row in csv.DictReader(file))
    assert written == sum(files for _, files, _ in rows), "the table lacks files"
    return f"{written:,} files in {folders} folders are in the table"


def main() -> None:
    stdlib = Path(sysconfig.get_path("stdlib"))
    folders = sorted(path for path in stdlib.iterdir() if path.is_dir() and path.name not in ("site-packages", "test"))
    with rota.flow("etl") as flow:
        parts = extract.enqueue_many([(str(folder),) for folder in folders])
        rows = transform.enqueue(cast(list[Found], parts))
        table = load.enqueue(cast("list[tuple[str, int, int]]", rows))
        check.using(after=table).enqueue(cast("list[tuple[str, int, int]]", rows), len(folders))
    print(f"flow {flow.id} is stored")
    print(flow.result(timeout=60))


if __name__ == "__main__":
    main()
