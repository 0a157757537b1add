"""Jobs that leave something behind for the next one."""

import contextvars
import decimal
import faulthandler
import gc
import io
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import rota

variable = contextvars.ContextVar("variable", default="clean")


class Late(Exception):
    pass


def ring(*_):
    raise Late("the alarm of another job")


@rota.task(max_attempts=1)
def leave(what):
    if what == "alarm":
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
    elif what == "deadly alarm":
        signal.setitimer(signal.ITIMER_REAL, 0.1)
    elif what == "profile":
        signal.signal(signal.SIGPROF, ring)
        signal.setitimer(signal.ITIMER_PROF, 0.001)
    elif what == "deadly profile":
        signal.setitimer(signal.ITIMER_PROF, 0.05)
    elif what == "streams":
        sys.stdout.close()
        sys.stderr.close()
    elif what == "other streams":
        sys.stdout = sys.stderr = io.StringIO()
    elif what == "files":
        os.close(1)
        os.close(2)
    elif what == "exchanged files":
        os.close(1)
        os.close(2)
        globals()["kept"] = [os.open("/dev/null", os.O_WRONLY) for _ in range(2)]
    elif what == "the rest":
        variable.set("dirty")
        decimal.getcontext().prec = 3
        socket.setdefaulttimeout(0.01)
        gc.disable()
        os.chdir("/")
        os.umask(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, ring)
    return os.getpid()


@rota.task(max_attempts=1)
async def aleave(what):
    return leave.function(what)


@rota.task(max_attempts=1)
def look():
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        pass
    print("hello from the next")
    print("and again", file=sys.stderr)
    umask = os.umask(0)
    os.umask(umask)
    return [
        variable.get(), decimal.getcontext().prec, socket.getdefaulttimeout(), gc.isenabled(), str(Path.cwd()), umask,
        str(signal.getsignal(signal.SIGTERM)), str(signal.getsignal(signal.SIGUSR1)), os.getpid(),
    ]


@rota.task(max_attempts=1)
async def alook():
    return look.function()


@rota.task(max_attempts=1)
def say_and_die(how):
    print("the last thing I did", flush=True)
    if how == "abort":
        os.abort()
    if how == "exit":
        os._exit(7)
    if how == "silent":
        os.close(2)
        os.close(1)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "thread":
        thread = threading.Thread(target=os._exit, args=[9])
        thread.start()
        thread.join()
    faulthandler._sigsegv()


@rota.task(max_attempts=1)
def print_much(count):
    for number in range(count):
        print(f"line {number} " + "x" * 90)
