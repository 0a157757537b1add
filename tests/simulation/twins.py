"""Jobs of which there must not be two, and jobs that must not begin after some time: who asks for them, and the judge.

    U1  of jobs that have a key for themselves there is one at a time
    U2  a key is there as long as its job has it, and no longer: what holds it is there, whatever has happened
    U3  an enqueue that is told of a job that exists is told of one with its own key
    R1  of a task with a rate, no more jobs are given out in any time than the rate and its burst allow

(A key that is held for a time is on a lease, and is nobody's when that time is over: U2 is not about such. When jobs
expire is judged in `expiry.py`.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from rota.client.errors import RotaError
from rota.client.model import Enqueue, Receipt, Terms
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys, whole
from rota.cluster.state.records import Claim, Token, decode
from rota.cluster.state.uniques import UniqueRecord

from .people import Client
from .plans import QUEUES, SERIAL, TASKS

if TYPE_CHECKING:
    from .process import Process
    from .world import World

TWINS = 15
"""Bundles that are enqueued in a run."""

PACED = "m:paced"

KEYS_OF_TWINS = ("a", "b")


class Twins(Client):
    """Enqueues jobs that want one of two keys for themselves, and jobs that are patient for so long only."""

    def __init__(self, world: World) -> None:
        super().__init__(world, rng=random.Random(f"{world.seed} twins"))

    @property
    def bundles(self) -> int:
        return TWINS

    def _order(self, bundle: str) -> Enqueue:
        rng = self.rng
        if rng.random() < 0.3:
            return self._bundle(bundle, PACED, rng.choice(QUEUES), rng.choice((1, 5)))
        task, queue = rng.choice(("m:sync", "m:async", "m:once")), rng.choice((*QUEUES, SERIAL))
        until = rng.choice(("ended", "ended", "begun", "time"))
        terms = Terms(
            unique=rng.choice(KEYS_OF_TWINS) if rng.random() < 0.8 else "", until=until,
            unique_for_s=1.5 if until == "time" else 0.0,
            on_conflict=rng.choice(("existing", "raise", "replace", "replace")),
            expires_s=rng.choice((0.0, 0.0, 0.3, 2.0)),
        )
        made = self._bundle(
            bundle, task, queue, 1 if terms.unique else rng.choice((1, 5)), delay_s=rng.choice((0.0, 0.0, 0.6, 1.5))
        )
        return msgspec.structs.replace(made, terms=terms)

    async def _ask(self, process: Process, order: Enqueue) -> Receipt | RotaError | None:
        answer = await super()._ask(process, order)
        if not isinstance(answer, Receipt) or not answer.existing:
            return answer
        assert order.terms is not None
        self.world.existing.append((answer.bundle, order.task, order.terms.unique))
        return RotaError("nothing was stored")


class Alone:
    """Judges one revision after the other (U1, U2), then all of it (U3)."""

    def __init__(self, keys: Keys, say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._say = say
        self._given: list[float] = []           # when jobs of the task with a rate were given out
        self._tokens: dict[bytes, Token] = {}
        self._owners: dict[tuple[str, str], dict[bytes, str]] = {}      # (task, key) -> tokens that say they have it
        self._held: dict[tuple[str, str], UniqueRecord] = {}
        self._wanted: dict[str, tuple[str, str]] = {}       # bundle as enqueued -> its task and unique key

    def see(self, entry: Entry) -> None:
        self._see_claims(entry)
        touched: set[tuple[str, str]] = set()
        for change in entry.changes:
            key, deleted, value = change.event.record.key, change.event.deleted, change.event.record.value
            if key.startswith((self._keys.jobs, self._keys.scheduled, self._keys.awaiting, self._keys.claims)):
                kind = Claim if key.startswith(self._keys.claims) else Token
                touched |= self._token(key, None if deleted else decode(kind, value))
            elif key.startswith(self._keys.uniques) and (parsed := self._keys.parse_unique(key)) is not None:
                touched.add(parsed)
                held = None if deleted else decode(UniqueRecord, value)
                if held is None:
                    self._held.pop(parsed, None)
                else:
                    self._held[parsed] = held
                    self._wanted[whole(held.bundle)] = parsed
        for unique in sorted(touched):
            self._judge(unique)

    def _see_claims(self, entry: Entry) -> None:
        for change in entry.changes:
            record = change.event.record
            if record.key.startswith(self._keys.claims) and change.previous is None and not change.event.deleted:
                claim = decode(Claim, record.value)
                if claim is not None and claim.task == PACED:
                    self._given += [entry.at] * claim.pending

    def _check_rate(self) -> None:
        rate = TASKS[PACED].rate
        assert rate is not None
        for first, since in enumerate(self._given):
            for last in range(first + rate.burst, len(self._given)):
                may = rate.burst + (self._given[last] - since) * rate.count / rate.per_s
                if last - first + 1 > may + 1e-6:
                    self._say("R1", f"{last - first + 1} jobs of {PACED} were given out from {since:.3f} s to "
                                    f"{self._given[last]:.3f} s, and {may:.2f} may be")
                    return

    def _token(self, key: bytes, token: Token | None) -> set[tuple[str, str]]:
        touched = set()
        before = self._tokens.pop(key, None)
        if before is not None and before.unique:
            touched.add((before.task, before.unique))
            self._owners[before.task, before.unique].pop(key)
        if token is not None:
            self._tokens[key] = token
            bundle = key.rpartition(b"/")[2].decode()
            if token.unique:
                touched.add((token.task, token.unique))
                self._owners.setdefault((token.task, token.unique), {})[key] = bundle
        return touched

    def _judge(self, unique: tuple[str, str]) -> None:
        owners, held = self._owners.get(unique, {}), self._held.get(unique)
        if len(owners) > 1:
            self._say("U1", f"{' and '.join(sorted(key.decode() for key in owners))} have {unique} each for themselves")
        if held is not None and held.until:
            return
        bundle = held.bundle if held is not None else None
        if bundle not in (owners.values() or [None]):
            self._say("U2", f"{unique} is held for {bundle}, and those that have it are {sorted(owners.values())}")

    def finish(self, existing: Iterable[tuple[str, str, str]]) -> None:
        self._check_rate()
        for bundle, task, key in existing:
            if self._wanted.get(bundle) != (task, key):
                had = self._wanted.get(bundle)
                self._say("U3", f"an enqueue with {(task, key)} was told of {bundle}, which had {had}")
