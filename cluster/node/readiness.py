"""Why a node should be given nothing now: what `/readyz` says."""

from __future__ import annotations

from rota.worker.pool.interface import Runners

from ..state.directory import Directory
from .identities import Identities
from .membership.reach import Reach
from .membership.standing import Standing


class Readiness:
    def __init__(
        self, standing: Standing, identities: Identities, reach: Reach, runners: Runners, directory: Directory
    ) -> None:
        self._standing = standing
        self._identities = identities
        self._reach = reach
        self._runners = runners
        self._directory = directory

    def why_not(self) -> str | None:
        """One sentence, for people; None if it is ready."""
        if self._standing.leaving.is_set():
            return "leaving"
        life, membership = self._identities.life, self._standing.membership
        if life is None or membership is None:
            return f"not a member of the cluster now: {(membership and membership.joining) or self._standing.phase}"
        if not membership.is_sure:
            return "the store has not renewed its lease in time: nothing runs here until it answers"
        if not membership.may_start():
            return "the store does not renew its lease: nothing is begun here until it answers"
        if (unserved := self._reach.why_not(life.context.commits.waits_s)) is not None:
            return unserved
        if self._runners.trouble is not None:
            return self._runners.trouble
        if not self._runners.stand:
            return "no runner stands: they were killed, and start again"
        if life.intake.full is not None:
            return life.intake.full
        if not life.admission.registered.is_set():
            return "still registering its tasks"
        return None if self._directory.listed.is_set() else "still listing the cluster"
