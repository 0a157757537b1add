"""Tasks for the tests of the worker room: good ones, and those that do harm to their runner."""

import asyncio
import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import rota
from rota.worker.runner.context import current_job


@rota.task(max_attempts=1)
def double(x):
    return 2 * x


@rota.task(max_attempts=1)
async def adouble(x):
    await asyncio.sleep(0)
    return 2 * x


def mark(path, word):
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{word}\n".encode())
    os.close(file)


@rota.task(max_attempts=1)
def note(path, word):
    mark(path, word)


@rota.task(max_attempts=1)
async def anote(path, word):
    mark(path, word)
    await asyncio.sleep(0.001)


@rota.task(max_attempts=1)
def pid():
    return os.getpid()


@rota.task(max_attempts=1)
async def apid():
    return os.getpid()


@rota.task(max_attempts=1)
def sleep(seconds):
    time.sleep(seconds)


@rota.task(max_attempts=1)
async def asleep(seconds):
    await asyncio.sleep(seconds)


@rota.task(max_attempts=1)
async def block_the_loop(seconds):
    time.sleep(seconds)  # noqa: ASYNC251 - that is the harm it does


@rota.task(max_attempts=2, backoff_base=5.0)
def fail(text):
    raise ValueError(text)


@rota.task(max_attempts=2, backoff_base=5.0)
async def afail(text):
    raise ValueError(text)


@rota.task(timeout=0.2, max_attempts=1)
def too_slow():
    time.sleep(600)


@rota.task(timeout=0.2, max_attempts=2)
async def atoo_slow():
    await asyncio.sleep(600)


@rota.task(timeout=0.2, max_attempts=1)
async def stubborn():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


@rota.task(max_attempts=1)
def leave():
    os._exit(7)


@rota.task(max_attempts=1)
def crash():
    ctypes.string_at(0)


@rota.task(max_attempts=1)
async def acrash():
    os.kill(os.getpid(), signal.SIGSEGV)


@rota.task(max_attempts=1)
def close_files():
    os.closerange(3, 1000)


def garbage():
    for file in Path("/proc/self/fd").iterdir():
        if int(file.name) > 2:
            with contextlib.suppress(OSError):
                os.set_blocking(int(file.name), False)
                os.write(int(file.name), b"garbage! " * 8)


@rota.task(max_attempts=1)
def write_garbage():
    garbage()
    time.sleep(600)     # still running when its runner is ended: a job begun after it would share the blame


@rota.task(max_attempts=1)
async def awrite_garbage():
    garbage()
    await asyncio.sleep(600)


@rota.task(max_attempts=1)
def exit_politely():
    sys.exit("politely")


@rota.task(max_attempts=1)
def fork_and_return():
    return "child" if os.fork() == 0 else "parent"


@rota.task(max_attempts=1)
def unpicklable():
    return threading.Lock()


@rota.task(max_attempts=1)
async def aunpicklable():
    return threading.Lock()


class Awkward(Exception):
    def __init__(self, one, two):
        super().__init__(one)

    def __str__(self):
        raise RuntimeError("no text")


@rota.task(max_attempts=1)
def raise_awkward():
    raise Awkward(1, 2)


@rota.task(max_attempts=1)
def large(size):
    return b"x" * size


@rota.task(max_attempts=1)
def a_lambda():
    return lambda: 42


@rota.task(max_attempts=1)
def context():
    job = current_job()
    return [job.id, job.task, job.queue, job.attempt, job.fencing_token, job.enqueued_at]


@rota.task(max_attempts=1)
async def acontext():
    await asyncio.sleep(0)
    return context.function()


@rota.task(max_attempts=1)
def log(text):
    logging.getLogger("app").info("it says %s", text)
    print("and prints")


@rota.task(max_attempts=1)
def environment():
    return dict(os.environ)


@rota.task(max_attempts=1)
def mess_up(folder):
    os.chdir(folder)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@rota.task(max_attempts=1)
def surroundings():
    umask = os.umask(0)
    os.umask(umask)
    return [str(Path.cwd()), umask, str(signal.getsignal(signal.SIGTERM))]


@rota.task(max_attempts=1)
def daemonise(then):
    """A child that has left the session and the process group of the runner."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    if then == "exit":
        os._exit(1)
    return child.pid


@rota.task(max_attempts=1)
def helper():
    """A child in the runner's own group."""
    return subprocess.Popen(["sleep", "600"]).pid


@rota.task(max_attempts=1)
def enqueue(count):
    return [double.enqueue(number).id for number in range(count)]


@rota.task(max_attempts=1)
def enqueue_from_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(double.enqueue(1).id))
    thread.start()
    thread.join()
    return found


@rota.task(max_attempts=1)
async def aenqueue(count):
    handles = await asyncio.gather(*(double.aenqueue(number) for number in range(count)))
    return [handle.id for handle in handles]


@rota.task(max_attempts=1)
async def enqueue_blocking_the_loop():
    return double.enqueue(1).id


@rota.task(max_attempts=1)
def enqueue_nowhere():
    double.using(queue="nowhere").enqueue(1)


@rota.task(max_attempts=1)
def enqueue_lambda():
    square = rota.task(lambda x: x * x)
    return square.enqueue(3).id


@rota.task(max_attempts=1)
def stop_when_asked():
    while not rota.current_job().cancel_requested:
        time.sleep(0.01)
    return "stopped"


@rota.task(max_attempts=1)
def stop_with_the_rest():
    while True:
        time.sleep(0.01)
        rota.check_cancelled()


@rota.task(max_attempts=1)
def fail_when_asked():
    while not rota.current_job().cancel_requested:
        time.sleep(0.01)
    raise ValueError("not like this")


@rota.task(max_attempts=1)
def enqueue_then_stop():
    double.enqueue(1)
    stop_with_the_rest.function()


@rota.task(max_attempts=1, cancel_grace=0.1)
def deaf(seconds):
    time.sleep(seconds)


def end_children():
    """A program that is told to stop, one that is interrupted, and a process forked by multiprocessing."""
    ended = []
    for number in (signal.SIGTERM, signal.SIGINT):
        program = subprocess.Popen(["sleep", "600"])
        program.send_signal(number)
        ended.append(program.wait())
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    process.start()
    process.terminate()
    process.join()
    return [*ended, process.exitcode]


@rota.task(max_attempts=1)
def terminate_children():
    return end_children()


@rota.task(max_attempts=1)
async def aterminate_children():
    return end_children()
