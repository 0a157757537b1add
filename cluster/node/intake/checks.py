"""What could never run is refused, with its reason, before anything is stored."""

from __future__ import annotations

import re

from rota.client.errors import InvalidJob, UnknownTask
from rota.client.ids import BUNDLE, NAME_RULE, TASK_CHARS_MAX, is_task_name, job_id
from rota.client.model import (
    BUNDLE_BYTES_MAX,
    JOBS_PER_BUNDLE_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    UPSTREAM_MAX,
    Enqueue,
    Header,
    Terms,
    Upstream,
)
from rota.client.options.checks import KEY_CHARS_MAX
from rota.client.wire.codec import BODY_BYTES_MAX

from ...context import IdentityContext
from ...state.directory import Directory
from ...state.keys import is_name
from ...state.upstream import unheard_of
from ..bodies.cache import VerifiedBody
from .repeats import Repeats
from .sections import check as check_section

DELAY_S_MAX = 10 * 365 * 86_400

FUNCTION, PYTHON = re.compile(r"[0-9a-f]{64}\Z"), re.compile(r"[0-9]{1,2}\.[0-9]{1,3}\Z")


class Checks:
    """Of one identity's enqueues."""

    def __init__(self, context: IdentityContext, directory: Directory, repeats: Repeats) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._seal = context.seal
        self._directory = directory
        self._repeats = repeats

    async def check(self, bundle: Enqueue) -> VerifiedBody:
        """Its body, as verified. Raises `EnqueueError`, `LedgerError`."""
        _check_route(bundle)
        if len(bundle.body) > BODY_BYTES_MAX:
            raise InvalidJob(f"a bundle holds 1 to {JOBS_PER_BUNDLE_MAX} jobs and {BUNDLE_BYTES_MAX:,} bytes")
        header, payloads = self._seal.keyring.verify(bundle.body, self._keys.cluster)
        if not _agree(header, bundle):
            raise InvalidJob(f"bundle {bundle.bundle} says one thing in its frame and another in its body")
        if not bundle.function:
            await self._check_task(bundle)
        if bundle.terms is not None and bundle.terms.flow is not None:
            check_section(bundle, bundle.terms.flow)
        if bundle.terms is not None and bundle.terms.after:
            await self._check_upstream(bundle, bundle.terms.after)
        return bundle.body, header, list(zip(header.indexes, payloads, strict=True))

    async def _check_upstream(self, bundle: Enqueue, upstream: tuple[Upstream, ...]) -> None:
        """What waits for jobs that nobody knows would wait for ever."""
        count, before = 0, dict[str, int]()
        for one in upstream:
            if not BUNDLE.match(one.bundle) or "." in one.bundle or one.bundle == bundle.bundle:
                raise InvalidJob(f"{one.bundle!r} names no jobs that bundle {bundle.bundle} could wait for")
            jobs = int(one.jobs or "0", 16)
            if not jobs or jobs >> JOBS_PER_BUNDLE_MAX or int(one.wanted or "0", 16) & ~jobs:
                raise InvalidJob(f"which jobs of {one.bundle} bundle {bundle.bundle} waits for, cannot be read")
            count += jobs.bit_count()
            if not one.own:
                before[one.bundle] = before.get(one.bundle, 0) | jobs
        if count > UPSTREAM_MAX:
            raise InvalidJob(f"a job can wait for {UPSTREAM_MAX:,} others, not for {count:,}")
        wrong = await self._unheard_of(before)
        if wrong and await self._repeats.of(bundle) is None:        # else it was taken when more was known
            raise InvalidJob(wrong)

    async def _unheard_of(self, wanted: dict[str, int]) -> str:
        """What to say of jobs (bitmaps by bundle) of which nothing is known, or which never were; or nothing."""
        found = await unheard_of(self._ledger, self._keys, wanted)
        if found is None:
            return ""
        job = f"job {job_id(found.bundle, found.job)}, which this one is to wait for,"
        if found.never:
            return f"{job} never was: its bundle had fewer jobs"
        return (
            f"{job} is unknown in cluster {self._keys.cluster!r}: it was enqueued elsewhere, or it ended long ago and "
            "nothing is kept"
        )

    async def _check_task(self, bundle: Enqueue) -> None:
        if await self._directory.task_mode(bundle.task) is None:
            raise UnknownTask(
                f"no node of cluster {self._keys.cluster!r} has ever registered the task {bundle.task[:200]!r}; "
                f"start one with `rota node --app {bundle.task.partition(':')[0][:100]}`"
            )


def _check_route(bundle: Enqueue) -> None:
    if not BUNDLE.match(bundle.bundle):
        raise InvalidJob(f"{bundle.bundle[:80]!r} is not a valid bundle id")
    if not is_name(bundle.queue):
        raise InvalidJob(f"{bundle.queue[:200]!r} is not a valid queue name: {NAME_RULE}")
    if not PRIORITY_MIN <= bundle.priority <= PRIORITY_MAX:
        raise InvalidJob(f"priority {bundle.priority} is not between {PRIORITY_MIN} and {PRIORITY_MAX}")
    if not 0 <= bundle.delay_s <= DELAY_S_MAX:
        raise InvalidJob(f"a delay of {bundle.delay_s} s is not between 0 and ten years")
    if len(bundle.key) > KEY_CHARS_MAX or not bundle.key.isprintable():
        raise InvalidJob(f"the key {bundle.key[:80]!r}: at most {KEY_CHARS_MAX} printable characters")
    if not is_task_name(bundle.task):
        raise InvalidJob(f"{bundle.task[:80]!r} is not a valid task name: module:name, at most {TASK_CHARS_MAX}")
    if bundle.function and not FUNCTION.match(bundle.function):
        raise InvalidJob(f"{bundle.function[:80]!r} is not the digest of a function")
    if bundle.terms is not None:
        _check_marks(bundle.terms)
    if bundle.terms is not None and bundle.terms.unique:
        if bundle.count != 1:
            raise InvalidJob(f"a unique key is that of one job, and bundle {bundle.bundle} holds {bundle.count}")
        if len(bundle.terms.unique) > KEY_CHARS_MAX or not bundle.terms.unique.isprintable():
            raise InvalidJob(
                f"the unique key {bundle.terms.unique[:80]!r}: at most {KEY_CHARS_MAX} printable characters"
            )
    if bundle.python and not PYTHON.match(bundle.python):
        raise InvalidJob(f"{bundle.python[:80]!r} is not a version of Python")


def _check_marks(terms: Terms) -> None:
    for name, text in (("fair_key", terms.fair_key), ("rate_key", terms.rate_key)):
        if len(text) > KEY_CHARS_MAX or not text.isprintable():
            raise InvalidJob(f"{name} {text[:80]!r}: at most {KEY_CHARS_MAX} printable characters")
    for label in terms.requires:
        if not is_name(label):
            raise InvalidJob(f"{label[:80]!r} is not a valid label: {NAME_RULE}")


def _agree(header: Header, bundle: Enqueue) -> bool:
    """Whether a frame says what the body in it says."""
    signed = (header.bundle, header.task, header.queue, header.mode, header.python, header.function)
    claimed = (bundle.bundle, bundle.task, bundle.queue, bundle.mode, bundle.python, bundle.function)
    if signed != claimed or len(header.indexes) != bundle.count or header.only:
        return False
    asked = (bundle.priority, bundle.key, bundle.delay_s)
    return header.v < 2 or (header.priority, header.key, header.delay_s) == asked
