"""Jobs without persistence (level `none`): they live in the memory of the node that took them, and nowhere else.

The fastest, and lost if the node ends. Retries happen here too; results are pushed to who waits at this node, and
failures are logged.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from rota.client.codec import Seal, encode_results
from rota.client.errors import EnqueueError, InvalidJob, Overloaded
from rota.client.ids import job_id
from rota.client.model import Enqueue, Outcome, Receipt, ResultEntry, Results
from rota.worker.pool.runners import Runners, Work

from ..events.hub import Events
from ..events.records import VolatileFailed
from .intake import VerifiedBody

JOBS_MAX = 10_000
"""Jobs without persistence that a node holds at a time; more are refused."""

RESULTS_MAX = 10_000
FIRST_KEY = 1 << 40
"""Keys of works that have no claim begin here."""


class _Bundle(msgspec.Struct, gc=False):
    work: Work
    payloads: dict[int, bytes]
    attempts: dict[int, int]


class Volatile:
    """One node's. `push(bundle, results)` reaches who waits for them; `may_take` says whether what is taken now could
    run."""

    def __init__(
        self, runners: Runners, seal: Seal, push: Callable[[str, bytes], None], may_take: Callable[[], bool],
        events: Events,
    ) -> None:
        self._runners = runners
        self._seal = seal
        self._push = push
        self._may_take = may_take
        self._events = events
        self._bundles: dict[int, _Bundle] = {}
        self._next_key = FIRST_KEY
        self._jobs = 0
        self._results: OrderedDict[str, list[bytes]] = OrderedDict()

    @property
    def held(self) -> int:
        return self._jobs

    def take(
        self, bundle: Enqueue, body: VerifiedBody, refusal: EnqueueError | None = None
    ) -> Receipt | EnqueueError:
        """Hand a bundle to the runners at once, unless there is a reason not to. A repeat is told what was done."""
        if bundle.bundle in self._results:
            return Receipt(bundle.bundle, 0, 0, "none")
        if refusal is not None:
            return refusal
        if bundle.task not in self._runners.tasks or bundle.delay_s or bundle.function:
            return InvalidJob(
                "a job without persistence runs at once on the node that takes it: that node must know its task, and "
                "it cannot be delayed or shipped by value"
            )
        if not self._may_take():
            return Overloaded("this node is leaving, or cut off from the store; try another", 0.2)
        if self._jobs + bundle.count > JOBS_MAX:
            return Overloaded(
                f"this node holds {self._jobs:,} jobs without persistence, and {JOBS_MAX:,} at the most: wait for some "
                "to end, or enqueue durably", 0.5,
            )
        _, header, jobs = body
        work = Work(
            self._next_key, bundle.bundle, header.task, header.queue, header.mode, 1, 0, header.enqueued_at,
            header.codec, jobs, None, header.options,
        )
        self._next_key += 1
        self._jobs += len(jobs)
        self._bundles[work.key] = _Bundle(work, dict(jobs), {index: 1 for index, _ in jobs})
        self._results[bundle.bundle] = []
        while len(self._results) > RESULTS_MAX:
            self._results.popitem(last=False)
        self._runners.submit(work)
        return Receipt(bundle.bundle, 0, 0, "none")

    def past(self, bundle: str) -> list[bytes] | None:
        """Results so far of a bundle that was taken here; None if it was not."""
        return self._results.get(bundle)

    def on_outcome(self, key: int, outcome: Outcome) -> None:
        held = self._bundles.get(key)
        if held is None or outcome.index not in held.attempts:
            return
        if outcome.status in ("retry", "snooze"):
            held.attempts[outcome.index] += outcome.status == "retry"
            asyncio.get_running_loop().call_later(outcome.delay_s, self._again, held, outcome.index)
            return
        attempts = held.attempts.pop(outcome.index)
        self._jobs -= 1
        if not held.attempts:
            del self._bundles[key]
        name = held.work.bundle
        if outcome.status == "failed":
            self._events.emit(VolatileFailed(job_id(name, outcome.index), outcome.error))
        entry = ResultEntry(
            outcome.index, outcome.status if outcome.status in ("ok", "cancelled") else "failed", outcome.value,
            outcome.error, outcome.traceback, attempts, outcome.codec,
        )
        results = self._seal.keyring.sign_results(Results(name, [entry]), self._seal.cluster)
        record = encode_results(results)
        if name in self._results:
            self._results[name].append(record)
        self._push(name, record)

    def _again(self, held: _Bundle, index: int) -> None:
        if index in held.attempts and held.work.key in self._bundles:
            attempt = held.attempts[index]
            self._runners.submit(msgspec.structs.replace(
                held.work, attempt=attempt, jobs=[(index, held.payloads[index])]
            ))

    def lost(self) -> int:
        """The runners were killed: what was in them is gone. Returns how many jobs that were."""
        lost, self._jobs = self._jobs, 0
        self._bundles.clear()
        return lost
