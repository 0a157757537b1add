import procrastinate
from counting import POSTGRES, body

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=POSTGRES, min_size=1, max_size=10),
    import_paths=["on_procrastinate"],
)


@app.task(name="noop")
async def noop(job):
    body(job)


async def opened():
    await app.open_async()


async def one(job):
    await noop.defer_async(job=job)


async def bulk(jobs):
    for at in range(0, len(jobs), 1000):
        await noop.batch_defer_async(*({"job": job} for job in jobs[at : at + 1000]))


async def closed():
    await app.close_async()


async def work():
    import on_procrastinate

    async with on_procrastinate.app.open_async():
        await on_procrastinate.app.run_worker_async(concurrency=10, delete_jobs="always", install_signal_handlers=True)


if __name__ == "__main__":
    import asyncio

    asyncio.run(work())
