"""Group commit: many small guarded writes in few transactions (design, rule 10).

Whatever is ready goes into the next transaction; nothing waits on a timer, but for what says that it may
(`Commits.submit`). Each write keeps its own conditions. The
Else branch reads every condition's key, so that one round trip says whose condition failed: those writes get their
verdict, the rest regroup. A transaction whose fate is unknown is repeated unchanged until it is definite. Two
transactions in flight never touch the same key, but for what goes along with their operations (`along`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec

from rota.client.errors import (
    LedgerError,
    LedgerUnavailable,
    NoSpace,
    StoreBusy,
    WriteUnknown,
)

from .ledger import OPS_MAX, REQUEST_BYTES_MAX, Condition, Delete, Get, Ledger, Put, Record, Target, Txn

log = logging.getLogger(__name__)

IN_FLIGHT_MAX = 4
"""Transactions under way at once: enough to keep etcd's disk busy, few enough that batches fill up under load."""

BESIDE_WRITES = 40
BESIDE_S = 0.02
"""A transaction starts beside one in flight only if this many writes wait, or if that one takes longer than this: what
costs most is the number of transactions, and writes that wait for the next one fill it up."""

BACKOFF_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
KEY_OVERHEAD_BYTES = 32


class Write(msgspec.Struct, frozen=True, gc=False):
    """A guarded write. Its operations must make at least one of its own conditions false (so that a repeat is told
    from a first time), and touch each key once."""

    conditions: tuple[Condition, ...]
    ops: tuple[Put | Delete, ...]
    on_applied: Callable[[], None] | None = None
    """Called when it is known to be in the store, once at the most."""


def merged(writes: Sequence[Write]) -> Write:
    """All of them or none. Of what they do to one key the last counts."""
    ops = {op.key: op for write in writes for op in write.ops}
    conditions = dict.fromkeys(condition for write in writes for condition in write.conditions)
    return Write(tuple(conditions), tuple(ops.values()))


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of a write. `failed` is the condition that did not hold, `found` what was there instead (keys only;
    None if absent). `repeated`: an earlier try of the same transaction had an unknown fate, so a failed condition may
    mean that this very write had applied; and what no condition keeps from it may apply once more, later."""

    applied: bool
    revision: int
    failed: Condition | None = None
    found: Record | None = None
    repeated: bool = False


Along: TypeAlias = Callable[[Put | Delete], Put | None]
"""What goes into a transaction along with an operation, once, however many of its operations want it: a key that is put
blindly, by anybody, and that no write of the same `Commits` touches."""


class _Pending:
    __slots__ = ("along", "future", "keys", "size", "write")

    def __init__(self, write: Write, future: asyncio.Future[Verdict], along: Along) -> None:
        self.write = write
        self.future = future
        self.keys = tuple(op.key for op in write.ops)
        self.along = {put.key: put for op in write.ops if (put := along(op)) is not None}
        self.size = sum(
            KEY_OVERHEAD_BYTES + len(op.key) + (len(op.value) if type(op) is Put else 0)
            for op in (*write.ops, *self.along.values())
        ) + sum(2 * (KEY_OVERHEAD_BYTES + len(condition.key)) for condition in write.conditions)


class Commits:
    """Shared by all writers of one identity. `async with` it; leaving cancels what is under way."""

    def __init__(
        self, ledger: Ledger, *, ops_max: int = OPS_MAX, in_flight_max: int = IN_FLIGHT_MAX,
        along: Along = lambda op: None,
    ) -> None:
        self._ledger = ledger
        self._along = along
        self._ops_max = ops_max
        self._in_flight_max = in_flight_max
        self._pending: deque[_Pending] = deque()
        self._busy_keys: set[bytes] = set()
        self._tasks: dict[asyncio.Task[None], float] = {}       # under way, and since when
        self._patience_s = math.inf     # the least of what is pending
        self._scheduled = False
        self._look: asyncio.TimerHandle | None = None
        self._look_at = 0.0             # (uvloop makes a handle that does not say so, where that is now)
        self._last_start = 0.0
        self._closed: LedgerError | None = None
        self.revision = 0
        """The newest revision that a transaction of ours has seen."""

    async def __aenter__(self) -> Commits:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = LedgerUnavailable("this node's identity has ended")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._settle_error(list(self._pending), WriteUnknown("this node's identity has ended"))
        self._pending.clear()

    @property
    def backlog(self) -> int:
        return len(self._pending)

    @property
    def waits_s(self) -> float:
        """For how long the oldest transaction has been under way."""
        return asyncio.get_running_loop().time() - min(self._tasks.values()) if self._tasks else 0.0

    async def until_idle(self) -> None:
        """Everything that was submitted has its verdict: nothing of it can still apply."""
        while self._pending or self._tasks:
            self._patience_s = 0.0
            self._schedule()
            if self._tasks:
                await asyncio.wait(list(self._tasks))
            else:
                await asyncio.sleep(0)

    def submit(self, write: Write, *, patience_s: float = 0.0) -> asyncio.Future[Verdict]:
        """Queue a write for the next transaction. `patience_s`: it goes along with others, but starts one of its own
        no sooner than this after the last has begun. The future raises `NoSpace`, `TransactionTooLarge` or
        `TransactionInvalid` if the store refuses it, `WriteUnknown` when the identity ends. While the store does not
        answer, or does not let us in, it waits."""
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            future.set_exception(self._closed)
            future.exception()          # looked at: nobody may be waiting
            return future
        self._pending.append(_Pending(write, future, self._along))
        self._patience_s = min(self._patience_s, patience_s)
        self._schedule()
        return future

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    async def write(self, conditions: Iterable[Condition], ops: Iterable[Put | Delete]) -> Verdict:
        return await self.submit(Write(tuple(conditions), tuple(ops)))

    def _pump(self) -> None:
        self._scheduled = False
        while self._pending and len(self._tasks) < self._in_flight_max and self._closed is None:
            if not self._may_start():
                return
            batch = self._next_batch()
            if not batch:
                return
            loop = asyncio.get_running_loop()
            self._last_start = loop.time()
            task = loop.create_task(self._carry(batch), name="commit")
            self._tasks[task] = self._last_start
            task.add_done_callback(self._carried)

    def _may_start(self) -> bool:
        """Beside what is under way, and without more company."""
        if len(self._pending) >= BESIDE_WRITES:
            return True
        if self._tasks:
            at = self._last_start + BESIDE_S
        elif self._patience_s:
            at = self._last_start + self._patience_s
        else:
            return True
        loop = asyncio.get_running_loop()
        if loop.time() >= at:
            return True
        if self._look is None or self._look_at > at:
            if self._look is not None:
                self._look.cancel()
            self._look, self._look_at = loop.call_at(at, self._look_again), at
        return False

    def _look_again(self) -> None:
        self._look = None
        self._pump()

    def _carried(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a group commit broke", exc_info=error)
        self._pump()

    def _next_batch(self) -> list[_Pending]:
        """Take the longest prefix of the queue that fits, leaving out what touches a key in flight (and, to keep the
        order of writes to one key, whatever comes after it on the same key)."""
        batch: list[_Pending] = []
        held_back: list[_Pending] = []
        taken: set[bytes] = set()
        along: set[bytes] = set()
        conditions: set[Condition] = set()
        ops = size = 0
        while self._pending:
            pending = self._pending[0]
            fresh = [condition for condition in pending.write.conditions if condition not in conditions]
            more = len(pending.keys) + len(pending.along.keys() - along)
            if batch and (
                ops + more > self._ops_max
                or len(conditions) + len(fresh) > self._ops_max
                or size + pending.size > REQUEST_BYTES_MAX
            ):
                break
            self._pending.popleft()
            if any(key in self._busy_keys or key in taken for key in pending.keys):
                held_back.append(pending)
                taken.update(pending.keys)
                continue
            batch.append(pending)
            taken.update(pending.keys)
            along.update(pending.along)
            conditions.update(fresh)
            ops += more
            size += pending.size
        self._pending.extendleft(reversed(held_back))
        self._patience_s = 0.0 if self._pending else math.inf       # what is left has waited
        for pending in batch:
            self._busy_keys.update(pending.keys)
        return batch

    async def _carry(self, batch: list[_Pending]) -> None:
        try:
            await self._commit(batch)
        except asyncio.CancelledError:
            self._settle_error(batch, WriteUnknown("this node's identity has ended"))
            raise
        except NoSpace as error:
            self._refuse_puts(batch, error)
        except LedgerError as error:        # a definite refusal: too large, malformed, a lease that is gone
            if len(batch) == 1:
                self._settle_error(batch, error)
            else:                   # find out whose fault it is
                alone, batch = batch, []
                for pending in alone:
                    await self._carry([pending])
        finally:
            self._free(batch)

    def _free(self, batch: list[_Pending]) -> None:
        for pending in batch:
            self._busy_keys.difference_update(pending.keys)

    async def _commit(self, batch: list[_Pending]) -> None:
        conditions = tuple(dict.fromkeys(condition for pending in batch for condition in pending.write.conditions))
        along = {key: put for pending in batch for key, put in pending.along.items()}
        txn = Txn(
            conditions,
            (*(op for pending in batch for op in pending.write.ops), *along.values()),
            tuple(Get(it.key, it.range_end, True, 1 if it.range_end else 0) for it in conditions),
        )
        tries, unknown = 0, False
        while True:
            try:
                result = await self._ledger.commit(txn)
                break
            except WriteUnknown:
                unknown = True
            except (LedgerUnavailable, StoreBusy):
                pass
            await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1
        self.revision = max(self.revision, result.revision)
        if result.succeeded:
            verdict = Verdict(True, result.revision, repeated=unknown)
            for pending in batch:
                if pending.write.on_applied is not None:
                    pending.write.on_applied()
                if not pending.future.done():
                    pending.future.set_result(verdict)
            return
        answers = zip(conditions, result.answers, strict=True)
        found = {condition: answer[0] if answer else None for condition, answer in answers}
        self._sort_out(batch, found, result.revision, unknown)

    def _sort_out(
        self, batch: list[_Pending], found: dict[Condition, Record | None], revision: int, unknown: bool
    ) -> None:
        """Give a verdict to the writes whose conditions failed; the others go back to the head of the queue."""
        again: list[_Pending] = []
        for pending in batch:
            failed = next((it for it in pending.write.conditions if not holds(it, found[it])), None)
            if failed is None:
                again.append(pending)
            elif not pending.future.done():
                pending.future.set_result(Verdict(False, revision, failed, found[failed], unknown))
        self._free(batch)
        self._pending.extendleft(reversed(again))
        self._patience_s = 0.0

    def _refuse_puts(self, batch: list[_Pending], error: NoSpace) -> None:
        """A full store refuses every transaction that holds a put: deletes try again on their own."""
        deletes = [pending for pending in batch if not any(type(op) is Put for op in pending.write.ops)]
        puts = [pending for pending in batch if any(type(op) is Put for op in pending.write.ops)]
        self._free(batch)
        self._settle_error(puts, error)
        if puts:
            self._pending.extendleft(reversed(deletes))
            self._patience_s = 0.0
        else:
            self._settle_error(deletes, error)

    @staticmethod
    def _settle_error(batch: list[_Pending], error: LedgerError) -> None:
        for pending in batch:
            if not pending.future.done():
                pending.future.set_exception(error)
                pending.future.exception()      # looked at: nobody may be waiting any more


def holds(condition: Condition, record: Record | None) -> bool:
    """Whether a condition on numbers holds for what was found (keys only). Those on a range are "it is empty"."""
    if condition.target is Target.VALUE:
        raise ValueError("a grouped write cannot be guarded by a value")
    if record is None:
        actual = 0
    elif condition.target is Target.CREATE:
        actual = record.create_revision
    elif condition.target is Target.MOD:
        actual = record.mod_revision
    elif condition.target is Target.VERSION:
        actual = record.version
    else:
        actual = record.lease
    assert isinstance(condition.operand, int)
    match condition.is_:
        case "==":
            return actual == condition.operand
        case "!=":
            return actual != condition.operand
        case ">":
            return actual > condition.operand
        case _:
            return actual < condition.operand


def created(key: bytes, revision: int) -> Condition:
    """The key is the one created at `revision` (0: it does not exist)."""
    return Condition(key, Target.CREATE, "==", revision)


def unmodified(key: bytes, revision: int) -> Condition:
    """The key was last written at `revision`."""
    return Condition(key, Target.MOD, "==", revision)
