"""What the tests of the outbox run."""

from __future__ import annotations

import rota

ran: list[str] = []


@rota.task
def note(text: str) -> str:
    ran.append(text)
    return text


@rota.task(max_attempts=3)
def shaky(text: str) -> int:
    attempt = rota.current_job().attempt
    if attempt < 2:
        raise ValueError(text)
    return attempt


@rota.task
def tenant() -> str:
    return rota.current_job().headers["tenant"]


@rota.task
def joined(*texts: str) -> str:
    return "+".join(texts)
