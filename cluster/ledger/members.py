"""One member of etcd, as those who choose between them see it: whatever transport is behind it."""

from __future__ import annotations

from typing import Any, Protocol

from grpc import StatusCode

Metadata = tuple[tuple[str, str], ...]


class RpcFailed(Exception):
    """A call ended otherwise than well. `sent` is False where it is certain that the member has not begun with it."""

    def __init__(self, code: StatusCode, details: str, *, sent: bool = True) -> None:
        super().__init__(code, details)
        self.code, self.details, self.sent = code, details, sent

    def __str__(self) -> str:
        return f"{self.details or 'no details'} ({self.code.name})"


class WatchCall(Protocol):
    """etcd's Watch, a stream in both directions. All raise `RpcFailed` once it has ended, however it did."""

    async def write(self, request: Any) -> None: ...
    async def read(self) -> Any: ...
    def cancel(self) -> None: ...


class Member(Protocol):
    url: str
    heard_at: float
    """When it last answered a call, by the event loop's clock."""
    writes: int
    """How many writes are waiting for its answer."""

    async def ready(self, timeout_s: float) -> bool:
        """Wait until it is connected, or known not to be (a call will then say why). False: nobody answered."""

    async def call(self, name: str, request: Any, timeout_s: float, metadata: Metadata) -> Any:
        """One of etcd's calls. Raises `RpcFailed`."""

    def watch(self, metadata: Metadata) -> WatchCall: ...

    async def reset(self) -> None:
        """Close the connection, ending all that is under way on it. The next use opens a new one."""

    async def close(self) -> None:
        """Close it for good. Closing twice is harmless."""
