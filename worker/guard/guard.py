"""The guard: parent of a node's process and of its runners, PID 1 in a container.

It holds what must not depend on the node's event loop: runners die at the lease's deadline even if the node is stopped,
and when the node's process has died, runners are killed and reaped *before* the lease is revoked, so that whoever takes
over is never beside them. Standard library only, one thread, no gRPC: it can fork. Run as a script, by path:

    python -I -S guard.py [--no-restart] -- <argv of the node's process>
    python -I -S guard.py --attach <fd>      # for a node inside an application: the socket's other end is its parent

It speaks JSON over a unix SEQPACKET socket with the node; the node's side is `guardlink.py`, which lists the messages.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import http.client
import json
import os
import select
import selectors
import signal
import socket
import ssl
import struct
import sys
import time
from typing import Any, NoReturn

GUARD_FD = "ROTA_GUARD_FD"
RUNNER_FDS = "ROTA_RUNNER_FDS"
RUNNER_MARK = "ROTA_RUNNER"
SCRUBBED = ("ROTA_KEY", "ROTA_TOKEN", "ROTA_ETCD", "ROTA_GUARD", "ROTA_NODE_CONFIG")
"""What begins with these a runner does not inherit: it never holds a key, nor the way to the guard."""

EXIT_DRAINED, EXIT_CONFIG = 0, 2
"""Exit statuses of the node's process after which it is not started again."""

BACKOFF_MIN_S, BACKOFF_MAX_S, HEALTHY_S = 0.2, 30.0, 60.0
HURRIED_S = 6.0         # after the second signal; the node is given five
REVOKE_S = 3.0
SWEEP_S = 0.02
MESSAGE_BYTES_MAX = 128 * 1024
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


class Guard:
    """One node's guard. `run()` returns the exit status."""

    def __init__(self, node_argv: list[str], *, attached: socket.socket | None = None, restart: bool = True) -> None:
        self._argv = node_argv
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
        self._sweeping = False
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

    def run(self) -> int:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
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
                else:
                    self._on_socket()
            self._flush()
            self._check_deadline()
            self._sweep()
            if self._hurry_at is not None and self._hurry_at <= time.monotonic():
                self._kill_everything()
            if self._status is not None and not self._runners and not self._sweeping and self._after_node():
                return self._status

    def _patience(self) -> float | None:
        if self._sweeping:
            return SWEEP_S
        times = [at for at in (self._restart_at, self._hurry_at) if at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    # -- the node ----------------------------------------------------------------------------------------------------

    def _start_node(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, GUARD_FD: str(theirs.fileno())}
        self._node = spawn(self._argv, environment, [theirs.fileno()])
        theirs.close()
        self._status = self._restart_at = None
        self._lease = self._deadline = None
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
        if status not in (EXIT_DRAINED, EXIT_CONFIG):
            say(f"the node's process ended ({describe(status)})")
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
                say(self._etcd.revoke(lease))
        if not self._restart or self._signals or self._status in (EXIT_DRAINED, EXIT_CONFIG):
            return True
        now = time.monotonic()
        if self._restart_at is None:
            if now - self._started_at >= HEALTHY_S:
                self._backoff_s = BACKOFF_MIN_S
            say(f"starting it again in {self._backoff_s:g} s")
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
                say(f"a message of the node's makes no sense: {error!r}")
        return True

    def _on_lease(self, message: dict[str, Any]) -> None:
        self._lease, self._deadline = message["id"], message["deadline"]
        self._expired = False
        self._timer.set(self._deadline)

    def _on_no_lease(self, message: dict[str, Any]) -> None:
        self._lease = self._deadline = None
        self._timer.set(None)

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
            mine.append(permits)
            environment = {name: value for name, value in os.environ.items() if not name.startswith(SCRUBBED)}
            environment |= {RUNNER_MARK: str(number), RUNNER_FDS: ",".join(map(str, [*its, permits]))}
            self._runners[number] = spawn(message["argv"], environment, [*its, permits], runner=True)
        except OSError as error:            # no more processes, files or memory
            say(f"a runner cannot be started: {error}")
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
        say("the lease's deadline has passed: all runners are killed")

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
                self._sweeping = True
                reason = self._reasons.pop(number, "")
                self._send({"op": "exited", "runner": number, "status": status, "reason": reason})
            elif gone.si_pid == self._node:
                self._node_died(status)

    def _sweep(self) -> None:
        """Kill what jobs of dead runners left behind in sessions of its own. It came to us when its parent died."""
        if not self._sweeping:
            return
        self._sweeping = False
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return                          # nobody is left: no need to look through all processes
        for pid in children():
            mark = mark_of(pid)
            if mark is not None and mark not in self._runners:
                self._sweeping = True
                kill_group(pid)

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


class Etcd:
    """Just enough of etcd's JSON gateway to revoke a lease."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._endpoints: list[str] = said["endpoints"]
        self._user: str = said.get("user") or ""
        self._password_file: str = said.get("password_file") or ""
        self._token: str = said.get("token") or ""
        self._ca: str | None = said.get("ca") or None
        self._cert: str = said.get("cert") or ""
        self._key: str | None = said.get("key") or None

    def revoke(self, lease: str) -> str:
        """Tell each endpoint in turn until one has done it. Returns what to say; never raises."""
        problem, end = "no endpoint", time.monotonic() + REVOKE_S
        for endpoint in self._endpoints:
            if time.monotonic() > end:
                break
            try:
                status, answer = self._revoke_at(endpoint, lease)
            except Exception as error:      # whatever: the lease runs out by itself
                problem = f"{endpoint}: {error}"
                continue
            if status == 200:
                return f"lease {lease} is revoked: its work is free"
            if status == 404:
                return f"lease {lease} had already run out"
            problem = f"{endpoint}: {status} {answer[:200]!r}"
        return f"lease {lease} could not be revoked ({problem}); it runs out by itself"

    def _revoke_at(self, endpoint: str, lease: str) -> tuple[int, str]:
        body = {"ID": str(int(lease, 16))}
        status, answer = self._post(endpoint, "/v3/lease/revoke", body, self._token)
        if self._user and status in (400, 401, 403):    # the token has run out, or there was none
            status, answer = self._post(
                endpoint, "/v3/auth/authenticate", {"name": self._user, "password": self._password()}, ""
            )
            if status == 200:
                self._token = json.loads(answer)["token"]
                status, answer = self._post(endpoint, "/v3/lease/revoke", body, self._token)
        return status, answer

    def _password(self) -> str:
        """Read anew each time: it is changed while we wait."""
        return read_file(self._password_file).decode().strip() if self._password_file else ""

    def _post(self, endpoint: str, path: str, body: dict[str, str], token: str) -> tuple[int, str]:
        scheme, _, address = endpoint.rpartition("://")
        timeout_s = REVOKE_S / 2
        connection = (
            http.client.HTTPSConnection(address, timeout=timeout_s, context=self._tls()) if scheme == "https"
            else http.client.HTTPConnection(address, timeout=timeout_s)
        )
        try:
            headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read(10_000).decode("utf-8", "replace")
        finally:
            connection.close()

    def _tls(self) -> ssl.SSLContext:
        """Made anew each time: certificates are renewed while we wait."""
        context = ssl.create_default_context(cafile=self._ca)
        if self._cert:
            context.load_cert_chain(self._cert, self._key)
        return context


class Timer:
    """A timer on the clock that runs while the machine is suspended: poll's own does not."""

    def __init__(self) -> None:
        self.fd = _libc.timerfd_create(CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, at: float | None) -> None:
        """At an absolute time, which may be past; None: never."""
        nanoseconds = 0 if at is None else max(1, int(at * 1e9))
        spec = struct.pack("qqqq", 0, 0, *divmod(nanoseconds, 10**9))
        if _libc.timerfd_settime(self.fd, 1, spec, None) != 0:      # 1: TFD_TIMER_ABSTIME
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)


def spawn(argv: list[str], environment: dict[str, str], inherit: list[int], *, runner: bool = False) -> int:
    """Start a child in a session of its own, which dies with us. Returns its pid."""
    guard = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become(argv, environment, inherit, guard, runner)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _become(argv: list[str], environment: dict[str, str], inherit: list[int], guard: int, runner: bool) -> NoReturn:
    """In the forked child."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, *STOP_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(1)                     # it died before it could take us along
        if runner:
            _prepare_runner()
        for descriptor in inherit:
            os.set_inheritable(descriptor, True)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvpe(argv[0], argv, environment)
    except BaseException as error:
        say(f"{argv[0]} cannot be run: {error}")
    os._exit(127)


def _prepare_runner() -> None:
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"1000")            # if memory runs out, it is the jobs that go
        os.close(score)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)


def children() -> list[int]:
    """Our children, the dead among them left out."""
    me, found = str(os.getpid()), []
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                state, parent = read_file(f"/proc/{name}/stat").rpartition(b")")[2].split()[:2]
                if parent.decode() == me and state not in (b"Z", b"X"):
                    found.append(int(name))
    return found


def mark_of(pid: int) -> int | None:
    """The number of the runner that a process descends from; None if it is none's."""
    with contextlib.suppress(OSError, ValueError):
        for variable in read_file(f"/proc/{pid}/environ").split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name == RUNNER_MARK.encode():
                return int(value)
    return None


def read_file(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):       # the second for one that has not made its own group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def describe(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def say(text: str) -> None:
    """A line on stderr, or nowhere if that is stuck: the guard must not wait for who reads logs. What is not printable
    is escaped, as elsewhere (`client/escape.py`, which a script by itself cannot import)."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    poller = select.poll()
    poller.register(2, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poller.poll(0):
            os.write(2, f"rota guard: {text:.900}\n".encode(errors="backslashreplace"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="guard.py", description=__doc__)
    parser.add_argument("--attach", type=int, metavar="FD", help="serve the process at the other end of this socket")
    parser.add_argument("--no-restart", action="store_true", help="end when the node's process has crashed")
    parser.add_argument("node", nargs="*", help="the command line of the node's process, after --")
    options = parser.parse_args()
    if (options.attach is None) == (not options.node):
        parser.error("either --attach, or the command line of the node's process after --")
    attached = None
    if options.attach is not None:
        attached = socket.socket(fileno=options.attach)
        attached.set_inheritable(False)
    return Guard(options.node, attached=attached, restart=not options.no_restart).run()


if __name__ == "__main__":
    sys.exit(main())
