"""Pushing results to who waits for them.

Results lie below `results/<client session>/`. While a client of a session waits at this node, the node watches that
prefix; so any node can serve any client, and after a failover the client just asks the next one.

A job may end and leave nothing (`keep_result=0`, a store that was full, a result that expired unread). Its body goes
when its bundle has ended, so now and then it is looked whether the bodies of what is waited for are still there.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeAlias

from rota.client.errors import InvalidJob, JobUnknown, LedgerError, Overloaded
from rota.client.ids import BUNDLE, SESSION, job_id
from rota.client.model import JOBS_PER_BUNDLE_MAX, ResultEntry, Results
from rota.client.wire.codec import encode_results
from rota.client.wire.keyring import Seal

from ...clock import Clock
from ...events.sparse import Sparse
from ...ledger.follow import Listing, News, Show, follow
from ...ledger.ledger import Get, Ledger, Record, Txn, prefix_end
from ...recent import Recent
from ...state.keys import Keys, session_of, whole
from ..bodies.cache import LATELY_S, BodyCache

log = logging.getLogger(__name__)
watching = Sparse(log)

Push: TypeAlias = Callable[[str, bytes], None]

NOTHING_MORE = b""
"""Pushed in place of results: the bundle has ended, and what was not pushed before is not kept."""

LINGER_S = 30.0
"""A session's watch stays open this long after its last waiter has gone: the next is likely to come."""

WAITED_S = 0.25
"""Who waited so lately will probably wait for the next job, too."""

BUNDLES_PER_READ = 40

LOOK_S = 1.0
LOOKS_MAX = 200
"""Bundles that are looked for at a time: with more of them waited for, each has its turn less often."""

FEEDS_MAX = 5_000
"""Sessions that are watched at a time: each client process is one, and each watch costs the store."""

INDEX = re.compile(r"[0-9]{1,3}\Z")
RECORDS_MAX = JOBS_PER_BUNDLE_MAX * 2
"""Of one bundle, kept in mind: each job has one record at the most, and a second if a person has retried it."""

RECENT_MAX = 1_000
"""Bundles of a watched session whose results are kept in mind, for who asks a moment later."""


class _Feed:
    """One session's watch and who waits for what."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Push]] = {}
        self.waited_at = float("-inf")  # the last waiter has gone
        self.since = 0              # the watch shows everything after this revision
        self.recent: OrderedDict[str, list[Record]] = OrderedDict()
        self.ready = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def keep(self, bundle: str, record: Record) -> None:
        records = self.recent.setdefault(bundle, [])
        records.append(record)
        if len(records) > RECORDS_MAX:
            del self.recent[bundle]
            self.since = max(self.since, record.mod_revision)
        if len(self.recent) > RECENT_MAX:
            _, forgotten = self.recent.popitem(last=False)
            self.since = max(self.since, forgotten[-1].mod_revision)    # who asks for older ones must read

    def push(self, bundle: str, record: bytes) -> None:
        for push in list(self.waiting.get(bundle, ())):
            push(bundle, record)


class Followers:
    """`run()` owns the watches; `follow()` is what the HTTP port calls. `local`: results so far of bundles that live in
    this node's memory only."""

    def __init__(
        self, ledger: Ledger, keys: Keys, seal: Seal, clock: Clock, cache: BodyCache,
        local: Recent[str, list[bytes]],
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._seal = seal
        self._turns: dict[tuple[str, str], _Feed] = {}      # (session, bundle): whose turn it is to be looked for first
        self._feeds: dict[str, _Feed] = {}
        self._clock = clock
        self._cache = cache
        self._local = local
        self._group: asyncio.TaskGroup | None = None

    def waits_for(self, session: str) -> bool:
        """Whether somebody waits here for results of this session, or has just ceased to."""
        feed = self._feeds.get(session)
        return feed is not None and (bool(feed.waiting) or self._clock.monotonic() < feed.waited_at + WAITED_S)

    def publish(self, bundle: str, record: bytes) -> None:
        """Push a result that is not stored."""
        feed = self._feeds.get(session_of(bundle))
        if feed is not None:
            feed.push(bundle, record)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._look_after()
            finally:
                self._group = None

    async def follow(self, session: str, bundles: list[str], push: Push) -> Callable[[], None]:
        """See `NodeService.follow`."""
        if self._group is None:
            raise Overloaded("this node is just starting, or ending; try another", 0.2)
        if not SESSION.match(session) or not all(
            BUNDLE.match(bundle) and session_of(bundle) == session for bundle in bundles
        ):
            raise InvalidJob(f"{session[:20]!r}: not a session, or not all of these bundles are of that session")
        feed = self._feeds.get(session)
        if feed is None and len(self._feeds) >= FEEDS_MAX:
            raise Overloaded(f"the clients of this node wait for jobs of {FEEDS_MAX:,} others: try another node", 5.0)
        if feed is None:
            feed = self._feeds[session] = _Feed()
            feed.task = self._group.create_task(self._serve(session, feed), name=f"results-{session}")
        for bundle in bundles:
            feed.waiting.setdefault(bundle, []).append(push)
            self._turns[session, bundle] = feed

        def end() -> None:
            for bundle in bundles:
                pushes = feed.waiting.get(bundle)
                if pushes is not None and push in pushes:
                    pushes.remove(push)
                    if not pushes:
                        del feed.waiting[bundle]
                        feed.waited_at = self._clock.monotonic()

        try:
            await feed.ready.wait()
            await self._tell_past(feed, bundles, push)
        except BaseException:
            end()
            raise
        return end

    async def _tell_past(self, feed: _Feed, bundles: Iterable[str], push: Push) -> None:
        """What was stored before the watch; and that there is anything to wait for at all."""
        todo = []
        for bundle in bundles:
            here = self._local.get(bundle)
            taken_at = self._cache.taken_at(bundle, self._clock.monotonic() - LATELY_S)
            if here is None and taken_at is not None and taken_at > feed.since:
                # all of it has come, or will come, by the watch
                here = [record.value for record in feed.recent.get(bundle, ())]
            if here is None:
                todo.append(bundle)
            for past in list(here or ()):
                push(bundle, past)
        for start in range(0, len(todo), BUNDLES_PER_READ):
            for bundle, results, ended, known in await self._read(todo[start : start + BUNDLES_PER_READ]):
                if not (results or known):
                    raise JobUnknown(
                        f"job {job_id(bundle, 0)} is unknown: it was never enqueued here, or its result has expired",
                        job_id(bundle, 0),
                    )
                for record in results:
                    push(bundle, record)
                if ended:
                    push(bundle, NOTHING_MORE)

    async def _read(self, bundles: list[str]) -> list[tuple[str, list[bytes], bool, bool]]:
        """(bundle, what is stored of its results, whether it has ended, whether it left any trace)."""
        keys = self._keys
        gets: list[Get] = []
        for bundle in bundles:
            results, body = keys.bundle_results(bundle), keys.body(whole(bundle))
            gets.append(Get(results, prefix_end(results)))
            gets.append(Get(body, body + b"/", True, 1))        # itself, or a piece of it
            gets.append(Get(keys.receipt(bundle), b"", True))
        answers = (await self._ledger.commit(Txn((), tuple(gets)))).answers
        found = []
        for number, bundle in enumerate(bundles):
            results_found, body_found, receipt_found = answers[3 * number : 3 * number + 3]
            newest_first = sorted(results_found, key=lambda record: record.mod_revision, reverse=True)
            results_ = [record.value for record in newest_first]
            if not body_found:
                results_ += await self._failures(bundle)
            found.append((bundle, results_, not body_found, bool(body_found or receipt_found)))
        return found

    async def _failures(self, bundle: str) -> list[bytes]:
        """Of jobs in the failed set, whose results may have expired long ago: that they failed."""
        prefix = self._keys.failures_of(bundle)
        page = await self._ledger.read(prefix, prefix_end(prefix), keys_only=True)
        entries = []
        for record in page.records:
            index = record.key[len(prefix):].decode(errors="replace")
            if INDEX.match(index) and int(index) < JOBS_PER_BUNDLE_MAX:
                error = f"its result is not kept; `rota job {job_id(bundle, int(index))}` shows the error"
                entries.append(ResultEntry(int(index), "failed", error=error))
        if not entries:
            return []
        results = self._seal.keyring.sign_results(Results(whole(bundle), entries), self._seal.cluster)
        return [encode_results(results)]

    async def _look_after(self) -> None:
        """Tell who waits for a bundle that has ended and of which nothing more will come."""
        while True:
            await asyncio.sleep(LOOK_S)
            turns = [key for key, feed in self._turns.items() if key[1] in feed.waiting]
            self._turns = {key: self._turns[key] for key in turns}
            turns = [key for key in turns if self._local.get(key[1]) is None][:LOOKS_MAX]
            for start in range(0, len(turns), BUNDLES_PER_READ):
                try:
                    await self._look(turns[start : start + BUNDLES_PER_READ])
                except LedgerError:
                    break           # another time

    async def _look(self, turns: list[tuple[str, str]]) -> None:
        bodies = [self._keys.body(whole(bundle)) for _, bundle in turns]
        gets = tuple(Get(body, body + b"/", True, 1) for body in bodies)
        answers = (await self._ledger.commit(Txn((), gets))).answers
        gone = [turn for turn, body_found in zip(turns, answers, strict=True) if not body_found]
        for turn in turns:
            if (feed := self._turns.pop(turn, None)) is not None:
                self._turns[turn] = feed        # behind the others
        if not gone:
            return
        for bundle, results, ended, _ in await self._read([bundle for _, bundle in gone]):
            feed = self._feeds.get(session_of(bundle))
            if ended and feed is not None:
                for record in (*results, NOTHING_MORE):
                    feed.push(bundle, record)

    async def _serve(self, session: str, feed: _Feed) -> None:
        prefix = self._keys.results_of(session)
        try:
            while True:
                try:
                    async with follow(self._ledger, prefix, show=Show.NOTHING) as news:
                        await self._relay(feed, news, prefix)
                    return
                except LedgerError as error:
                    watching.warn("results of session %s cannot be watched now: %s", session, error)
                    await asyncio.sleep(0.5)
                    if not feed.waiting:
                        return
        finally:
            if self._feeds.get(session) is feed:
                del self._feeds[session]

    async def _begin(self, feed: _Feed, revision: int) -> None:
        """From here on the watch shows everything."""
        again = feed.ready.is_set()
        feed.since = revision
        feed.recent.clear()
        feed.ready.set()
        if again:
            await self._catch_up(feed)

    async def _catch_up(self, feed: _Feed) -> None:
        """The watch had a gap: tell everybody what is stored (once more; receivers do not mind)."""
        for bundle in list(feed.waiting):
            page = await self._ledger.read(
                self._keys.bundle_results(bundle), prefix_end(self._keys.bundle_results(bundle))
            )
            for record in page.records:
                feed.push(bundle, record.value)

    async def _relay(self, feed: _Feed, news: AsyncIterator[News], prefix: bytes) -> None:
        """Returns when nobody has waited for a while."""
        loop = asyncio.get_running_loop()
        idle_since: float | None = None
        async for seen in news:
            if isinstance(seen, Listing):
                await self._begin(feed, seen.revision)
                continue
            for event in seen.events:
                if not event.deleted:
                    bundle = event.record.key[len(prefix):].partition(b"/")[0].decode(errors="replace")
                    feed.keep(bundle, event.record)
                    feed.push(bundle, event.record.value)
            if feed.waiting:
                idle_since = None
            elif idle_since is None:
                idle_since = loop.time()
            elif loop.time() - idle_since > LINGER_S:
                return
