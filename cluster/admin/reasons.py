"""Why a job lies where it lies: one sentence, read from the store when somebody asks."""

from __future__ import annotations

from datetime import UTC, datetime

from rota.client.ids import job_id
from rota.client.model import Mode, ResultEntry
from rota.client.options.rates import words
from rota.client.wire.keyring import Seal
from rota.client.wire.views import Place

from ..clock import Clock
from ..ledger.ledger import Get, Ledger, Txn
from ..ledger.scan import scan
from ..state.directory import Directory
from ..state.heads import Head, read_heads
from ..state.keys import Keys
from ..state.records import Awaiting, Member, QueueRecord, RateRecord, TaskRecord, Token, claim_in, decode
from ..state.upstream import DELETED, NOT_KEPT, got, indexes, read, sorted_out
from ..state.words import Words

UPSTREAM_LOOKED_MAX = 500
"""Bundles that are looked up to see what a job waits for, which of them keeps it from going on."""

NAMED_MAX = 3

CLAIMS_MAX = 20_000
"""Claims that are looked at to see what holds a job back."""


def moment(ms: int) -> str:
    """Milliseconds since 1970, for people."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00") + " UTC"


class Reasons:
    def __init__(
        self, ledger: Ledger, keys: Keys, clock: Clock, directory: Directory, words: Words, seal: Seal
    ) -> None:
        self._seal = seal
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._directory = directory
        self._words = words

    async def of(self, key: bytes, token: Token) -> tuple[Place, str]:
        """Of a token below `jobs/`: whether it waits, is blocked or will be retried there, and why."""
        keys = self._keys
        settings, task = (await self._ledger.commit(Txn((), (
            Get(keys.queue(token.queue)), Get(keys.task(token.task)),
        )))).answers
        queue = (decode(QueueRecord, settings[0].value) if settings else None) or QueueRecord()
        heads = await read_heads(self._ledger, keys, self._words, [token.queue]) if queue.serial else []
        if heads and heads[0].token.blocked:
            return self._blocked(key, token, heads[0])
        if queue.paused:
            return "waiting", f"queue {token.queue} is paused: `rota queue resume {token.queue}`"
        able = {
            node: member for node, member in self._directory.members.items()
            if member.serves(token.queue) and member.mode_of(token) is not None and member.has(token.requires)
        }
        if nobody := self._nobody(token, able):
            return "waiting", nobody
        if not self._directory.master:
            return "waiting", "there is no master at the moment"
        if queue.serial:
            return self._in_turn(key, heads)
        record = (decode(TaskRecord, task[0].value) if task else None) or TaskRecord(token.mode)
        return "waiting", await self._held_back(token, record, queue, able)

    async def upstream(self, bundle: str, token: Awaiting) -> str:
        """Of a token below `awaiting/`: which jobs it waits for, and what of them is in its way."""
        if token.section:
            page = await self._ledger.read(self._keys.section(token.flow, token.section), keys_only=True)
            if not page.records:
                return f"flow {token.flow} is being stored: nothing of it begins before all of it is there"
        has, not_well = await got(self._ledger, self._keys, bundle)
        waits: list[str] = []
        total = left = 0
        for number, one in enumerate(token.upstream):
            all_, wanted = int(one.jobs or "0", 16), int(one.wanted or "0", 16)
            jobs = all_ & ~has.get(one.bundle, 0)
            total += all_.bit_count()
            left += jobs.bit_count()
            if not jobs or number >= UPSTREAM_LOOKED_MAX:
                continue
            became = await read(self._ledger, self._keys, self._seal, one.bundle, jobs)
            good, bad = sorted_out(became, jobs, wanted, not_well.get(one.bundle, 0))
            if bad and token.on_upstream == "block":
                return _in_the_way(job_id(one.bundle, bad[0].index), bad[0])
            ended = {entry.index for entry in (*good, *bad)}
            waits += [job_id(one.bundle, index) for index in indexes(jobs) if index not in ended]
        if not waits:
            return "all that it waited for has ended: the master lets it go on"
        named = ", ".join(waits[:NAMED_MAX])
        more = f" and {left - NAMED_MAX:,} more" if left > NAMED_MAX else ""
        until = f", until {moment(token.until)} at the most" if token.until else ""
        count = f"({total - left:,} of {total:,} have ended)"
        return f"it waits for job{'s' if left > 1 else ''} {named}{more} {count}{until}"

    @staticmethod
    def _blocked(key: bytes, token: Token, head: Head) -> tuple[Place, str]:
        if head.record.key == key:
            return "blocked", f"it failed for good and blocks serial queue {token.queue}: {head.advice}"
        return "waiting", (
            f"serial queue {token.queue} is blocked by job {head.job}, which failed for good "
            f"({head.token.error or 'no error is known'}): {head.advice}"
        )

    def _nobody(self, token: Token, able: dict[str, Member]) -> str:
        """Why no node that is there can run it, or ""."""
        if any(member.slots(token) >= token.weight and member.can_verify(token.signed) for member in able.values()):
            return ""
        serving = [member for member in self._directory.members.values() if member.serves(token.queue)]
        if not serving:
            return f"no node serves queue {token.queue}"
        if not able:
            return _no_label(token, self._directory.wants(token), serving) or _no_code(token, serving)
        if any(member.slots(token) >= token.weight for member in able.values()):
            return _no_key(token.signed)
        if most := max(member.slots(token) for member in able.values()):
            return (
                f"it takes {token.weight:,} slots, and no node that could run it has more than {most:,}: start one "
                "with more (`rota node --sync`, `--async`), or enqueue it with a smaller weight"
            )
        modes = sorted({mode for member in able.values() if (mode := member.mode_of(token)) is not None})
        return f"no node that could run task {token.task} takes {_kinds(modes)}"

    def _in_turn(self, key: bytes, heads: list[Head]) -> tuple[Place, str]:
        """In a serial queue that is not blocked, everything waits for the head."""
        if not heads:
            return "waiting", "the one before it in its serial queue runs"
        head, first = heads[0], heads[0].record.key == key
        wait_s = head.token.not_before / 1000 - self._clock.wall()
        if wait_s > 0:
            who = "it" if first else f"job {head.job}, the head of its serial queue,"
            what = f"failed ({head.token.error})" if head.token.error else "was interrupted"
            return "retrying" if first else "waiting", f"{who} {what}, and is tried again in {wait_s:.0f} s"
        if not first:
            return "waiting", f"others come before it in its serial queue: job {head.job} is the first of them"
        return "waiting", "the one before it in its serial queue runs"

    async def _too_fast(self, token: Token, task: TaskRecord, queue: QueueRecord) -> str:
        """Which rate lets nothing begin now, or ""."""
        keys, now_ms = self._keys, self._clock.wall() * 1000
        rates = [
            (keys.rate("task", token.task), task.rate, f"task {token.task}"),
            (keys.rate("key", token.task, token.rated_by), task.rate_per_key if token.rated_by else None,
             f"key {token.rated_by} of task {token.task}"),
            (keys.rate("queue", token.queue), queue.rate, f"queue {token.queue}"),
        ]
        rated = [(key, rate, what) for key, rate, what in rates if rate is not None]
        if not rated:
            return ""
        answers = (await self._ledger.commit(Txn((), tuple(Get(key) for key, _, _ in rated)))).answers
        for (_, rate, what), found in zip(rated, answers, strict=True):
            record = decode(RateRecord, found[0].value) if found else None
            if record is not None and record.until - now_ms > (rate.burst - 1) * rate.per_s * 1000 / rate.count:
                return f"{what} is at its rate of {words(rate)}"
        return ""

    async def _held_back(self, token: Token, task: TaskRecord, queue: QueueRecord, able: dict[str, Member]) -> str:
        """What is claimed already says whether a limit holds it back, or whether all that could run it are busy."""
        if reason := await self._too_fast(token, task, queue):
            return reason
        of_task = of_key = of_queue = 0
        of_node: dict[str, int] = {}
        async for record in scan(self._ledger, self._keys.claims, limit=CLAIMS_MAX):
            claim, parsed = claim_in(record.value), self._keys.parse_claim(record.key)
            if claim is None or parsed is None:
                continue
            of_queue += claim.pending if claim.queue == token.queue else 0
            of_task += claim.pending if claim.task == token.task else 0
            of_key += claim.pending if (claim.task, claim.key) == (token.task, token.key) else 0
            member = able.get(parsed[0])
            if member is not None and claim.mode == member.mode_of(token):
                of_node[parsed[0]] = of_node.get(parsed[0], 0) + claim.pending * claim.weight
        if task.max_concurrency is not None and of_task >= task.max_concurrency:
            return f"task {token.task} is at its limit of {task.max_concurrency} at a time"
        if task.max_per_key is not None and token.key and of_key >= task.max_per_key:
            return f"task {token.task} is at its limit of {task.max_per_key} at a time for key {token.key}"
        if queue.max_concurrency is not None and of_queue >= queue.max_concurrency:
            return f"queue {token.queue} is at its limit of {queue.max_concurrency} at a time"
        if all(of_node.get(node, 0) + token.weight > member.slots(token) for node, member in able.items()):
            if token.weight > 1:
                return f"it takes {token.weight:,} slots, and no node that could run it has so many free now"
            return "every node that could run it is busy"
        return "others come before it"


def _in_the_way(job: str, entry: ResultEntry) -> str:
    """Why a job that has ended keeps another from going on."""
    if entry.status == "failed" and entry.error in (NOT_KEPT, DELETED):
        return f"job {job}, which it waits for: {entry.error}; it cannot go on, and can only be cancelled"
    if entry.status == "failed":
        error = f" ({entry.error})" if entry.error else ""
        return f"job {job}, which it waits for, failed{error}: `rota failed retry --id {job}` revives both"
    how = "was cancelled" if entry.status == "cancelled" else "expired"
    return f"job {job}, which it waits for, {how}: it cannot go on, and can only be cancelled, too"


def _no_label(token: Token, labels: set[str], serving: list[Member]) -> str:
    """Which labels it requires that no node has, or ""."""
    wanted = sorted(labels)
    if not wanted or any(member.has(wanted) for member in serving):
        return ""
    return (
        f"{'it' if token.requires else f'task {token.task}'} requires {' and '.join(wanted)}, and no node that serves "
        f"its queue was started with --labels {','.join(wanted)}"
    )


def _no_code(token: Token, serving: list[Member]) -> str:
    if token.function:
        return f"no node that serves its queue runs shipped code of Python {token.python}"
    if any(token.task in member.tasks for member in serving):
        others = ", ".join(sorted({member.python for member in serving if token.task in member.tasks}))
        return (
            f"its arguments hold code of Python {token.python}, and the nodes that serve its queue and have task "
            f"{token.task} run Python {others}"
        )
    return f"no node that serves its queue knows task {token.task}: their code does not have it, or not any more"


def _kinds(modes: list[Mode]) -> str:
    by_mode = {"sync": ("plain functions", "--sync 0"), "async": ("`async def` jobs", "--async 0")}
    kinds, flags = [by_mode[mode][0] for mode in modes], [by_mode[mode][1] for mode in modes]
    return f"{' or '.join(kinds)}: they were started with {' and '.join(flags)}"


def _no_key(signed: str | None) -> str:
    if not signed:
        return "it is unsigned, and every node that could run it has a signing key: such nodes run what is signed only"
    return f"no node that could run it has the key {signed:.50} that it is signed with: see `rota doctor`"

