"""An event loop whose time jumps: nothing is ever waited for, and the same program runs the same way every time.

Callbacks keep asyncio's order (code may rely on it). What explores schedules is latency, which the faults draw from a
seed.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

EPOCH_S = 1_767_225_600.0
"""Wall time at virtual time 0: the first second of 2026."""

STANDSTILL_TURNS_MAX = 200_000
"""Turns of the loop at one instant before it is called a busy loop."""


class SimulationError(Exception):
    """The program did what a simulation cannot go on with."""


class Deadlock(SimulationError):
    """Tasks wait, but there is no timer and nothing is ready: nothing can ever happen again."""


class Standstill(SimulationError):
    """The loop turns and turns without time moving on."""


class RealInput(SimulationError):
    """Something reached for a socket, a thread, a process or a signal."""


class VirtualSelector(selectors.BaseSelector):
    """Never blocks: instead of waiting it moves the time. Takes one file, the loop's own wake-up pipe."""

    def __init__(self) -> None:
        self._files: dict[int, selectors.SelectorKey] = {}
        self._still = 0
        self.now = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._files:
            raise RealInput("the simulation has no sockets: use the ledger in memory and scripted runners")
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._files[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._files

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock(f"at {self.now:.6f} s nothing is ready and no timer is set; waiting: {_waiting()}")
        if timeout > 0:
            self.now += timeout
            self._still = 0
        else:
            self._still += 1
            if self._still > STANDSTILL_TURNS_MAX:
                raise Standstill(f"{self._still:,} turns of the loop at {self.now:.6f} s; tasks: {_waiting()}")
        return []

    def close(self) -> None:
        self._files.clear()


class NumberedTask(asyncio.Task[Any]):
    """asyncio keeps tasks in sets, and cancels them in their order: which must not be that of their addresses."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        assert isinstance(loop, VirtualLoop)
        self.number = next(loop.numbers)        # asyncio asks for the hash at once
        super().__init__(coroutine, loop=loop, **options)

    @classmethod
    def make(
        cls, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Future[Any]:
        return cls(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on a selector that jumps to the next timer. Real input and output raise `RealInput`."""

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9
        self.numbers = itertools.count()
        self.set_task_factory(NumberedTask.make)
        self.unhandled: list[dict[str, Any]] = []
        """What asyncio reports to nobody: exceptions of callbacks and of tasks that were never awaited."""
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        return self._virtual.now

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise RealInput("the simulation has no sockets, threads, processes or signals")

    run_in_executor = _refuse
    add_signal_handler = _refuse
    create_connection = _refuse
    create_server = _refuse
    create_unix_connection = _refuse
    create_unix_server = _refuse
    create_datagram_endpoint = _refuse
    subprocess_exec = _refuse
    subprocess_shell = _refuse
    sock_connect = _refuse
    sock_accept = _refuse
    sock_recv = _refuse
    sock_sendall = _refuse


class VirtualClock:
    """A node's clocks under a `VirtualLoop`. `skew_s` is how far its wall clock is off."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, skew_s: float = 0.0) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self.skew_s = skew_s

    def wall(self) -> float:
        return EPOCH_S + self._loop.time() + self.skew_s

    def monotonic(self) -> float:
        return self._loop.time()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run to its end in virtual time. Raises for exceptions that nobody looked at (`main` may have waited in vain for
    what they ended), and else what `main` raises."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        try:
            return runner.run(main)
        finally:
            if loop.unhandled:
                first = loop.unhandled[0]
                error = first.get("exception")
                raise SimulationError(f"nobody looked at: {first.get('message')}: {error!r}") from error


def _waiting() -> str:
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:        # the loop is being closed
        return "unknown"
    return ", ".join(sorted(_place(task) for task in tasks)) or "none"


def _place(task: asyncio.Task[Any]) -> str:
    """The name of a task and where it stands."""
    coroutine: Any = task.get_coro()
    place = ""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            break
        place = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
        coroutine = coroutine.cr_await
    return f"{task.get_name()} in {place}" if place else task.get_name()
