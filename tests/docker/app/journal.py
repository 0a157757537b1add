"""The task of the container tests: it writes down that it runs, where, and that it ends."""

import os
import platform
import time

import rota

FILE = "/journal/runs"


@rota.task
def work(number: int, seconds: float) -> int:
    write("start", number)
    time.sleep(seconds)
    write("end", number)
    return number


def write(what: str, number: int) -> None:
    """One line in one write: all containers append to the same file."""
    job = rota.current_job()
    line = f"{what} {number} {platform.node()} {job.fencing_token} {time.time():.3f}\n"
    descriptor = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
