"""Processes below the guard: how they are started, and how those are found that a runner has left behind.

Whatever a job starts carries its runner's mark, however it was started: the soft limit on RLIMIT_RTTIME. Every child
inherits it, through new sessions and emptied environments, everyone can read it in `/proc`, and at a value of thousands
of years it limits nothing.

Run as a script, by path, it is the process that survives its guard (`outlive`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, NoReturn

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MARKED, NUMBER_BITS = 1 << 62, 20
"""A mark: this, the guard's token, and in the last bits the runner's number."""

PAUSE_S = 0.01
_libc = ctypes.CDLL(None, use_errno=True)


class User(NamedTuple):
    """Whom a runner runs as, if not as its guard does."""

    name: str
    uid: int
    gid: int
    groups: list[int]
    home: str

    @classmethod
    def named(cls, name: str) -> User:
        """Raises KeyError if there is none."""
        entry = pwd.getpwnam(name)
        return cls(name, entry.pw_uid, entry.pw_gid, os.getgrouplist(name, entry.pw_gid), entry.pw_dir)

    def environment(self) -> dict[str, str]:
        return {"USER": self.name, "LOGNAME": self.name, "HOME": self.home}

    def become(self) -> None:
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


class Runner(NamedTuple):
    """What a runner is given that a node is not."""

    mark: int
    user: User | None = None


def adopt_orphans() -> None:
    """Whoever below us loses its parent is our child from then on."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(
    argv: list[str], environment: dict[str, str], inherit: list[int], *,
    runner: Runner | None = None, stderr: int = 2, tied: bool = True,
) -> int:
    """Start a child in a session of its own, which dies with us if it is `tied`. Stop signals are not for it: whoever
    sends them to everybody means us. Returns its pid."""
    guard = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become(argv, environment, inherit, guard if tied else None, runner, stderr)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _become(
    argv: list[str], environment: dict[str, str], inherit: list[int], guard: int | None, runner: Runner | None,
    stderr: int,
) -> NoReturn:
    """In the forked child."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        os.dup2(stderr, 2)
        if runner is not None:
            _prepare(runner)
        if guard is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)      # a change of user would have undone it
            if os.getppid() != guard:
                os._exit(1)                 # it died before it could take us along
        for descriptor in inherit:
            os.set_inheritable(descriptor, True)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvpe(argv[0], argv, environment)
    except BaseException as error:
        os.write(2, f"rota guard: {argv[0]} cannot be run: {error}\n".encode())
    os._exit(127)


def _prepare(runner: Runner) -> None:
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_RTTIME, (runner.mark, resource.getrlimit(resource.RLIMIT_RTTIME)[1]))
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"1000")            # if memory runs out, it is the jobs that go
        os.close(score)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if runner.user is not None:
        runner.user.become()


# -- finding them ----------------------------------------------------------------------------------------------------


def new_token() -> int:
    """What the marks of one guard's runners have in common, and nobody else's."""
    return int.from_bytes(os.urandom(5), "big")


def mark(token: int, number: int) -> int:
    return MARKED | token << NUMBER_BITS | number % (1 << NUMBER_BITS)


def mark_of(pid: int) -> int:
    """The mark of a living process; 0 if it has none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/limits").read_bytes().splitlines():
            if line.startswith(b"Max realtime timeout"):
                value = line.split()[3]
                return int(value) if value.isdigit() and int(value) & MARKED else 0
    return 0


def marked(token: int, but: Collection[int] = ()) -> list[int]:
    """The living processes that carry a mark of this guard's runners, other than these marks."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if name.isdigit():
            value = mark_of(int(name))
            if value >> NUMBER_BITS == MARKED >> NUMBER_BITS | token and value not in but and parent_of(int(name)):
                found.append(int(name))
    return found


def parent_of(pid: int) -> int:
    """The pid of a living process's parent; 0 if it is dead."""
    with contextlib.suppress(OSError, IndexError):
        state, parent = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:2]
        return int(parent) if state not in (b"Z", b"X") else 0
    return 0


def kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):       # the second for one that has not made its own group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def outlive(guard: int, token: int) -> None:
    """Wait for the end of the guard, and kill whatever carries one of its marks then. Runners that are being killed
    take a moment to die, and may start something in it: look until there is nobody left, twice."""
    while os.read(guard, 1):                # a pipe whose other end the guard alone holds
        pass
    quiet = 0
    while quiet < 2:
        found = marked(token)
        for pid in found:
            kill_group(pid)
        quiet = 0 if found else quiet + 1
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    outlive(*map(int, sys.argv[1:]))
