"""The node's end of the socket to its guard.

    node -> guard   {"op": "lease", "id": "<hex>", "deadline": <CLOCK_BOOTTIME, s>}     after every good keepalive
                    {"op": "no-lease"}                                                  given back in good order
                    {"op": "etcd", "endpoints": [...], "user": …, "password_file": …, "token": …, "ca": …, "cert": …,
                     "key": …}
                    {"op": "spawn", "runner": n, "argv": [...]}
                    {"op": "kill", "runner": n}
                    {"op": "beat"}                                                      its loop turns; every 5 s
    guard -> node   {"op": "spawned", "runner": n, "pid": p}  with five open files, see `Descriptors`
                    {"op": "refused", "runner": n}            the deadline has passed: not before the next lease
                    {"op": "exited", "runner": n, "status": s, "reason": "" | "asked" | "expired" | …}
                    {"op": "expired"}                         the deadline has passed: all runners are killed
                    {"op": "signal", "name": "SIGTERM", "count": 1}
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from rota.client.errors import ConfigError

from .guard import GUARD_FD, MESSAGE_BYTES_MAX

GUARD = Path(__file__).with_name("guard.py")
BEAT_S = 5.0
"""A guard that hears nothing of its node for a minute kills it, and starts it again."""


class Descriptors(NamedTuple):
    """The node's ends of what it shares with a runner."""

    channel: socket.socket
    questions: socket.socket
    permits: int
    output: int         # what it prints, to be read
    tally: int          # what has ended in it, to be read (`rota.worker.channel.tally`)


class GuardEvents(Protocol):
    """Whom the guard's messages are for. Called on the event loop."""

    def spawned(self, runner: int, pid: int, descriptors: Descriptors) -> None: ...
    def refused(self, runner: int) -> None: ...
    def exited(self, runner: int, status: int, reason: str) -> None: ...
    def expired(self) -> None: ...
    def guard_lost(self) -> None: ...


def guard_command(node_argv: Sequence[str], *, restart: bool = True, runner_user: str = "") -> list[str]:
    """The command line that runs a node's process under a guard, and its jobs as `runner_user`, if one is named."""
    options = [*([] if restart else ["--no-restart"]), *(["--runner-user", runner_user] if runner_user else [])]
    return [sys.executable, "-I", "-S", str(GUARD), *options, "--", *node_argv]


class GuardLink:
    """Nothing here blocks or is waited for: the guard answers in messages. `signal` is called with a name and a
    count: 1 drain, 2 cancel now, hand back and be gone within five seconds."""

    def __init__(self, sock: socket.socket, guard: subprocess.Popen[bytes] | None = None) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._guard = guard                 # if it is our child, not our parent
        self._events: GuardEvents | None = None
        self._on_signal: Any = None
        self._early_signals: list[tuple[str, int]] = []
        self._unsent: deque[bytes] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beats: asyncio.TimerHandle | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """For a process that a guard has started. Raises `ConfigError` in any other."""
        try:
            sock = socket.socket(fileno=int(environ[GUARD_FD]))
        except (KeyError, ValueError, OSError):
            raise ConfigError(
                "this process has no guard: runners must not outlive their node, so a node runs under `rota node`, "
                "or starts a guard of its own (GuardLink.attached)"
            ) from None
        sock.set_inheritable(False)
        return cls(sock)

    @classmethod
    def attached(cls) -> Self:
        """Start a guard as a child of this process: for a node inside an application. It ends with `close`, or when
        this process dies."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), "--attach", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], start_new_session=True, stdin=subprocess.DEVNULL,
            )
        return cls(ours, guard)

    def open(self, events: GuardEvents) -> None:
        """Start to listen, on the running loop, if `listen` has not."""
        self._events = events
        if self._loop is None:
            self.listen()

    def listen(self) -> None:
        """Hear of signals before there is anybody to take the other messages: none come before a `spawn`."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._flush()
        self._beat()

    def _beat(self) -> None:
        assert self._loop is not None
        if not self._unsent:                # else it is the guard that stands still
            self._send({"op": "beat"})
        self._beats = self._loop.call_later(BEAT_S, self._beat)

    def on_signal(self, call: Any) -> None:
        """`call(name, count)` for each stop signal that the guard has got, also those it got before."""
        self._on_signal = call
        early, self._early_signals = self._early_signals, []
        for name, count in early:
            call(name, count)

    def lease(self, lease_id: int, deadline_boottime: float) -> None:
        self._send({"op": "lease", "id": f"{lease_id:x}", "deadline": deadline_boottime})

    def no_lease(self) -> None:
        self._send({"op": "no-lease"})

    def etcd(
        self, endpoints: Sequence[str], *, user: str = "", password_file: str = "", token: str = "",
        ca: str = "", cert: str = "", key: str = "", by_grpc: Sequence[str] = (),
    ) -> None:
        """Where to revoke the lease if this process dies: `http://` or `https://` and `host:port`, nearest first. With
        a `token` (the node's own, sent again whenever it changes) the guard need not log in first, which etcd makes
        slow on purpose. `by_grpc` is the command that revokes where etcd's JSON gateway is off."""
        self._send({
            "op": "etcd", "endpoints": list(endpoints), "user": user, "password_file": password_file, "token": token,
            "ca": ca, "cert": cert, "key": key, "by_grpc": list(by_grpc),
        })  # fmt: skip

    def spawn(self, runner: int, argv: Sequence[str]) -> None:
        self._send({"op": "spawn", "runner": runner, "argv": list(argv)})

    def kill(self, runner: int) -> None:
        self._send({"op": "kill", "runner": runner})

    def close(self) -> None:
        """Stop to listen; a guard of our own ends, and takes what is left of its runners with it."""
        if self._loop is not None:
            self._stop_listening()
        self._socket.close()
        if self._guard is not None:
            self._guard.wait()

    def _send(self, message: dict[str, Any]) -> None:
        self._unsent.append(json.dumps(message).encode())
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            try:
                self._socket.send(self._unsent[0])
            except BlockingIOError:
                if self._loop is not None:
                    self._loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:
                self._unsent.clear()        # reading will find the end
                break
            self._unsent.popleft()
        if self._loop is not None:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES_MAX, len(Descriptors._fields))
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._stop_listening()
                if self._events is not None:
                    self._events.guard_lost()
                return
            self._dispatch(json.loads(data), descriptors)

    def _dispatch(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if message["op"] == "signal":
            self._signalled(message["name"], message["count"])
            return
        events = self._events
        assert events is not None
        match message["op"]:
            case "spawned":
                for descriptor in descriptors:
                    os.set_inheritable(descriptor, False)
                channel, questions, permits, output, tally = descriptors
                events.spawned(message["runner"], message["pid"], Descriptors(
                    socket.socket(fileno=channel), socket.socket(fileno=questions), permits, output, tally
                ))
            case "refused":
                events.refused(message["runner"])
            case "exited":
                events.exited(message["runner"], message["status"], message["reason"])
            case "expired":
                events.expired()

    def _signalled(self, name: str, count: int) -> None:
        if self._on_signal is None:
            self._early_signals.append((name, count))
        else:
            self._on_signal(name, count)

    def _stop_listening(self) -> None:
        assert self._loop is not None
        if self._beats is not None:
            self._beats.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
