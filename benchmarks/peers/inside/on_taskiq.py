from counting import REDIS, body
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(url=REDIS)


@broker.task(task_name="noop")
async def noop(job: dict) -> None:
    body(job)


async def opened():
    await broker.startup()


async def one(job):
    await noop.kiq(job)


async def closed():
    await broker.shutdown()
