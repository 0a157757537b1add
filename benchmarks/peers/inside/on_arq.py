from arq import create_pool, run_worker
from arq.connections import RedisSettings
from counting import REDIS_PORT, body

SETTINGS = RedisSettings(host="127.0.0.1", port=REDIS_PORT)
pool = None


async def noop(context, job):
    body(job)


class WorkerSettings:
    functions = [noop]      # noqa: RUF012 -- as arq wants it
    redis_settings = SETTINGS
    max_jobs = 100
    poll_delay = 0.01
    keep_result = 0


async def opened():
    global pool
    pool = await create_pool(SETTINGS)


async def one(job):
    await pool.enqueue_job("noop", job)


async def closed():
    await pool.aclose()


if __name__ == "__main__":
    import asyncio

    import uvloop

    asyncio.set_event_loop(uvloop.new_event_loop())
    run_worker(WorkerSettings)
