"""What a job leaves behind does not hurt the next one; and what a runner says last is kept."""

from __future__ import annotations

import os

import pytest

from rota.worker.pool.output import Output

from ..rig import Rig


@pytest.mark.parametrize("kind", ["", "a"])
async def test_the_next_job_is_not_hurt(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with Rig.open(sync=not kind, async_=bool(kind), app="leaving") as rig:
        before = await rig.value(f"{kind}look", app="leaving")
        things = [
            "alarm", "deadly alarm", "profile", "deadly profile", "streams", "other streams", "files",
            "exchanged files", "the rest",
        ]
        for what in things:
            await rig.run(f"{kind}leave", what, app="leaving")
            assert await rig.value(f"{kind}look", app="leaving") == before, what
    out = capfd.readouterr().err
    assert out.count("hello from the next") == out.count("and again") == len(things) + 1


@pytest.mark.parametrize(("how", "words"), [
    ("abort", "(signal 6, SIGABRT); its last words: Fatal Python error: Aborted"),
    ("segfault", "(signal 11, SIGSEGV); its last words: Fatal Python error: Segmentation fault"),
    ("exit", "(exit status 7); its last words: the last thing I did"),
    ("thread", "(exit status 9); its last words: the last thing I did"),
    ("silent", "(signal 9, SIGKILL); its last words: the last thing I did"),
])
async def test_why_a_runner_died_is_told(how: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Rig.open(app="leaving") as rig:
        outcome = await rig.run("say_and_die", how, app="leaving")
        assert outcome.error.startswith(f"runner died {words}") and words in caplog.text


async def test_what_runners_print_comes_whole(capfd: pytest.CaptureFixture[str]) -> None:
    async with Rig.open(app="leaving") as rig:
        await rig.value("print_much", 5_000, app="leaving")
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("line ")]
    assert [int(line.split()[1]) for line in lines] == list(range(5_000))


@pytest.mark.parametrize(("written", "words"), [
    (b"", ""),
    (b"one\ntwo\nthree\nfour\n", "two three four"),
    (b"noise\nFatal Python error: Aborted\n\nCurrent\nmore\n", "Fatal Python error: Aborted Current more"),
    (b"a  line\nand another\n", "a line and another"),
    (b"y" * 9_000, "…" + "y" * 500),
])
async def test_last_words(written: bytes, words: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    reading, writing = os.pipe()
    output = Output(reading)
    os.write(writing, written)
    os.close(writing)
    output.close()
    assert output.last_words() == words
    assert capfdbinary.readouterr().err == written
    output.forget()
    assert output.last_words() == ""
