"""The body of the no-op job, the same for all: counts in a file per process, mapped into memory. In the latency case it
notes how long ago the job was enqueued.

Standard library only: it runs in the environment of each rival.
"""

import mmap
import os
import struct
import threading
import time

FOLDER = os.environ.get("PEERS_FOLDER", "")
REDIS_PORT = int(os.environ.get("PEERS_REDIS_PORT", "0"))
REDIS = f"redis://127.0.0.1:{REDIS_PORT}/0"
POSTGRES = os.environ.get("PEERS_POSTGRES", "")

COUNTS = struct.Struct("=QQQ")      # how many, when the first one began, when the last one ended (ns)
LATENCY = struct.Struct("=Q")

_lock = threading.Lock()
_pid = 0
_map = None
_latencies = -1


def _open():
    global _pid, _map, _latencies
    descriptor = os.open(f"{FOLDER}/count.{os.getpid()}", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, COUNTS.size)
    _map = mmap.mmap(descriptor, COUNTS.size)
    _latencies = os.open(f"{FOLDER}/latencies", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _pid = os.getpid()


def body(job):
    now = time.time_ns()
    with _lock:
        if _pid != os.getpid():         # a process of its own, or a fork
            _open()
        if job.get("sent"):
            os.write(_latencies, LATENCY.pack(now - job["sent"]))
        count, first, _ = COUNTS.unpack_from(_map, 0)
        COUNTS.pack_into(_map, 0, count + 1, first or now, time.time_ns())


def payload(number, sent=0):
    """Some 200 bytes."""
    job = {"id": number, "data": "x" * 180}
    if sent:
        job["sent"] = sent
    return job
