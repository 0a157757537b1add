"""What has become of jobs that others wait for: read from the store at one revision, and judged.

What ended well has left a result, or (with `keep_result=0`) nothing. What did not has left a record in the failed set,
or a result that says how it ended, whatever was asked to be kept (`outcomes.py`). What has not ended has a body. So of
jobs that were there when somebody began to wait for them, those of which nothing is left have ended well.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from rota.client.errors import ResultInvalid
from rota.client.model import JOBS_PER_BUNDLE_MAX, ResultEntry
from rota.client.wire.keyring import Seal

from ..ledger.ledger import OPS_MAX, Get, Ledger, Record, Txn, prefix_end
from ..ledger.scan import scan
from .keys import Keys
from .records import ReceiptRecord, bits, decode, results_in

NOT_KEPT = "it ended well, and its result is not kept (keep_result)"
DELETED = "it failed, and was deleted"

_FENCE = re.compile(rb"\.([0-9]{1,16})\Z")


class Became(msgspec.Struct, frozen=True, gc=False):
    """Of the jobs of one bundle: `well` ended well (None: without a result), `badly` not. The others have not ended.
    `failed`: a bitmap of those that are in the failed set."""

    well: dict[int, ResultEntry | None]
    badly: dict[int, ResultEntry]
    failed: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.well or self.badly)


async def read(ledger: Ledger, keys: Keys, seal: Seal, bundle: str, jobs: int) -> Became:
    """Of these jobs (a bitmap) of a bundle. Raises `LedgerError`."""
    body, results, failures = keys.body(bundle), keys.bundle_results(bundle), keys.failures_of(bundle)
    bodies, not_well, failed = (await ledger.commit(Txn((), (
        Get(body, body + b"/", True), Get(results, prefix_end(results)), Get(failures, prefix_end(failures), True),
    )))).answers
    kept = {index for record in failed if (index := _index(keys, record)) is not None}
    entries, hidden = latest(seal, bundle, not_well)
    return judge(jobs & ~bits([index for index in hidden if index not in entries]), entries, kept, alive=bool(bodies))


def judge(jobs: int, entries: dict[int, ResultEntry], failed: set[int], *, alive: bool) -> Became:
    """`entries`: the last outcome of each that has one; `failed`: those in the failed set; `alive`: whether some job of
    the bundle has not ended."""
    well: dict[int, ResultEntry | None] = {}
    badly: dict[int, ResultEntry] = {}
    for index in indexes(jobs):
        entry = entries.get(index)
        if index in failed:
            badly[index] = entry if entry is not None and entry.status == "failed" else _failed(index)
        elif entry is not None and entry.status == "ok":
            well[index] = entry
        elif entry is not None and (entry.status != "failed" or not alive):
            badly[index] = entry            # (what has failed, and is in no failed set, was retried or deleted)
        elif not alive:
            well[index] = None
    return Became(well, badly, bits([index for index in failed if index < JOBS_PER_BUNDLE_MAX]))


def sorted_out(became: Became, jobs: int, wanted: int, not_well: int) -> tuple[list[ResultEntry], list[ResultEntry]]:
    """What has ended well of these jobs, and what has not, for one that waits for them. `wanted`: those whose results
    it needs; `not_well`: those that were seen not to end well: if nothing is left of such a one, it has not since."""
    good, bad = [], []
    for index in indexes(jobs):
        if index in became.badly:
            bad.append(became.badly[index])
        elif index in became.well:
            entry = became.well[index]
            if entry is None and not_well >> index & 1:
                bad.append(ResultEntry(index, "failed", error=DELETED))
            elif entry is None and wanted >> index & 1:
                bad.append(ResultEntry(index, "failed", error=NOT_KEPT))
            else:
                good.append(entry if entry is not None else ResultEntry(index, "ok"))
    return good, bad


async def got(ledger: Ledger, keys: Keys, bundle: str) -> tuple[dict[str, int], dict[str, int]]:
    """What is known beside a token that waits, bitmaps by bundle: the jobs that it has got its part of, and those that
    were seen not to end well."""
    has: dict[str, int] = {}
    not_well: dict[str, int] = {}
    async for record in scan(ledger, keys.inputs_of(bundle), keys_only=True):
        if (parsed := keys.parse_input(record.key)) is not None:
            _, upstream, jobs, well = parsed
            into = has if well else not_well
            into[upstream] = into.get(upstream, 0) | jobs
    return has, not_well


def latest(seal: Seal, bundle: str, records: Iterable[Record]) -> tuple[dict[int, ResultEntry], set[int]]:
    """By job; and of which jobs something is said that is signed with a key that is not here: others have to look. What
    nobody signed says nothing."""
    found: dict[int, tuple[int, ResultEntry]] = {}
    hidden: set[int] = set()
    for record in records:
        fence = _FENCE.search(record.key)
        try:
            results = seal.results(bundle, record.value)
        except ResultInvalid:
            unread = results_in(record.value)
            if unread.key_id:       # of a key that is not here; or is called as one of ours is, and is another
                hidden |= {entry.index for entry in unread.entries if 0 <= entry.index < JOBS_PER_BUNDLE_MAX}
            continue
        for entry in results.entries:
            at = int(fence[1]) if fence is not None else 0
            if entry.index not in found or found[entry.index][0] <= at:
                found[entry.index] = (at, entry)
    return {index: entry for index, (_, entry) in found.items()}, hidden


def missing_key(seal: Seal, results: bytes) -> str:
    """The id of the key that these results say they are signed with, if it is not here; else ""."""
    key_id = results_in(results).key_id
    return key_id if key_id not in seal.keyring.ids else ""


class Unheard(NamedTuple):
    """A job that cannot be waited for. `never`: its bundle had fewer jobs when it was enqueued; else nothing is known
    of all of it."""

    bundle: str
    job: int
    never: bool


async def unheard_of(ledger: Ledger, keys: Keys, wanted: Mapping[str, int]) -> Unheard | None:
    """The first of these jobs (bitmaps, by bundle) that is in no store, as far as that can be told. A receipt tells
    most, and is there of all that was enqueued a moment ago."""
    missing, stray = list[str](), None
    async for bundle, records in _each(ledger, list(wanted), lambda bundle: Get(keys.receipt(bundle))):
        receipt = decode(ReceiptRecord, records[0].value) if records else None
        if not records:
            missing.append(bundle)
        elif receipt is not None and receipt.jobs and wanted[bundle] >> receipt.jobs:
            stray = stray or Unheard(bundle, wanted[bundle].bit_length() - 1, True)
    for area in (_bodies, _results, _failures):
        missing = [bundle async for bundle, records in _each(ledger, missing, partial(area, keys)) if not records]
    return Unheard(missing[0], indexes(wanted[missing[0]])[0], False) if missing else stray


async def _each(
    ledger: Ledger, bundles: list[str], area: Callable[[str], Get]
) -> AsyncIterator[tuple[str, Sequence[Record]]]:
    for start in range(0, len(bundles), OPS_MAX):
        part = bundles[start : start + OPS_MAX]
        found = (await ledger.commit(Txn((), tuple(area(bundle) for bundle in part)))).answers
        for bundle, records in zip(part, found, strict=True):
            yield bundle, records


def _bodies(keys: Keys, bundle: str) -> Get:
    return Get(keys.body(bundle), keys.body(bundle) + b"/", True, 1)


def _results(keys: Keys, bundle: str) -> Get:
    return Get(keys.bundle_results(bundle), prefix_end(keys.bundle_results(bundle)), True, 1)


def _failures(keys: Keys, bundle: str) -> Get:
    return Get(keys.failures_of(bundle), prefix_end(keys.failures_of(bundle)), True, 1)


def indexes(jobs: int) -> list[int]:
    return [index for index in range(jobs.bit_length()) if jobs >> index & 1]


def _failed(index: int) -> ResultEntry:
    return ResultEntry(index, "failed", error="it is in the failed set")


def _index(keys: Keys, record: Record) -> int | None:
    text = record.key[len(keys.failures):].rpartition(b"-")[2]
    return int(text) if text.isdigit() else None
