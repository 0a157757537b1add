"""What a node says of itself at any moment, to telemetry (`telemetry.figures.Observed`)."""

from __future__ import annotations

from rota.worker.pool.interface import Runners

from ..clock import Clock
from ..ledger.ledger import Condition
from ..telemetry.figures import Figures
from .identities import Identities
from .membership.standing import Standing
from .service import Service


class Observation:
    def __init__(
        self, standing: Standing, runners: Runners, identities: Identities, service: Service, clock: Clock
    ) -> None:
        self._standing = standing
        self._runners = runners
        self._identities = identities
        self._service = service
        self._clock = clock

    def identity(self) -> tuple[Condition, int] | None:
        context, membership = self._standing.context, self._standing.membership
        if context is None or membership is None or membership.identity is None:
            return None
        return context.member, membership.identity.lease

    def figures(self) -> Figures:
        context, membership = self._standing.context, self._standing.membership
        identity = membership.identity if membership is not None else None
        lives = context is not None and membership is not None and identity is not None
        return Figures(
            node=self._identities.node, is_master=self._standing.is_master,
            why_not_ready=self._service.why_not_ready(), running=len(self._runners.running()),
            capacity={str(mode): jobs for mode, jobs in self._runners.capacity.items()},
            taken=self._identities.counters[0],
            lease_margin_s=membership.deadline - self._clock.monotonic() if lives and membership is not None else None,
            lease_ttl_s=float(identity.ttl_s) if lives and identity is not None else None,
            commit_backlog=context.commits.backlog if context is not None else 0,
        )
