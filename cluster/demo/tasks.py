"""The job of `rota demo`: look into one Python file. Nodes import this module, as they would yours."""

from __future__ import annotations

import ast
import gc
import io
import tokenize
import warnings
from pathlib import Path
from typing import NamedTuple

from rota.client.tasks.task import task

TOKENIZED_BYTES_MAX = 40_000
"""Tokenizing is slow; larger files are only parsed."""


class Tally(NamedTuple):
    """What a file holds; sums of files add up field by field."""

    lines: int
    names: int      # at the top level: functions, classes, variables, imports
    tokens: int     # 0 for files over the limit

    def plus(self, other: Tally) -> Tally:
        return Tally(self.lines + other.lines, self.names + other.names, self.tokens + other.tokens)


@task(queue="demo", max_attempts=1)
def count(path: str) -> tuple[int, int, int]:
    """Count a file's lines, top-level names and tokens. A file that does not parse makes the job fail."""
    lines, names, tokens = look_into(Path(path))
    return lines, names, tokens


def look_into(file: Path) -> Tally:
    source = file.read_bytes()
    gc.disable()        # a syntax tree has many objects and no cycles: looking for some takes a quarter more time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")     # what a file's author should mend is not our business
            tree = ast.parse(source, file.name)
        names = {name for statement in tree.body for name in _names_of(statement)}
        return Tally(len(source.splitlines()), len(names), _tokens(source))
    finally:
        gc.enable()


def _tokens(source: bytes) -> int:
    if len(source) > TOKENIZED_BYTES_MAX:
        return 0
    return sum(1 for _ in tokenize.tokenize(io.BytesIO(source).readline))


def _names_of(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top level binds."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [statement.name]
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
        case ast.Assign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case _:
            return []
