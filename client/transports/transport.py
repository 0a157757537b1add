"""The seam between a client's machinery and whatever carries its bundles to a node.

In an application that is a `Connection` (WebSocket to one of several nodes). In a runner it is the channel to the
runner's own node, put in place with `install()` before user code runs. All methods are called on one event loop: the
one of the client that uses the transport.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeVar

from ..errors import RotaError
from ..model import Enqueue, Mode, QueueInfo, Receipt
from ..wire.keyring import Seal
from ..wire.views import JobView

T = TypeVar("T")


class Patience(NamedTuple):
    """How long to go on: until `until` (the loop's time) for a definite answer, once a node may have got the question;
    for `connect_s` while no address leads to a node, each of them having been tried."""

    until: float
    connect_s: float


class Follower(Protocol):
    """Who waits for results."""

    def push(self, bundle: str, results: bytes) -> None:
        """Take one encoded `Results` record; the same one may come twice. b"": the bundle has ended, and what has not
        been pushed is not kept."""
        ...

    def registered(self, bundle: str) -> None:
        """All that is known of this bundle now has been pushed. Once for each `follow`, and after a reconnect."""
        ...

    def refuse(self, bundle: str, error: RotaError) -> None:
        """Take the reason why no results of this bundle will come; it is no longer followed."""
        ...


class Transport(Protocol):
    async def seal(self, patience: Patience) -> Seal:
        """What to sign bundles with, and the cluster they are for. Waits for a node.
        An empty keyring where somebody else signs and verifies (a runner's node)."""
        ...

    @property
    def jobs_per_bundle(self) -> int:
        """How many jobs of one bundle its node takes."""
        ...

    async def enqueue(
        self, bundles: list[Enqueue], seen_revision: int, patience: Patience
    ) -> list[Receipt | RotaError]:
        """Hand over bundles and return what became of each, in order. Repeats them unchanged, at other nodes too, until
        the answer is definite or patience is over: then `EnqueueUnknown`, or the reason why
        certainly nothing was stored. Never raises a RotaError for a single bundle."""
        ...

    async def put_function(self, digest: str, code: bytes, patience: Patience) -> None:
        """Make code known to the cluster; cheap if this connection has done so before."""
        ...

    async def task_mode(self, task: str, patience: Patience) -> Mode | None:
        """How a task runs; None if no node has ever registered it."""
        ...

    async def declare(self, queue: QueueInfo, patience: Patience) -> None:
        """Write what the code says of a queue to the cluster; repeated while patience lasts. Raises `InvalidJob` where
        that cannot be done."""
        ...

    def follow(self, bundles: Iterable[str], follower: Follower) -> None:
        """Push results, stored and future ones, until `unfollow`, across reconnects. Following twice is harmless."""
        ...

    def unfollow(self, bundles: Iterable[str]) -> None: ...

    async def job(self, job_id: str) -> JobView: ...

    async def post(self, path: str, body: object, kind: type[T]) -> T:
        """Ask a node's HTTP port to do something; its answer."""
        ...

    async def close(self) -> None: ...


_installed: Transport | None = None


def install(transport: Transport | None) -> None:
    """Make this the transport of the process's default client: what `task.enqueue` in a runner goes through."""
    global _installed
    _installed = transport


def installed() -> Transport | None:
    return _installed
