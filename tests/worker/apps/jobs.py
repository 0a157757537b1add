"""Tasks for the tests of the worker room: good ones, and those that do harm to their runner."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import rota
from rota.worker.context import current_job


@rota.task
def double(x):
    return 2 * x


@rota.task
async def adouble(x):
    await asyncio.sleep(0)
    return 2 * x


def mark(path, word):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{word}\n".encode())
    os.close(file)


@rota.task
def note(path, word):
    mark(path, word)


@rota.task
async def anote(path, word):
    mark(path, word)
    await asyncio.sleep(0.001)


@rota.task
def pid():
    return os.getpid()


@rota.task
async def apid():
    return os.getpid()


@rota.task
def sleep(seconds):
    time.sleep(seconds)


@rota.task
async def asleep(seconds):
    await asyncio.sleep(seconds)


@rota.task
async def block_the_loop(seconds):
    time.sleep(seconds)  # noqa: ASYNC251 - that is the harm it does


@rota.task(max_attempts=2, backoff_base=5.0)
def fail(text):
    raise ValueError(text)


@rota.task(max_attempts=2, backoff_base=5.0)
async def afail(text):
    raise ValueError(text)


@rota.task(timeout=0.2)
def too_slow():
    time.sleep(600)


@rota.task(timeout=0.2, max_attempts=2)
async def atoo_slow():
    await asyncio.sleep(600)


@rota.task(timeout=0.2)
async def stubborn():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


@rota.task
def leave():
    os._exit(7)


@rota.task
def crash():
    ctypes.string_at(0)


@rota.task
async def acrash():
    os.kill(os.getpid(), signal.SIGSEGV)


@rota.task
def close_files():
    os.closerange(3, 1000)


def garbage():
    for file in Path("/proc/self/fd").iterdir():
        if int(file.name) > 2:
            with contextlib.suppress(OSError):
                os.set_blocking(int(file.name), False)
                os.write(int(file.name), b"garbage! " * 8)


@rota.task
def write_garbage():
    garbage()


@rota.task
async def awrite_garbage():
    garbage()
    await asyncio.sleep(600)


@rota.task
def exit_politely():
    sys.exit("politely")


@rota.task
def fork_and_return():
    return "child" if os.fork() == 0 else "parent"


@rota.task
def unpicklable():
    return threading.Lock()


@rota.task
async def aunpicklable():
    return threading.Lock()


class Awkward(Exception):
    def __init__(self, one, two):
        super().__init__(one)

    def __str__(self):
        raise RuntimeError("no text")


@rota.task
def raise_awkward():
    raise Awkward(1, 2)


@rota.task
def large(size):
    return b"x" * size


@rota.task
def a_lambda():
    return lambda: 42


@rota.task
def context():
    job = current_job()
    return [job.id, job.task, job.queue, job.attempt, job.fencing_token, job.enqueued_at]


@rota.task
async def acontext():
    await asyncio.sleep(0)
    return context.function()


@rota.task
def log(text):
    logging.getLogger("app").info("it says %s", text)
    print("and prints")


@rota.task
def environment():
    return dict(os.environ)


@rota.task
def mess_up(folder):
    os.chdir(folder)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@rota.task
def surroundings():
    umask = os.umask(0)
    os.umask(umask)
    return [str(Path.cwd()), umask, str(signal.getsignal(signal.SIGTERM))]


@rota.task
def daemonise(then):
    """A child that has left the session and the process group of the runner."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    if then == "exit":
        os._exit(1)
    return child.pid


@rota.task
def helper():
    """A child in the runner's own group."""
    return subprocess.Popen(["sleep", "600"]).pid


@rota.task
def eat(size):
    return len(bytearray(size))


@rota.task
def enqueue(count):
    return [double.enqueue(number).id for number in range(count)]


@rota.task
def enqueue_from_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(double.enqueue(1).id))
    thread.start()
    thread.join()
    return found


@rota.task
async def aenqueue(count):
    handles = await asyncio.gather(*(double.aenqueue(number) for number in range(count)))
    return [handle.id for handle in handles]


@rota.task
async def enqueue_blocking_the_loop():
    return double.enqueue(1).id


@rota.task
def enqueue_nowhere():
    double.using(queue="nowhere").enqueue(1)


@rota.task
def enqueue_lambda():
    square = rota.task(lambda x: x * x)
    return square.enqueue(3).id
