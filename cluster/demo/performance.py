"""The demo, act by act: join, enqueue, kill the master, take over, compare with a direct count."""

from __future__ import annotations

import asyncio
import os
import signal
import sysconfig
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from rota.client.api.clients import AsyncClient
from rota.client.calls.handle import JobHandle
from rota.client.errors import ConfigError, JobFailed, RotaError

from ..boot.embedded import EmbeddedConfig, EmbeddedEtcd
from ..ledger.channels import EtcdConfig
from ..ledger.etcd import EtcdLedger
from ..ledger.ledger import prefix_end
from ..state.keys import Keys
from ..terminal import styled
from . import tasks
from .observer import Loss, Observer, jobs_of
from .screen import Picture, Screen
from .tasks import Tally
from .troupe import LEASE_TTL_S, Troupe
from .verdict import SHOWN_MAX, Answer, Verdict, compare, count_beside

CLUSTER = "demo"
CRASH_AT = 0.3
"""The master's process is killed when this part of the files has been counted."""

LOSE_AT = 0.6
"""Then another node is lost with all its processes, as in a power cut."""

JOIN_TIMEOUT_S = 60.0
STANDSTILL_S = 30.0
"""No outcome for so long: something is wrong, say so and stop."""

FRAME_S = 0.1
RATE_WINDOW_S = 3.0


@dataclass(frozen=True, slots=True)
class DemoConfig:
    folder: Path | None = None          # None: the standard library of this Python
    nodes: int = 3


def files_of(folder: Path | None) -> list[Path]:
    """Every Python file below a folder; of the standard library, without installed packages. Raises `ConfigError`."""
    root = folder or Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder")
    found = sorted(
        path for path in root.rglob("*.py")
        if path.is_file() and (folder or not {"site-packages", "dist-packages"} & set(path.parts))
    )
    if not found:
        raise ConfigError(f"there is no .py file below {root}")
    return found


class Performance:
    """One run. `run` returns the verdict and what was lost on the way."""

    def __init__(self, config: DemoConfig, screen: Screen, now: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._screen = screen
        self._now = now
        self._start = now()
        self._files = files_of(config.folder)
        self._observer = Observer(Keys(CLUSTER))
        self._shown = 0
        self._phase = "starting etcd"
        self._outcomes: dict[Path, list[Answer]] = defaultdict(list)
        self._done = self._failed = 0
        self._finished_at: deque[float] = deque()
        self._counted = asyncio.Condition()
        self._crashed: tuple[str, float] | None = None
        self._lost: tuple[str, float] | None = None
        self._directly = 0
        self._expected: dict[Path, Answer] = {}

    async def run(self) -> Verdict:
        try:
            await self._perform()
        except* RotaError as group:
            raise _first(group) from None
        return compare(self._outcomes, self._expected)

    async def _perform(self) -> None:
        with tempfile.TemporaryDirectory(prefix="rota-demo-") as folder:
            async with EmbeddedEtcd(EmbeddedConfig(data_dir=Path(folder) / "etcd")) as etcd:
                self._say(f"etcd {etcd.version} at {etcd.endpoint}")
                logs = Path(folder)
                async with (
                    EtcdLedger(EtcdConfig((etcd.endpoint,))) as ledger,
                    Troupe(CLUSTER, etcd.address, self._config.nodes, tasks.__name__, logs) as troupe,
                    asyncio.TaskGroup() as group,
                ):
                    aside = [
                        group.create_task(self._watch(ledger), name="demo watch"),
                        group.create_task(self._draw(), name="demo screen"),
                    ]
                    beside = group.create_task(count_beside(self._files, self._note_direct), name="demo direct count")
                    await self._count(troupe)
                    self._phase = "counting the rest of the same files directly, to compare"
                    self._expected = await beside
                    for task in aside:
                        task.cancel()

    # -- the cluster's turn ------------------------------------------------------------------------------------------

    async def _count(self, troupe: Troupe) -> None:
        self._phase = f"{self._config.nodes} nodes join"
        await self._joined(troupe)
        self._phase = "counting"
        urls = [node.address for node in self._observer.members]
        async with AsyncClient(urls, key=troupe.keyring, token=troupe.token) as client:
            handles = await client.enqueue_many(tasks.count, [(str(file),) for file in self._files])
            self._say(f"{len(handles):,} files enqueued, a job each")
            async with asyncio.TaskGroup() as group:
                for file, handle in zip(self._files, handles, strict=True):
                    group.create_task(self._outcome(file, handle), name=f"outcome of {handle.id}")
                group.create_task(self._lose_two(troupe), name="demo losses")
                group.create_task(self._notice_standstill(troupe), name="demo standstill")

    async def _joined(self, troupe: Troupe) -> None:
        deadline = self._now() + JOIN_TIMEOUT_S
        while len(self._observer.members) < self._config.nodes or not self._observer.master:
            troupe.check()
            if self._now() > deadline:
                raise RotaError(f"the nodes did not join:\n{troupe.last_words('a')}")
            await asyncio.sleep(FRAME_S)

    async def _outcome(self, file: Path, handle: JobHandle[tuple[int, int, int]]) -> None:
        try:
            answer: Answer = Tally(*await handle)
        except JobFailed as error:
            answer = error.error
            self._failed += 1
        self._outcomes[file].append(answer)
        self._done += 1
        self._finished_at.append(self._now())
        async with self._counted:
            self._counted.notify_all()

    async def _lose_two(self, troupe: Troupe) -> None:
        """A process that crashes, then a machine that is gone: the two ways in which nodes end."""
        await self._until(CRASH_AT)
        master = self._observer.master
        pid = await asyncio.to_thread(troupe.node_process, master)
        self._crashed = (master, self._now())
        os.kill(pid, signal.SIGKILL)
        self._say(f"kill -9 {pid}: the process of {master}, the master, crashes", "bold red")
        self._phase = "counting on without it"
        await self._until(LOSE_AT)
        while not (others := [node.name for node in self._observer.members if node.name != self._observer.master]):
            if self._done == len(self._files):
                return              # there are two nodes, and the one that crashed is not back yet
            await asyncio.sleep(FRAME_S)
        victim = others[0]
        self._lost = (victim, self._now())
        troupe.lose(victim)
        self._say(f"the machine of {victim} loses its power: all its processes end, nobody tells", "bold red")

    async def _until(self, part: float) -> None:
        async with self._counted:
            await self._counted.wait_for(lambda: self._done >= part * len(self._files))

    def _note_direct(self, number: int) -> None:
        self._directly = number

    async def _notice_standstill(self, troupe: Troupe) -> None:
        while self._done < len(self._files):
            before = self._done
            deadline = self._now() + STANDSTILL_S
            while self._done == before:
                troupe.check()
                if self._now() > deadline:
                    raise RotaError(f"no outcome for {STANDSTILL_S:.0f} s\n{troupe.last_words('a')}")
                await asyncio.sleep(FRAME_S)

    # -- looking on --------------------------------------------------------------------------------------------------

    async def _watch(self, ledger: EtcdLedger) -> None:
        root = Keys(CLUSTER).root
        async with ledger.watch(root, prefix_end(root), from_revision=1) as watch:
            async for changes in watch:
                self._observer.take(changes, self._now())
                self._tell()

    def _tell(self) -> None:
        for happening in self._observer.happenings[self._shown :]:
            self._screen.say(happening.at - self._start, happening.text)
        self._shown = len(self._observer.happenings)

    async def _draw(self) -> None:
        while True:
            self._screen.show(self._picture())
            await asyncio.sleep(FRAME_S)

    def _picture(self) -> Picture:
        now = self._now()
        if self._done == len(self._files):
            return Picture(self._phase, now - self._start, done=self._directly, total=len(self._files))
        while self._finished_at and self._finished_at[0] < now - RATE_WINDOW_S:
            self._finished_at.popleft()
        window = len(self._finished_at) / RATE_WINDOW_S
        return Picture(
            self._phase, now - self._start, tuple(self._observer.nodes.values()), self._observer.master, self._done,
            self._failed, len(self._files), window,
        )  # fmt: skip

    def _say(self, text: str, style: str = "") -> None:
        self._screen.say(self._now() - self._start, text, style)

    # -- the verdict -------------------------------------------------------------------------------------------------

    def epilogue(self, verdict: Verdict) -> list[Text]:
        lines = [styled()]
        if self._crashed:
            lines += self._takeover("After the process of {} crashed (its guard lived on):", *self._crashed)
        if self._lost:
            what = f"After the machine of {{}} was lost (only its lease tells; it lasts {LEASE_TTL_S} s here):"
            lines += self._takeover(what, *self._lost)
        lines += [styled(f"in the cluster  {verdict.cluster}"), styled(f"directly        {verdict.direct}"), styled()]
        if verdict.good:
            words = f"Every one of {verdict.direct.files:,} files was counted once, and all totals agree."
            lines.append(styled((words, "bold green")))
        else:
            lines += [styled(("The counts disagree:", "bold red")), *map(styled, _some(verdict.faults))]
        return lines

    def _takeover(self, what: str, node: str, ended_at: float) -> list[Text]:
        loss = next((loss for loss in self._observer.losses if loss.node == node), None)
        if loss is None:
            return [styled((f"{node} ended, and nobody noticed", "red")), styled()]
        return [styled(what.format(node)), *map(styled, _stages(loss, ended_at)), styled()]


def _first(group: BaseExceptionGroup[RotaError]) -> RotaError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _stages(loss: Loss, killed_at: float) -> list[str]:
    stages = [("it was no member any more", loss.at)]
    if loss.elected:
        stages.append((f"{loss.elected} was master", loss.elected_at))
    if loss.jobs:
        stages.append(("the first job it left behind was with another node", loss.first_at))
        stages.append((f"all it left behind, {jobs_of(loss.jobs)}, was with other nodes", loss.all_at))
    return [f"  {1000 * (at - killed_at):6.0f} ms  {what}" for what, at in stages if at]


def _some(faults: Sequence[str]) -> list[str]:
    more = len(faults) - SHOWN_MAX
    return [f"  {fault}" for fault in faults[:SHOWN_MAX]] + ([f"  and {more} more"] if more > 0 else [])
