import sys

from counting import REDIS, body
from redis import Redis
from rq import Queue, SimpleWorker

connection = Redis.from_url(REDIS)
queue = Queue("default", connection=connection)


def noop(job):
    body(job)


def one(job):
    queue.enqueue(noop, job, result_ttl=0, failure_ttl=0)


def bulk(jobs):
    for at in range(0, len(jobs), 1000):
        queue.enqueue_many([Queue.prepare_data(noop, (job,), result_ttl=0) for job in jobs[at : at + 1000]])


if __name__ == "__main__":
    sys.modules["on_rq"] = sys.modules["__main__"]
    SimpleWorker([queue], connection=connection, log_job_description=False).work(logging_level="ERROR")
