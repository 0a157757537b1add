"""One identity of a node on a ledger in memory, in virtual time, with runners that do as the test says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable

from rota.client.model import Header, Mode, QueueInfo, TaskInfo
from rota.client.wire.codec import encode_body
from rota.client.wire.keyring import UNSIGNED, Keyring, Seal
from rota.cluster.context import IdentityContext, NodeContext, TermContext
from rota.cluster.events.hub import Events
from rota.cluster.ledger.buckets import Buckets
from rota.cluster.ledger.commits import Commits, created
from rota.cluster.ledger.ledger import Condition, Delete, Put, Record, Txn, prefix_end
from rota.cluster.ledger.memory import MemoryLedger, MemoryStore
from rota.cluster.state.keys import Keys
from rota.cluster.state.nonempty import commits_of
from rota.cluster.state.records import Claim, Token, claim_of, encode
from rota.worker.channel.frames import Work
from rota.worker.pool.interface import NodeSide
from tests.simulation.loop import VirtualClock, run_virtual

KEYS = Keys("c")
NODE = "n1"
BUNDLE = "0s8sf4s75de1-00000004"
OTHER = "0s8sf4s75de1-00000005"


def header(bundle: str = BUNDLE, count: int = 2, task: str = "m:f") -> Header:
    return Header(bundle, task, "q", "async", list(range(count)), [1] * count, 0.0)


def body(bundle: str = BUNDLE, count: int = 2, task: str = "m:f") -> bytes:
    return encode_body(header(bundle, count, task), [b"x"] * count)


def token(count: int = 2, task: str = "m:f", **more: object) -> Token:
    return Token(task, "q", 0, 7, count, "async", 0, **more)  # type: ignore[arg-type]


class FakeRunners:
    """The `Runners` seam: keeps what it is given, and gives it back when asked."""

    trouble: str | None = None
    stand = True

    def __init__(self) -> None:
        self.tasks: dict[str, TaskInfo] = {"m:f": TaskInfo("m:f", "async")}
        self.queues: dict[str, QueueInfo] = {}
        self.capacity: dict[Mode, int] = {"async": 10, "sync": 2}
        self.spare: dict[Mode, int] = {}
        self.given: list[Work] = []
        self.not_begun: dict[int, list[int]] = {}
        self.withdrawn: list[int] = []
        self.cancelled: list[tuple[int, int]] = []
        self.is_busy = False

    def submit(self, work: Work) -> None:
        self.given.append(work)
        self.not_begun.setdefault(work.key, []).extend(index for index, _ in work.jobs)

    def begin(self, work: Work, *indexes: int) -> None:
        """These can not be taken back any more."""
        self.not_begun[work.key] = [index for index in self.not_begun[work.key] if index not in indexes]

    def withdraw(self, keys: Iterable[int] | None) -> list[tuple[int, list[int]]]:
        taken = [key for key in list(self.not_begun) if keys is None or key in set(keys)]
        self.withdrawn += taken
        return [(key, indexes) for key in taken if (indexes := self.not_begun.pop(key))]

    def cancel(self, key: int, index: int) -> None:
        self.cancelled.append((key, index))

    def keeps(self, key: int) -> bool:
        return False

    def report(self, work: Work, index: int, error: str) -> None: ...

    def begins(self, mode: Mode) -> bool:
        return False

    def busy(self, mode: Mode, queue: str = "") -> bool:
        return self.is_busy

    def running(self) -> list[tuple[int, int]]:
        return []

    def lease(self, lease_id: int, deadline_boottime: float) -> None: ...
    def no_lease(self) -> None: ...
    async def start(self, node: NodeSide) -> None: ...
    async def kill_all(self) -> None: ...
    async def stop(self, grace_s: float) -> None: ...


class Bench:
    def __init__(
        self, commits: Commits, ledger: MemoryLedger, clock: VirtualClock, keyring: Keyring, member_revision: int
    ) -> None:
        self.ledger = ledger
        self.commits = commits
        self.clock = clock
        self.runners = FakeRunners()
        self.node = NodeContext(
            ledger=ledger, keys=KEYS, clock=clock, rng=random.Random(1), seal=Seal(keyring, "c"), events=Events()
        )
        self.context = IdentityContext(
            node=NODE, member=created(KEYS.node(NODE), member_revision), ledger=ledger, commits=commits, keys=KEYS,
            clock=clock, seal=self.node.seal, buckets=Buckets(ledger, clock, random.Random(1)), events=self.node.events,
        )

    def term(self, fence: Condition) -> TermContext:
        """What a master's duties work with."""
        node = self.node
        return TermContext(
            node=NODE, fence=fence, ledger=self.ledger, commits=self.commits, keys=KEYS, clock=self.clock, rng=node.rng,
            seal=node.seal, events=node.events,
        )

    async def put(self, *records: tuple[bytes, bytes]) -> int:
        return (await self.ledger.commit(Txn((), tuple(Put(key, value) for key, value in records)))).revision

    async def delete(self, *keys: bytes) -> int:
        return (await self.ledger.commit(Txn((), tuple(Delete(key) for key in keys)))).revision

    async def claim(
        self, bundle: str = BUNDLE, count: int = 2, task: str = "m:f", *, claim: Claim | None = None,
        stored: bytes | None = None,
    ) -> Record:
        """Put a claim and its body; returns the claim as it is stored."""
        key = KEYS.claim(NODE, bundle)
        await self.put(
            (key, encode(claim or claim_of(token(count, task), 5))),
            (KEYS.body(bundle), body(bundle, count, task) if stored is None else stored),
        )
        return await self.record(key)

    async def record(self, key: bytes) -> Record:
        (record,) = (await self.ledger.read(key)).records
        return record

    async def names(self, prefix: bytes) -> list[str]:
        """The keys below a prefix, as text, without it."""
        page = await self.ledger.read(prefix, prefix_end(prefix))
        return [record.key[len(prefix):].decode() for record in page.records]


def play(deed: Callable[[Bench], Awaitable[None]], keyring: Keyring = UNSIGNED) -> None:
    """Do something at a bench, in virtual time."""
    async def main() -> None:
        clock = VirtualClock()
        ledger = MemoryLedger(MemoryStore(clock))
        async with commits_of(ledger, KEYS) as commits:
            joined = await ledger.commit(Txn((), (Put(KEYS.node(NODE), b"{}"),)))
            await deed(Bench(commits, ledger, clock, keyring, joined.revision))
        await ledger.close()

    run_virtual(main())


async def a_moment(seconds: float = 0.001) -> None:
    """In virtual time: whatever is ready has happened by then."""
    await asyncio.sleep(seconds)
