"""The guard: parent of a node's process and of its runners, PID 1 in a container.

It holds what must not depend on the node's event loop: runners die at the lease's deadline even if the node is stopped,
and when the node's process has died, runners are killed and reaped *before* the lease is revoked, so that whoever takes
over is never beside them. Standard library only, one thread, no gRPC: it can fork. Run as a script, by path:

    python -I -S guard.py [options] -- <argv of the node's process>
    python -I -S guard.py --attach <fd>      # for a node inside an application: the socket's other end is its parent

It speaks JSON over a unix SEQPACKET socket with the node; the node's side is `guardlink.py`, which lists the messages.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

if not __package__:                         # run by path, without site-packages: the folder is the package
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    __package__ = "guard"

from . import children
from .children import STOP_SIGNALS, Runner, User, kill_group, spawn
from .lease import ALWAYS, CLOCK_BOOTTIME, NEVER, Page, Timer
from .outlet import Outlet
from .revoke import Etcd
from .tally import new_tally, only_read

GUARD_FD = "ROTA_GUARD_FD"
RUNNER_FDS = "ROTA_RUNNER_FDS"
RUNNER_NUMBER = "ROTA_RUNNER"
SCRUBBED = ("ROTA_KEY", "ROTA_TOKEN", "ROTA_ETCD", "ROTA_GUARD", "ROTA_NODE_CONFIG", "ROTA_OUTBOX")
"""What begins with these a runner does not inherit: it never holds a key, nor the way to the guard."""

EXIT_DRAINED, EXIT_CONFIG = 0, 2
"""Exit statuses of the node's process after which it is not started again."""

BACKOFF_MIN_S, BACKOFF_MAX_S, HEALTHY_S = 0.2, 30.0, 60.0
HURRIED_S = 6.0         # after the second signal; the node is given five
SWEEP_S = 0.02
SWEEP_S_MAX = 1.0       # what cannot be killed in this time (it waits for a disk) keeps nobody waiting any longer
BEATS_MISSED_MAX = 12   # a node says that it is there once per beat
SURVIVOR = children.__file__
MESSAGE_BYTES_MAX = 128 * 1024

class Guard:
    """One node's guard. `run()` returns the exit status."""

    def __init__(
        self, node_argv: list[str], *, attached: socket.socket | None = None, restart: bool = True,
        silence_s: float = 60.0, runner_user: User | None = None,
    ) -> None:
        self._argv = node_argv
        self._user = runner_user
        self._beat_s = silence_s / BEATS_MISSED_MAX
        self._beat_at: float | None = None  # when it is looked for the next beat; None before the first
        self._missed = 0
        self._outlet = Outlet()
        self._page = Page()
        self._token = children.new_token()
        self._survivor: tuple[int, int] | None = None   # its pid, and our end of the pipe that tells it that we live
        self._attached = attached is not None
        self._restart = restart and not self._attached
        self._socket = attached             # our end; None while there is no node
        self._node: int | None = None       # its pid; None if attached, or dead
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._backoff_s = BACKOFF_MIN_S
        self._status: int | None = None     # what the last node's process ended with; None while one lives
        self._runners: dict[int, int] = {}  # number -> pid
        self._reasons: dict[int, str] = {}
        self._swept_since: float | None = None
        self._exits: list[dict[str, Any]] = []      # to be told when what those runners left behind is dead, too
        self._lease: str | None = None
        self._deadline: float | None = None
        self._expired = False
        self._etcd: Etcd | None = None
        self._signals = 0
        self._hurry_at: float | None = None
        self._unsent: collections.deque[tuple[bytes, list[int]]] = collections.deque()
        self._selector = selectors.DefaultSelector()
        self._timer = Timer()
        self._wakeup, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])      # whatever our parent had blocked
        for number in (signal.SIGCHLD, *STOP_SIGNALS):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:    # nohup stays
                signal.signal(number, lambda *_: None)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._selector.register(self._timer.fd, selectors.EVENT_READ)
        if self._outlet.source is not None:
            self._selector.register(self._outlet.source, selectors.EVENT_READ)

    def run(self) -> int:
        """Until there is nothing left to guard."""
        try:
            return self._serve()
        finally:
            self._outlet.close()

    def _serve(self) -> int:
        children.adopt_orphans()
        if os.getpid() != 1:                # then the kernel kills everybody with us
            self._start_survivor()
        if self._socket is not None:
            self._connect(self._socket)
        else:
            self._start_node()
        while True:
            for key, _ in self._selector.select(self._patience()):
                if key.fd == self._wakeup:
                    self._on_signals()
                elif key.fd == self._timer.fd:
                    self._timer.read()
                elif key.fd == self._outlet.source:
                    self._outlet.pump()
                elif key.fd == self._outlet.target:
                    self._outlet.flush()
                else:
                    self._on_socket()
            self._flush()
            self._check_deadline()
            self._sweep()
            self._check_beat()
            if self._hurry_at is not None and self._hurry_at <= time.monotonic():
                self._kill_everything()
            if self._status is not None and not self._runners and self._swept_since is None and self._after_node():
                return self._status
            self._watch_outlet()

    def _patience(self) -> float | None:
        if self._swept_since is not None:
            return SWEEP_S
        times = [at for at in (self._restart_at, self._hurry_at, self._beat_at) if at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _watch_outlet(self) -> None:
        """Whether stderr takes more matters only while there is more."""
        outlet = self._outlet
        if outlet.source is None:
            return
        watched = outlet.target in self._selector.get_map()
        if outlet.pending and not watched:
            self._selector.register(outlet.target, selectors.EVENT_WRITE)
        elif watched and not outlet.pending:
            self._selector.unregister(outlet.target)

    def _start_survivor(self) -> None:
        """Should we be killed, runners and node die with us, but not what jobs have started: it sees to that."""
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        argv = [sys.executable, "-I", "-S", SURVIVOR, str(theirs), str(self._token)]
        self._survivor = spawn(argv, {}, [theirs], tied=False), ours
        os.close(theirs)

    # -- the node ----------------------------------------------------------------------------------------------------

    def _start_node(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, GUARD_FD: str(theirs.fileno())}
        self._node = spawn(self._argv, environment, [theirs.fileno()], stderr=self._outlet.sink)
        theirs.close()
        self._status = self._restart_at = None
        self._lease = self._deadline = self._beat_at = None
        self._page.set(NEVER)
        self._expired = False
        self._started_at = time.monotonic()
        self._connect(ours)

    def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._selector.register(sock, selectors.EVENT_READ)

    def _node_died(self, status: int) -> None:
        """Kill what it started; what follows (`_after_node`) waits until all of that is reaped."""
        self._node = None
        self._status = status if status >= 0 else 128 - status
        self._disconnect()
        self._beat_at = None
        if status not in (EXIT_DRAINED, EXIT_CONFIG):
            self._say(f"the node's process ended ({describe(status)})")
        self._kill_runners("node died")

    def _disconnect(self) -> None:
        if self._socket is None:
            return
        self._read_messages()               # its last lease message may still be in the socket
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._socket)
        self._socket.close()
        self._socket = None
        for _, descriptors in self._unsent:
            close_all(descriptors)
        self._unsent.clear()

    def _after_node(self) -> bool:
        """The node is dead, all its runners are reaped: free its claims, then end or start anew. True to end."""
        assert self._status is not None
        if self._lease is not None:
            lease, self._lease, self._deadline = self._lease, None, None
            self._timer.set(None)
            if self._etcd is not None:
                self._say(self._etcd.revoke(lease))
        if not self._restart or self._signals or self._status in (EXIT_DRAINED, EXIT_CONFIG):
            return True
        now = time.monotonic()
        if self._restart_at is None:
            if now - self._started_at >= HEALTHY_S:
                self._backoff_s = BACKOFF_MIN_S
            self._say(f"starting it again in {self._backoff_s:g} s")
            self._restart_at = now + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)
        if self._restart_at <= now:
            self._start_node()
        return False

    # -- messages ----------------------------------------------------------------------------------------------------

    def _on_socket(self) -> None:
        if self._read_messages() or not self._attached:
            return                          # a child's death is told by SIGCHLD
        self._node_died(0)

    def _read_messages(self) -> bool:
        """Carry out what the node asks. False at the end of the stream."""
        while self._socket is not None:
            try:
                data = self._socket.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(self._socket)     # or it would be readable for ever
                return False
            try:
                message = json.loads(data)
                getattr(self, "_on_" + message["op"].replace("-", "_"))(message)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._say(f"a message of the node's makes no sense: {error!r}")
        return True

    def _on_lease(self, message: dict[str, Any]) -> None:
        self._lease, self._deadline = message["id"], message["deadline"]
        self._expired = False
        self._timer.set(self._deadline)
        self._page.set(message["deadline"])

    def _on_no_lease(self, message: dict[str, Any]) -> None:
        self._lease = self._deadline = None
        self._timer.set(None)
        self._page.set(ALWAYS)

    def _on_beat(self, message: dict[str, Any]) -> None:
        self._missed = 0
        if self._beat_at is None and not self._attached:
            self._beat_at = time.monotonic() + self._beat_s

    def _check_beat(self) -> None:
        """A node whose loop does not turn any more can do nothing, not even end. Beats are counted, not timed: of a
        machine that slept we have seen no more than it."""
        if self._beat_at is None or time.monotonic() < self._beat_at:
            return
        self._read_messages()
        self._missed += 1
        self._beat_at = time.monotonic() + self._beat_s
        if self._missed > BEATS_MISSED_MAX and self._node is not None:
            self._say(f"the node's process has not answered for {self._beat_s * BEATS_MISSED_MAX:g} s: it is killed")
            self._beat_at = None
            kill_group(self._node)

    def _on_etcd(self, message: dict[str, Any]) -> None:
        self._etcd = Etcd(message)

    def _on_spawn(self, message: dict[str, Any]) -> None:
        number = message["runner"]
        if self._expired or self._status is not None or number in self._runners:
            self._send({"op": "refused", "runner": number})
            return
        mine: list[int] = []
        its: list[int] = []
        try:
            for _ in ("jobs and outcomes", "what jobs ask for"):
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                mine.append(ours.detach())
                its.append(theirs.detach())
            permits = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            printed, output = os.pipe2(os.O_CLOEXEC)
            mine += [permits, printed]
            tally = new_tally()
            its.append(tally)
            mine.append(only_read(tally))
            environment = {name: value for name, value in os.environ.items() if not name.startswith(SCRUBBED)}
            inherited = [*its[:2], permits, self._page.fd, tally]
            environment |= {RUNNER_NUMBER: str(number), RUNNER_FDS: ",".join(map(str, inherited))}
            if self._user is not None:
                environment |= self._user.environment()
            its.append(output)
            self._runners[number] = spawn(
                message["argv"], environment, inherited, stderr=output,
                runner=Runner(children.mark(self._token, number), self._user),
            )
        except OSError as error:            # no more processes, files or memory
            self._say(f"a runner cannot be started: {error}")
            close_all(mine)
            self._send({"op": "exited", "runner": number, "status": 127, "reason": str(error)})
        else:
            self._send({"op": "spawned", "runner": number, "pid": self._runners[number]}, mine)
        close_all(its)

    def _on_kill(self, message: dict[str, Any]) -> None:
        self._kill(message["runner"], "asked")

    def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        if self._socket is None:
            close_all(descriptors or [])
        else:
            self._unsent.append((json.dumps(message).encode(), descriptors or []))
            self._flush()

    def _flush(self) -> None:
        """Never blocks: a stopped node does not read."""
        while self._unsent and self._socket is not None:
            data, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._socket, [data], descriptors)
            except BlockingIOError:
                with contextlib.suppress(KeyError):
                    self._selector.modify(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
                return
            except OSError:
                pass                        # it has died, SIGCHLD will say so
            close_all(descriptors)
            self._unsent.popleft()
            if not self._unsent:
                with contextlib.suppress(KeyError):
                    self._selector.modify(self._socket, selectors.EVENT_READ)

    # -- runners -----------------------------------------------------------------------------------------------------

    def _check_deadline(self) -> None:
        if self._deadline is None or time.clock_gettime(CLOCK_BOOTTIME) < self._deadline:
            return
        self._read_messages()               # a newer deadline may wait there, if it was us who slept
        if self._deadline is None or time.clock_gettime(CLOCK_BOOTTIME) < self._deadline:
            return
        self._deadline = None
        self._expired = True
        self._kill_runners("expired")
        self._send({"op": "expired"})
        self._say("the lease's deadline has passed: all runners are killed")

    def _kill_runners(self, reason: str) -> None:
        for number in list(self._runners):
            self._kill(number, reason)

    def _kill(self, number: int, reason: str) -> None:
        pid = self._runners.get(number)
        if pid is None:
            return
        self._reasons.setdefault(number, reason)
        kill_group(pid)

    def _kill_everything(self) -> None:
        """The third signal, or no end five seconds after the second."""
        self._hurry_at = None
        self._kill_runners("node died")
        if self._node is not None:
            kill_group(self._node)
        elif self._attached and self._status is None:
            self._node_died(0)

    def _reap(self) -> None:
        """Take note of all children that have died, also of those that are not ours but were left to us."""
        while True:
            try:
                gone = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if gone is None:
                return
            number = next((number for number, pid in self._runners.items() if pid == gone.si_pid), None)
            if number is not None or gone.si_pid == self._node:
                kill_group(gone.si_pid)     # its children; before it is reaped, so that the group's number is still its
            status = os.waitstatus_to_exitcode(os.waitpid(gone.si_pid, 0)[1])
            if number is not None:
                del self._runners[number]
                self._swept_since = time.monotonic()
                reason = self._reasons.pop(number, "")
                self._exits.append({"op": "exited", "runner": number, "status": status, "reason": reason})
            elif gone.si_pid == self._node:
                self._node_died(status)
            elif self._survivor is not None and gone.si_pid == self._survivor[0]:
                os.close(self._survivor[1])
                self._start_survivor()

    def _sweep(self) -> None:
        """Kill what jobs of dead runners left behind, in sessions of its own or wherever: it is our child since its
        parent died. Only then is the runner told to be dead, so that no second run is beside it."""
        if self._swept_since is None:
            return
        ours, me = {children.mark(self._token, number) for number in self._runners}, os.getpid()
        left = [pid for pid in children.marked(self._token, ours) if children.parent_of(pid) == me]
        for pid in left:
            kill_group(pid)
        if left and time.monotonic() < self._swept_since + SWEEP_S_MAX:
            return
        self._swept_since = None
        if left:
            self._say(f"what a job has started cannot be killed: {left}")
        exits, self._exits = self._exits, []
        for message in exits:
            self._send(message)

    # -- signals -----------------------------------------------------------------------------------------------------

    def _on_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wakeup, 4096):
                if number != signal.SIGCHLD:
                    self._on_stop_signal(number)
        self._reap()

    def _on_stop_signal(self, number: int) -> None:
        """First: drain. Second: cancel, hand back, go. Third: at once. What the first two mean is up to the node."""
        self._signals += 1
        if self._signals <= 2:
            name = signal.Signals(number).name
            self._send({"op": "signal", "name": name, "count": self._signals})
        if self._signals == 2:
            self._hurry_at = time.monotonic() + HURRIED_S
        if self._signals >= 3:
            self._kill_everything()

    def _say(self, text: str) -> None:
        self._outlet.say(text)


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def describe(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="guard.py", description=__doc__)
    parser.add_argument("--attach", type=int, metavar="FD", help="serve the process at the other end of this socket")
    parser.add_argument("--no-restart", action="store_true", help="end when the node's process has crashed")
    parser.add_argument("--silence", type=float, default=60.0, metavar="S", help="how long a node may say nothing")
    parser.add_argument("--runner-user", metavar="NAME", help="run jobs as this user; only root may")
    parser.add_argument("node", nargs="*", help="the command line of the node's process, after --")
    options = parser.parse_args()
    if (options.attach is None) == (not options.node):
        parser.error("either --attach, or the command line of the node's process after --")
    attached = None
    if options.attach is not None:
        attached = socket.socket(fileno=options.attach)
        attached.set_inheritable(False)
    user = User.named(options.runner_user) if options.runner_user else None
    return Guard(
        options.node, attached=attached, restart=not options.no_restart, silence_s=options.silence, runner_user=user
    ).run()


if __name__ == "__main__":
    sys.exit(main())
