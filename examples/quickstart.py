"""Tasks, and a program that enqueues them.

    rota dev                        # a node
    python quickstart.py            # in another terminal

Run like this, as a script, the functions are shipped by value: the node has never seen this file. In an application,
tasks lie in a module that the nodes import too (`rota dev --app quickstart`), and only their names travel.
"""

import asyncio
import time

import rota


@rota.task
def word_count(text: str) -> int:
    """A plain function: a runner process does one of these at a time."""
    return len(text.split())


@rota.task(queue="slow")
async def wait(seconds: float) -> float:
    """A coroutine: a hundred of these at a time on one event loop."""
    before = time.monotonic()
    await asyncio.sleep(seconds)
    return time.monotonic() - before


@rota.task
def divide(a: float, b: float) -> float:
    return a / b


def main() -> None:
    job = word_count.enqueue("every job ends somewhere")
    print(f"{job.id}: {job.result(timeout=30)} words")

    waiting = wait.enqueue_many([wait.call(0.5) for _ in range(50)])
    print(f"{len(waiting)} jobs waited for {sum(job.result(timeout=30) for job in waiting):.1f} s in total")

    failing = divide.enqueue(1, 0)
    try:
        failing.result(timeout=30)
    except rota.JobFailed as error:
        print(f"failed, as it should: {error.error}")


if __name__ == "__main__":
    main()
