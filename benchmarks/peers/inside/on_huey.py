from counting import REDIS, body
from huey import RedisHuey

huey = RedisHuey("peers", url=REDIS, results=False)


@huey.task()
def noop(job):
    body(job)


def one(job):
    noop(job)
