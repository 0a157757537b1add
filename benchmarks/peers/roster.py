"""The rivals, each with the settings that were found to be its fastest, and what has to be installed for it."""

from __future__ import annotations

from dataclasses import dataclass

POSTGRES = "postgres"
REDIS = "redis"


@dataclass(frozen=True)
class Rival:
    """`workers`: one command for each process to start; `{bin}` is its environment's folder of commands, `{python}` its
    Python. `count`: so many jobs that a figure takes some seconds."""

    name: str
    module: str
    packages: tuple[str, ...]
    workers: tuple[str, ...]
    count: int
    broker: str = REDIS
    bulk: str = "bulk"
    settings: str = ""
    environ: tuple[tuple[str, str], ...] = ()

    @property
    def is_node(self) -> bool:
        return self.module.endswith(".mjs")


CELERY = "{bin}/celery -A on_celery worker -l ERROR --without-gossip --without-mingle --without-heartbeat -P solo"

RIVALS = (
    Rival("BullMQ", "on_bullmq.mjs", ("bullmq@6.7.0", "ioredis@6.0.0"), ("node on_bullmq.mjs worker",) * 2, 20_000,
          settings="2 processes, concurrency 100, removeOnComplete, addBulk of 1,000"),
    Rival("Dramatiq", "on_dramatiq", ("dramatiq[redis]==2.2.1", "hiredis"), ("{bin}/dramatiq -p 2 -t 8 on_dramatiq",),
          8_000, bulk="one", settings="2 processes, 8 threads each, prefetch 256",
          environ=(("dramatiq_queue_prefetch", "256"),)),
    Rival("Huey", "on_huey", ("huey==3.5.4", "redis", "hiredis"),
          ("{bin}/huey_consumer on_huey.huey -w 2 -k process -q -n",), 12_000, bulk="one",
          settings="2 processes, no results"),
    Rival("taskiq", "on_taskiq", ("taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop", "hiredis"),
          ("{bin}/taskiq worker on_taskiq:broker --workers 2 --log-level ERROR --no-parse --max-prefetch 100",), 8_000,
          settings="list broker, 2 processes, prefetch 100, no parsing, no results"),
    Rival("SAQ", "on_saq", ("saq[redis]==0.26.4", "typing_extensions", "uvloop", "hiredis"),
          ("{bin}/saq on_saq.settings --workers 2 --quiet",), 5_000, settings="2 processes, concurrency 100, ttl -1"),
    Rival("arq", "on_arq", ("arq==0.28.0", "uvloop", "hiredis"), ("{python} on_arq.py",) * 2, 3_000,
          settings="2 processes, max_jobs 100, poll_delay 0.01, keep_result 0"),
    Rival("Celery", "on_celery", ("celery[redis]==5.7.0", "hiredis"), (f"{CELERY} -n a@h", f"{CELERY} -n b@h"), 4_000,
          bulk="one", settings="2 solo workers, prefetch 64, no results, no events"),
    Rival("RQ", "on_rq", ("rq==3.0.0", "hiredis"), ("{python} on_rq.py",) * 2, 2_000,
          settings="2 SimpleWorkers, result_ttl 0, enqueue_many of 1,000"),
    Rival("Procrastinate", "on_procrastinate", ("procrastinate==3.10.0", "psycopg[binary,pool]", "uvloop"),
          ("{python} on_procrastinate.py",) * 2, 2_000, broker=POSTGRES,
          settings="2 processes, concurrency 10, delete_jobs always, batches of 1,000"),
)
