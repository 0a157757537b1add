import dramatiq
from counting import REDIS, body
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=REDIS))


@dramatiq.actor
def noop(job):
    body(job)


def one(job):
    noop.send(job)
