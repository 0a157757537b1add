from counting import REDIS, body
from saq import Queue

queue = Queue.from_url(REDIS)


async def noop(context, *, job):
    body(job)


async def opened():
    await queue.connect()


async def one(job):
    await queue.enqueue("noop", job=job, ttl=-1)


async def closed():
    await queue.disconnect()


settings = {"queue": queue, "functions": [noop], "concurrency": 100}
