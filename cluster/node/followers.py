"""Pushing results to who waits for them.

Results lie below `results/<client session>/`. While a client of a session waits at this node, the node watches that
prefix; so any node can serve any client, and after a failover the client just asks the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeAlias

from rota.client.errors import Compacted, JobUnknown, LedgerError
from rota.client.ids import job_id

from ..ledger.ledger import Get, Ledger, Record, Txn, Watch, prefix_end
from ..state.keys import Keys, session_of, whole

log = logging.getLogger(__name__)

Push: TypeAlias = Callable[[str, bytes], None]

LINGER_S = 30.0
"""A session's watch stays open this long after its last waiter has gone: the next is likely to come."""

BUNDLES_PER_READ = 40

RECENT_MAX = 1_000
"""Bundles of a watched session whose results are kept in mind, for who asks a moment later."""


class _Feed:
    """One session's watch and who waits for what."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Push]] = {}
        self.since = 0              # the watch shows everything after this revision
        self.recent: OrderedDict[str, list[Record]] = OrderedDict()
        self.ready = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def keep(self, bundle: str, record: Record) -> None:
        self.recent.setdefault(bundle, []).append(record)
        if len(self.recent) > RECENT_MAX:
            _, forgotten = self.recent.popitem(last=False)
            self.since = max(self.since, forgotten[-1].mod_revision)    # who asks for older ones must read

    def push(self, bundle: str, record: bytes) -> None:
        for push in list(self.waiting.get(bundle, ())):
            push(bundle, record)


class Followers:
    """`run()` owns the watches; `follow()` is what the HTTP port calls."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys
        self._feeds: dict[str, _Feed] = {}
        self._group: asyncio.TaskGroup | None = None
        self.local: Callable[[str], list[bytes] | None] = lambda bundle: None
        """Results so far of a bundle that lives in this node's memory only, or None."""
        self.taken_at: Callable[[str], int | None] = lambda bundle: None
        """The revision at which this node took a bundle in, if that was lately."""

    def publish(self, bundle: str, record: bytes) -> None:
        """Push a result that is not stored."""
        feed = self._feeds.get(session_of(bundle))
        if feed is not None:
            feed.push(bundle, record)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Future()

    async def follow(self, session: str, bundles: list[str], push: Push) -> Callable[[], None]:
        """See `NodeService.follow`."""
        assert self._group is not None, "run() owns the watches"
        feed = self._feeds.get(session)
        if feed is None:
            feed = self._feeds[session] = _Feed()
            feed.task = self._group.create_task(self._serve(session, feed), name=f"results-{session}")
        for bundle in bundles:
            feed.waiting.setdefault(bundle, []).append(push)

        def end() -> None:
            for bundle in bundles:
                pushes = feed.waiting.get(bundle)
                if pushes is not None and push in pushes:
                    pushes.remove(push)
                    if not pushes:
                        del feed.waiting[bundle]

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
            here = self.local(bundle)
            taken_at = self.taken_at(bundle)
            if here is None and taken_at is not None and taken_at > feed.since:
                # all of it has come, or will come, by the watch
                here = [record.value for record in feed.recent.get(bundle, ())]
            if here is None:
                todo.append(bundle)
            for past in list(here or ()):
                push(bundle, past)
        for start in range(0, len(todo), BUNDLES_PER_READ):
            part = todo[start : start + BUNDLES_PER_READ]
            gets: list[Get] = []
            for bundle in part:
                results, body = self._keys.bundle_results(bundle), self._keys.body(whole(bundle))
                gets.append(Get(results, prefix_end(results)))
                gets.append(Get(body, body + b"/", True, 1))        # itself, or a piece of it
                gets.append(Get(self._keys.receipt(bundle), b"", True))
            answers = (await self._ledger.commit(Txn((), tuple(gets)))).answers
            for number, bundle in enumerate(part):
                results_found, body_found, receipt_found = answers[3 * number : 3 * number + 3]
                if not (results_found or body_found or receipt_found):
                    raise JobUnknown(
                        f"job {job_id(bundle, 0)} is unknown: it was never enqueued here, or its result has expired",
                        job_id(bundle, 0),
                    )
                for record in sorted(results_found, key=lambda found: found.mod_revision, reverse=True):
                    push(bundle, record.value)

    async def _serve(self, session: str, feed: _Feed) -> None:
        prefix = self._keys.results_of(session)
        try:
            while True:
                try:
                    page = await self._ledger.read(prefix, prefix_end(prefix), limit=1, keys_only=True)
                    async with self._ledger.watch(
                        prefix, prefix_end(prefix), from_revision=page.revision + 1
                    ) as watch:
                        again = feed.ready.is_set()
                        feed.since = page.revision
                        feed.recent.clear()
                        feed.ready.set()
                        if again:
                            await self._catch_up(feed)
                        await self._relay(feed, watch, prefix)
                        return
                except Compacted:
                    continue
                except LedgerError as error:
                    log.warning("results of session %s cannot be watched now: %s", session, error)
                    await asyncio.sleep(0.5)
        finally:
            if self._feeds.get(session) is feed:
                del self._feeds[session]

    async def _catch_up(self, feed: _Feed) -> None:
        """The watch had a gap: tell everybody what is stored (once more; receivers do not mind)."""
        for bundle in list(feed.waiting):
            page = await self._ledger.read(
                self._keys.bundle_results(bundle), prefix_end(self._keys.bundle_results(bundle))
            )
            for record in page.records:
                feed.push(bundle, record.value)

    async def _relay(self, feed: _Feed, watch: Watch, prefix: bytes) -> None:
        loop = asyncio.get_running_loop()
        idle_since: float | None = None
        async for changes in watch:
            for event in changes.events:
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
