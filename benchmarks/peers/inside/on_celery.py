from celery import Celery
from counting import REDIS, body

app = Celery("on_celery", broker=REDIS)
app.conf.update(
    task_ignore_result=True, result_backend=None, worker_prefetch_multiplier=64, task_serializer="json",
    accept_content=["json"], worker_send_task_events=False, task_send_sent_event=False, worker_hijack_root_logger=False,
    task_track_started=False, broker_connection_retry_on_startup=True, worker_disable_rate_limits=True,
)
_producer = None


@app.task(name="noop")
def noop(job):
    body(job)


def one(job):
    global _producer
    if _producer is None:
        _producer = app.producer_pool.acquire(block=True)     # one connection for all calls: its fast path
    noop.apply_async((job,), producer=_producer)
