"""The public types, pinned: read by mypy, never run. Each `type: ignore` must be needed, or mypy complains."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, assert_type

import rota


@rota.task
def add(a: int, b: int = 0) -> int:
    return a + b


@rota.task(queue="images", max_attempts=3)
async def shout(text: str, *, marks: int = 1) -> str:
    return text + "!" * marks


@rota.task
async def bare(text: str) -> bytes:
    return text.encode()


def opened() -> Iterator[int]:
    yield 1


async def aopened() -> AsyncIterator[bytes]:
    yield b""


@rota.task
def injected(
    a: int, *, one: int = rota.Depends(opened), two: bytes = rota.Depends(aopened, scope="job"),
    three: str = rota.Depends(lambda: ""),
) -> str:
    return "x"


@rota.before_enqueue(order=1)
def before(job: rota.Outgoing) -> None:
    assert_type(job.headers, dict[str, str])


@rota.around_job
def around(job: rota.JobContext) -> Iterator[None]:
    assert_type(job.headers, Mapping[str, str])
    yield


@rota.task(batch=10, batch_wait=0.5)
def batched(pages: list[str]) -> list[int | Exception]:
    return [len(page) for page in pages]


@rota.task(batch=10)
async def abatched(pages: list[str]) -> list[int]:
    return [len(page) for page in pages]


assert_type(batched.enqueue("a").result(), int)
assert_type(abatched.enqueue("a").result(), int)
batched.enqueue(1)      # type: ignore[arg-type]


async def remembers(handle: rota.JobHandle[bytes]) -> None:
    async def shorter(text: str) -> str:
        return text[1:]

    assert_type(rota.step("len", len, "abc"), int)
    assert_type(await rota.step("shorter", shorter, "abc"), str)
    assert_type(rota.step("enqueue", batched.enqueue, "a").result(), int)
    await rota.sleep(1.5)
    rota.sleep(hours=1)
    assert_type(await handle, bytes)
    rota.step("len", len, 5)        # type: ignore[call-overload]


assert_type(injected.using(headers={"a": "b"}).enqueue(1).result(), str)
injected.using(headers={"a": 1})    # type: ignore[dict-item]
assert_type(add(1), int)
assert_type(add.enqueue(1, b=2), rota.JobHandle[int])
assert_type(add.enqueue(1).result(), int)
assert_type(add.using(queue="q").enqueue(1).result(timeout=1), int)
assert_type(shout.enqueue("hi", marks=2).result(), str)
assert_type(bare.enqueue("hi").result(), bytes)
assert_type(add.enqueue_many([(1,), add.call(1, b=2)])[0].result(), int)
assert_type(add.enqueue_many([(1,)])[1:], list[rota.JobHandle[int]])

add.enqueue("1")                    # type: ignore[arg-type]
add.enqueue()                       # type: ignore[call-arg]
add.enqueue(1, c=2)                 # type: ignore[call-arg]
add.using(queue="q").enqueue("1")   # type: ignore[arg-type]
add.using(queu="q")                 # type: ignore[call-arg]
add.call("1")                       # type: ignore[arg-type]
shout.enqueue("hi", 2)              # type: ignore[call-arg]
shout.enqueue(1)                    # type: ignore[arg-type]
rota.task(queue=1)                  # type: ignore[call-overload]


async def coroutines() -> None:
    assert_type(await shout("hi"), str)
    assert_type(await add.aenqueue(1), rota.JobHandle[int])
    assert_type(await (await add.aenqueue(1)), int)
    assert_type(await (await shout.aenqueue("hi")).aresult(timeout=1), str)
    await add.aenqueue("1")         # type: ignore[arg-type]
    async with rota.AsyncClient("http://127.0.0.1:4100", token="t", key="key.file") as client:
        assert_type(await client.enqueue(add, 1, b=2), rota.JobHandle[int])
        assert_type(await client.enqueue(shout, "hi"), rota.JobHandle[str])
        assert_type(await client.enqueue(lambda x: [x], 1), rota.JobHandle[list[int]])
        assert_type(await client.enqueue("m:f", 1, x=2), rota.JobHandle[Any])
        assert_type(await client.enqueue_many(add, [(1,), add.call(1)]), rota.JobHandles[int])
        await client.enqueue(add, "1")              # type: ignore[call-overload]
        await client.enqueue(shout, "hi", marks="") # type: ignore[arg-type]
        await client.enqueue(len, 1)                # type: ignore[call-overload]
        await client.enqueue(7)                     # type: ignore[call-overload]


def plain() -> None:
    with rota.Client(["http://a:1", "http://b:1"]) as client:
        assert_type(client.enqueue(add, 1).result(), int)
        assert_type(client.enqueue(shout, "hi").result(), str)
        assert_type(client.handle("k3f9q2m7xa5t_0000001f_0").result(), Any)
        client.enqueue(add, b=1)                    # type: ignore[call-overload]
    assert_type(rota.connect(), rota.Client)
    job = rota.current_job()
    if job is not None:
        assert_type(job.id, str)


def errors(error: rota.JobFailed | rota.JobTooLarge | rota.EnqueueUnknown | rota.PartlyEnqueued) -> None:
    match error:
        case rota.JobFailed():
            assert_type((error.job_id, error.error, error.traceback, error.attempts), tuple[str, str, str, int])
        case rota.JobTooLarge():
            assert_type(error.size_bytes, int)
        case rota.EnqueueUnknown():
            assert_type(error.bundle, str)
        case rota.PartlyEnqueued():
            assert_type(error.job_ids, list[str])
