"""The producer: `produce.py MODULE one|bulk|paced COUNT` enqueues and prints one line of JSON.

`one`: a call after the other; `bulk`: the rival's bulk call, or, where it has none, 500 calls in flight; `paced`: 20 ms
apart, for the latency. Standard library only, but for uvloop where the rival's environment has it.
"""

import asyncio
import contextlib
import importlib
import json
import os
import sys
import time

from counting import payload

PACE_S = 0.02
IN_FLIGHT = 500


async def enqueue_async(rival, how, count):
    if how == "bulk" and hasattr(rival, "bulk"):
        await rival.bulk([payload(number) for number in range(count)])
    elif how == "bulk":
        for at in range(0, count, IN_FLIGHT):
            await asyncio.gather(*(rival.one(payload(number)) for number in range(at, min(at + IN_FLIGHT, count))))
    else:
        for number in range(count):
            began = time.time_ns()
            await rival.one(payload(number, began if how == "paced" else 0))
            if how == "paced":
                await asyncio.sleep(max(0.0, PACE_S - (time.time_ns() - began) / 1e9))


def enqueue(rival, how, count):
    if how == "bulk" and hasattr(rival, "bulk"):
        rival.bulk([payload(number) for number in range(count)])
        return
    for number in range(count):
        began = time.time_ns()
        rival.one(payload(number, began if how == "paced" else 0))
        if how == "paced":
            time.sleep(max(0.0, PACE_S - (time.time_ns() - began) / 1e9))


@contextlib.contextmanager
def reported():
    cpu, began = sum(os.times()[:2]), time.time_ns()
    yield
    print(json.dumps({"began": began, "seconds": (time.time_ns() - began) / 1e9, "cpu": sum(os.times()[:2]) - cpu}))


async def asynchronous(rival, how, count):
    await rival.opened()
    with reported():
        await enqueue_async(rival, how, count)
    await rival.closed()


def main():
    module, how, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rival = importlib.import_module(module)
    if asyncio.iscoroutinefunction(rival.one):
        try:
            import uvloop
        except ImportError:
            asyncio.run(asynchronous(rival, how, count))
        else:
            uvloop.run(asynchronous(rival, how, count))
        return
    with reported():
        enqueue(rival, how, count)


if __name__ == "__main__":
    main()
