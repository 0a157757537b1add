"""What the tests of encryption run."""

from __future__ import annotations

import rota


@rota.task
def shout(text: str) -> str:
    return text.upper()


@rota.task
async def join(*texts: str) -> str:
    return "+".join(texts)


@rota.task(max_attempts=1)
def fail(text: str) -> None:
    raise ValueError("no secret is said")


@rota.task(max_attempts=2, backoff_base=0.01)
def second(text: str) -> int:
    attempt = rota.current_job().attempt
    if attempt == 1:
        raise ValueError("once more")
    return attempt


@rota.task
def stepped(text: str) -> str:
    return rota.step("kept", str.upper, text)
