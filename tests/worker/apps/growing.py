"""A task that leaks."""

import os
import time

import rota

kept = []


@rota.task(max_attempts=1)
def keep(size, seconds):
    kept.append(bytearray(size))
    time.sleep(seconds)
    return os.getpid()
