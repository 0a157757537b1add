"""A bundle that lies under this node: what is known of it between its claim and its last outcome."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec
from msgspec.structs import replace

from rota.client.model import Header, Outcome, ResultEntry
from rota.worker.channel.frames import Work

from ...ledger.ledger import Record
from ...state.records import Claim, bits, hex_bits
from .memory import Memory
from .settlement import Settlement

SUSPENDED = ("sleep", "wait")
"""What a job has ended with that goes on later, by what it remembers."""


class LocalJob(msgspec.Struct, frozen=True):
    """A job that lies here: what its record says of it."""

    bundle: str
    index: int
    task: str
    queue: str
    attempt: int
    volatile: bool
    claim: Record | None = None     # as it came; None for what lies in this node's memory only


class Held(msgspec.Struct, gc=False):
    key: int                    # names it to the runners
    bundle: str
    record: Record              # its claim, as it was when it came
    claim: Claim
    header: Header | None = None
    mod_revision: int = 0       # of the claim, as we last wrote it
    body: bytes = b""
    jobs: list[tuple[int, bytes]] = []
    code: bytes | None = None   # of a function that was shipped by value
    inputs: dict[str, list[ResultEntry]] | None = None      # what it gets of the jobs it waited for
    memory: Memory | None = None        # what its jobs remember, if any does
    done: int = 0               # jobs whose outcome is committed, or on its way
    outcomes: list[Outcome] = []
    retries: list[Outcome] = []
    slept: int = 0              # of what expires, jobs that do not any more: its claim says so, or is about to
    failed: set[int] = set()    # of those that remember something: jobs that are in the failed set
    queue: deque[Settlement] = msgspec.field(default_factory=deque)    # writes still to be committed, in order
    writing: bool = False
    marking: bool = False       # its claim is being changed before it begins: what it says is not known now
    flush_at: float = 0.0
    submitted: bool = False
    over: bool = False          # it does not lie under us any more
    back: int = 0               # jobs given back in pieces
    review: asyncio.TimerHandle | None = None
    since: float = 0.0          # when it came
    began: dict[int, int] = {}  # index -> when it was first seen to run, in ms since 1970

    def began_ms(self, outcomes: list[Outcome]) -> int:
        """When the first of these jobs began; 0 if none was seen to run."""
        if not self.began:
            return 0
        return min((self.began[outcome.index] for outcome in outcomes if outcome.index in self.began), default=0)

    @property
    def runs_since_ms(self) -> int:
        """Since when jobs run that have no outcome; 0 if none was seen to."""
        ended = self.done | bits([outcome.index for outcome in (*self.outcomes, *self.retries)])
        return min((since for index, since in self.began.items() if not ended >> index & 1), default=0)

    @property
    def pending(self) -> int:
        """How many of its jobs have no outcome."""
        return self.claim.count - self.done.bit_count() - len(self.outcomes) - len(self.retries)

    @property
    def asleep(self) -> int:
        """Of what expires, jobs that sleep or wait for others, and so do not any more."""
        return bits(one.index for one in self.retries if one.status in SUSPENDED) if self.claim.expires else 0

    @property
    def has_news(self) -> bool:
        """Whether its claim has to be told something, though not all of its jobs have ended."""
        return bool(self.outcomes or self.asleep & ~self.slept)

    @property
    def is_complete(self) -> bool:
        """Whether every job has an outcome."""
        assert self.header is not None
        return self.done.bit_count() + len(self.outcomes) + len(self.retries) >= len(self.header.indexes)

    @property
    def is_settled(self) -> bool:
        """Whether its claim is in the store, and so is all that has ended: what goes back is what the bitmap leaves."""
        return not (self.writing or self.marking or self.queue or self.outcomes or self.retries)

    def shown(self, done: int) -> Claim:
        """Its claim as it is to be written when these have ended."""
        late = self.claim.late if self.memory is None else hex_bits(bits(self.memory.late) & done)
        return replace(self.claim, done=hex_bits(done), back=self.back, late=late, slept=hex_bits(self.slept))

    def without_outcome(self) -> list[tuple[int, bytes]]:
        """The jobs that have none."""
        ended = self.done | bits([outcome.index for outcome in (*self.outcomes, *self.retries)])
        return [job for job in self.jobs if not ended >> job[0] & 1]

    def work(self, jobs: list[tuple[int, bytes]], *, report_start: bool = False) -> Work:
        """Some of its jobs, for the runners."""
        header = self.header
        assert header is not None
        return Work(
            self.key, header.bundle, header.task, header.queue, self.claim.mode, self.claim.attempt,
            self.record.create_revision, header.enqueued_at, header.codec, jobs, self.code, header.options,
            report_start, self.claim.expires, self.inputs or {}, header.flow, self.claim.orphanings,
        )

    def end(self) -> None:
        self.over = True
        if self.review is not None:
            self.review.cancel()
        if self.memory is not None:
            self.memory.give_up()
