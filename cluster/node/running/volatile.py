"""Jobs without persistence (level `none`): they live in the memory of the node that took them, and nowhere else.

The fastest, and lost if the node ends. Retries happen here too; results are pushed to who waits at this node. What
fails for good goes to the failed set, where it can be looked at, and retried as a job like any other.
"""

from __future__ import annotations

import asyncio

import msgspec

from rota.client.errors import EnqueueError, InvalidJob, Overloaded
from rota.client.ids import job_id
from rota.client.model import Enqueue, Outcome, Receipt, ResultEntry, Results
from rota.client.wire.codec import encode_results
from rota.client.wire.keyring import Seal
from rota.worker.channel.frames import Work
from rota.worker.pool.interface import Runners

from ...events.hub import Events
from ...events.records import JobEnded, JobStarted, VolatileFailed, VolatileLost
from ...recent import Recent
from ..bodies.cache import VerifiedBody
from ..claims.held import LocalJob
from ..membership.standing import Standing
from ..outcomes.followers import Followers
from ..outcomes.keeping import KeptFailures
from ..outcomes.settle import GOES_ON

JOBS_MAX = 10_000
"""Jobs without persistence that a node holds at a time; more are refused."""

RESULTS_MAX = 10_000
FIRST_KEY = 1 << 40
"""Keys of works that have no claim begin here."""


class _Bundle(msgspec.Struct, gc=False):
    work: Work
    body: bytes
    payloads: dict[int, bytes]
    attempts: dict[int, int]
    resting: set[int] = set()       # they wait for their next attempt


class Volatile:
    """One node's. What has failed for good is kept (`failures`); results go to who waits at this node, and into
    `results`, for who asks later."""

    def __init__(
        self, runners: Runners, seal: Seal, followers: Followers, standing: Standing, events: Events,
        failures: KeptFailures, results: Recent[str, list[bytes]],
    ) -> None:
        self._runners = runners
        self._seal = seal
        self._followers = followers
        self._standing = standing
        self._events = events
        self._failures = failures
        self._results = results
        self._bundles: dict[int, _Bundle] = {}
        self._by_name: dict[str, int] = {}
        self._next_key = FIRST_KEY
        self._jobs = 0

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
        if not self._standing.is_sure:
            return Overloaded("this node is leaving, or cut off from the store; try another", 0.2)
        if self._jobs + bundle.count > JOBS_MAX:
            return Overloaded(
                f"this node holds {self._jobs:,} jobs without persistence, and {JOBS_MAX:,} at the most: wait for some "
                "to end, or enqueue durably", 0.5,
            )
        header, jobs = body[1], body[2]
        mode = self._runners.tasks[bundle.task].mode        # whatever it was when it was enqueued
        work = Work(
            self._next_key, bundle.bundle, header.task, header.queue, mode, 1, 0, header.enqueued_at,
            header.codec, jobs, None, header.options, self._events.wanted(JobStarted),
        )
        self._next_key += 1
        self._jobs += len(jobs)
        self._bundles[work.key] = _Bundle(work, body[0], dict(jobs), {index: 1 for index, _ in jobs})
        self._by_name[bundle.bundle] = work.key
        self._results.put(bundle.bundle, [])
        self._runners.submit(work)
        return Receipt(bundle.bundle, 0, 0, "none")

    def cancel(self, bundle: str, index: int) -> bool:
        """Cancel a job that lies here; False if it does not. One that waits for its next attempt is over at once."""
        key = self._by_name.get(bundle, 0)
        held = self._bundles.get(key)
        if held is None or index not in held.attempts:
            return False
        if index in held.resting:
            self.on_outcome(key, Outcome(index, "cancelled", error="cancelled"))
        else:
            self._runners.cancel(key, index)
        return True

    def find(self, bundle: str, index: int) -> LocalJob | None:
        """A job that lies here, whether it has begun or not."""
        return self.job_of(self._by_name.get(bundle, 0), index)

    def job_of(self, key: int, index: int) -> LocalJob | None:
        """Which job the runners mean."""
        held = self._bundles.get(key)
        if held is None or index not in held.attempts:
            return None
        work = held.work
        return LocalJob(work.bundle, index, work.task, work.queue, held.attempts[index], True)

    def past(self, bundle: str) -> list[bytes] | None:
        """Results so far of a bundle that was taken here; None if it was not."""
        return self._results.get(bundle)

    def on_outcome(self, key: int, outcome: Outcome) -> None:
        held = self._bundles.get(key)
        if held is None or outcome.index not in held.attempts:
            return
        self._events.runs_ended(held.work.task, (outcome,))
        if self._events.wanted(JobEnded):
            work = held.work
            self._events.emit(JobEnded(
                work.bundle, outcome.index, work.task, work.queue, held.attempts[outcome.index], outcome.status,
                outcome.error, outcome.ran_s,
            ))
        if outcome.status in GOES_ON:
            held.attempts[outcome.index] += outcome.status == "retry"
            held.resting.add(outcome.index)
            asyncio.get_running_loop().call_later(outcome.delay_s, self._again, held, outcome.index)
            return
        attempts = held.attempts.pop(outcome.index)
        self._jobs -= 1
        if not held.attempts:
            del self._bundles[key], self._by_name[held.work.bundle]
        name = held.work.bundle
        if outcome.status == "failed":
            self._events.emit(VolatileFailed(job_id(name, outcome.index), outcome.error))
            self._failures.keep(held.work, held.body, attempts, outcome)
        entry = ResultEntry(
            outcome.index, outcome.status if outcome.status in ("ok", "cancelled") else "failed", outcome.value,
            outcome.error, outcome.traceback, attempts, outcome.codec,
        )
        results = self._seal.keyring.sign_results(Results(name, [entry]), self._seal.cluster)
        record = encode_results(results)
        if (results_so_far := self._results.get(name)) is not None:
            results_so_far.append(record)
        self._followers.publish(name, record)

    def _again(self, held: _Bundle, index: int) -> None:
        held.resting.discard(index)
        if index not in held.attempts or held.work.key not in self._bundles:
            return
        info = self._runners.tasks.get(held.work.task)
        if info is None:
            gone = f"task {held.work.task} was to be tried again, and the code of its node does not have it any more"
            self.on_outcome(held.work.key, Outcome(index, "failed", error=gone))
            return
        self._runners.submit(msgspec.structs.replace(
            held.work, attempt=held.attempts[index], mode=info.mode, jobs=[(index, held.payloads[index])]
        ))

    def lose(self) -> None:
        """The runners are killed, and with them what lies nowhere else."""
        lost, self._jobs = self._jobs, 0
        self._bundles.clear()
        self._by_name.clear()
        if lost:
            self._events.emit(VolatileLost(lost))
