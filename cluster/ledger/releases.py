"""Which releases of etcd rota trusts, and how far."""

from __future__ import annotations

import re

from rota.client.errors import StoreTooOld

RECOMMENDED = "3.5.30 or newer"


def release(version: str) -> tuple[int, int, int]:
    """Read "3.5.16" or "3.6.0-rc.1" as numbers. What cannot be read is (0, 0, 0)."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def check_version(version: str, *, embedded: bool = False) -> str | None:
    """Return a warning about this etcd, or None. Raises StoreTooOld for one that is refused; an embedded one, which is
    for trying out, is only warned about."""
    number = release(version)
    if number < (3, 4, 0):
        raise StoreTooOld(f"etcd {version} is not supported: use {RECOMMENDED}")
    if (3, 5, 0) <= number <= (3, 5, 2):
        fault = f"etcd {version} can lose acknowledged writes when it is killed (fixed in 3.5.3)"
        if not embedded:
            raise StoreTooOld(f"{fault}: use {RECOMMENDED}")
        return f"{fault}: for trying out only. Use {RECOMMENDED}, for anything you want to keep"
    if number < (3, 5, 18):
        durability = "a single member can lose a write in a crash, and " if number < (3, 5, 5) else ""
        return f"etcd {version} is old: {durability}watches can miss deletes after a compaction. Use {RECOMMENDED}"
    return None


def progress_is_ordered(version: str) -> bool:
    """Whether an answer to a client's progress request never overtakes events (etcd #15220)."""
    number = release(version)
    return number >= (3, 5, 8) or (3, 4, 25) <= number < (3, 5, 0)
