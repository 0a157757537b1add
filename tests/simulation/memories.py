"""Jobs that remember what they have done: who does so, and the judge.

    D1  a step is stored under the claim of its job's run, once, and never changed
    D2  what a job remembers stays until it has ended, and is told to every further run
    D3  of jobs that have ended, but for those in the failed set, nothing is remembered
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from rota.client.errors import RotaError
from rota.client.model import Outcome, Step, StepKind
from rota.client.upstream import upstream_of
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys, whole
from rota.worker.channel.frames import Work
from rota.worker.pool.interface import NodeSide

from .history import Job
from .names import job_name

NAP_S = 0.5


class Doing(msgspec.Struct, frozen=True):
    """What a run did: "ran one", a step, or was told that it is stored: "kept one"."""

    what: str
    job: str
    node: str
    fence: int


class Remembering:
    """Of one process's runners: every third job has two steps, and of those every second one sleeps between them, or
    waits for the one beside it in its bundle, half a second at the most (which may end before, later, or be none)."""

    def __init__(self, note: Callable[[str, Work, int], None], wall_ms: Callable[[], float], *, naps: bool) -> None:
        self._note = note
        self._wall_ms = wall_ms
        self._naps = naps
        self._runs: dict[tuple[int, int], asyncio.Task[None]] = {}
        self.asleep: dict[tuple[int, int], Outcome] = {}        # how those end that give their slots back

    def begin(self, node: NodeSide, work: Work, index: int) -> None:
        self.asleep.pop((work.key, index), None)        # of a run that was killed when it was about to rest
        chosen = zlib.crc32(f"steps {job_name(work.bundle, index)}".encode())
        if chosen % 3 == 0:
            self._runs[work.key, index] = asyncio.get_running_loop().create_task(
                self._run(node, work, index, nap=self._naps and chosen % 2 == 0, waits=chosen % 4 == 0), name="steps"
            )

    def end(self, work: Work, index: int, outcome: Outcome) -> Outcome:
        """It ends; or it sleeps, or waits."""
        self.stop(work.key, index)
        if outcome.status != "ok":
            return outcome
        return self.asleep.pop((work.key, index), outcome)

    def stop(self, key: int, index: int) -> None:
        """It ends, or is killed."""
        run = self._runs.pop((key, index), None)
        if run is not None:
            run.cancel()

    async def _run(self, node: NodeSide, work: Work, index: int, *, nap: bool, waits: bool) -> None:
        try:
            known, serial = await node.steps(work.key, index)
            names = {step.name for step in known}
            for name in ("one", "two"):
                if name not in names:
                    self._note(f"ran {name}", work, index)
                    await node.remember(work.key, index, Step(name, b"x"))
                    self._note(f"kept {name}", work, index)
                if name == "one" and nap and "nap" not in names:
                    now_ms = int(self._wall_ms())
                    waits = waits and not serial
                    kind: StepKind = "wait" if waits else "sleep"
                    await node.remember(work.key, index, Step("nap", b"", "pickle", now_ms, now_ms + 500, kind))
                    beside = upstream_of((), [(whole(work.bundle), index ^ 1)])
                    value = msgspec.msgpack.encode(beside) if waits else b""
                    self.asleep[work.key, index] = Outcome(index, kind, value, "rests", delay_s=NAP_S)
                    return
        except RotaError:
            return              # of level `none`, or the run is void


class Memories:
    """The judge. `where`: jobs that have not ended, and where they are."""

    def __init__(self, keys: Keys, say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._say = say
        self._kept: dict[bytes, Job] = {}

    def see(self, entry: Entry, where: Mapping[Job, object], ended: Mapping[Job, str]) -> None:
        keys = self._keys
        for change in entry.changes:
            key = change.event.record.key
            parsed = keys.parse_step(key) if key.startswith(keys.steps) else None
            if parsed is None:
                continue
            job = parsed[:2]
            if not change.event.deleted:
                if change.previous is not None:
                    self._say("D1", f"{key!r} was written over")
                if not self._is_guarded(entry, job):
                    self._say("D1", f"{key!r} is not guarded by a claim of its job")
                self._kept[key] = job
                continue
            self._kept.pop(key, None)
            if where.get(job) or (ended.get(job) == "failed" and not self._is_deleted(entry, job)):
                self._say("D2", f"job {job} has not ended, and what it remembers is deleted")

    def _is_deleted(self, entry: Entry, job: Job) -> bool:
        """From the failed set, here."""
        gone = [change.event.record.key for change in entry.changes if change.event.deleted]
        found = [parsed for key in gone if (parsed := self._keys.parse_failed(key)) is not None]
        return job in [parsed[1:] for parsed in found]

    def _is_guarded(self, entry: Entry, job: Job) -> bool:
        for condition in entry.txn.conditions if entry.txn is not None else ():
            claim = self._keys.parse_claim(condition.key)
            if claim is not None and whole(claim[1]) == job[0] and condition.operand:
                return True
        return False

    def finish(self, doings: Iterable[Doing], where: Mapping[Job, object], ended: Mapping[Job, str]) -> None:
        kept: dict[tuple[str, str], Doing] = {}
        for doing in doings:
            what, _, name = doing.what.partition(" ")
            known = kept.get((doing.job, name))
            if what == "kept":
                kept[doing.job, name] = doing
            elif known is not None and doing.fence >= known.fence and (doing.fence or doing.node == known.node):
                # (A run that is void may not have noticed yet; of level `delayed`, its twin at another node.)
                self._say("D2", f"job {doing.job} has run step {name} on {doing.node} once more: it was remembered")
        for key, job in self._kept.items():
            if not where.get(job) and ended.get(job) != "failed":
                self._say("D3", f"job {job} has ended ({ended.get(job)}), and {key!r} is left")
