"""Clears the object store of what belongs to no job any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..errors import ConfigError, JobUnknown
from ..options import checks as options
from ..wire import offload
from ..wire.views import JobView


class Swept(NamedTuple):
    kept: int
    deleted: int


def sweep(job: Callable[[str], JobView], grace_s: float = offload.GRACE_S, result_s: float = offload.RESULT_S) -> Swept:
    """Ask of each object whether its job is known still: waiting, running, failed, or ended and kept. Those of others
    are deleted when they are old enough. `job`: a client's. Raises `OffloadUnavailable`, what the client raises, and
    `ConfigError` where clusters share the folder: none of them knows the jobs of the others."""
    clusters, objects = offload.content()
    if len(clusters) > 1:
        raise ConfigError(
            f"the object store's folder is used by several clusters ({', '.join(clusters)[:300]}): nothing is deleted. "
            "Give each a folder of its own"
        )
    kept = deleted = 0
    now_s = options.now_s()
    for one in objects:
        if now_s - one.at < (result_s if one.is_result else grace_s):
            kept += 1
            continue
        if _is_known(job, one.job_id):
            kept += 1
        else:
            offload.delete(one.name)
            deleted += 1
    return Swept(kept, deleted)


def _is_known(job: Callable[[str], JobView], id_: str) -> bool:
    try:
        view = job(id_)
        return view.place != "unknown" or view.enqueued_at is not None     # stored, and only its place is not found
    except JobUnknown:
        return False
