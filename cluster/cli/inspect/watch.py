"""`rota top`, `rota tail`, `rota dashboard`: a cluster as it is, and what happens to it, as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from rota.client.errors import Unauthorized, Unreachable

from ...terminal import complain, console, say, say_json
from ..ask import Json, TokenFile, Url, client

if TYPE_CHECKING:       # else late: `rota --help` need not load what these need
    from rota.client.settings.config import ClientConfig

    from ...telemetry.overview import Overview
    from ...telemetry.records import Happened

AGAIN_S = 1.0
SILENCE_S = 40.0
"""A node says something every fifteen seconds."""


def top(
    every: Annotated[float, typer.Option(min=0.2, max=60.0, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one picture, and end.")] = False,
    url: Url = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Watch the cluster: master, nodes, rates, queues, and what happened. Ctrl-C ends it.

    Where the output is no terminal, one picture is printed.
    """
    from ...telemetry.overview import Overview
    from .picture import picture

    with client(url, token_file) as asked:
        def look() -> Overview:
            return asked._page("/v1/overview", Overview)

        seen = look()
        if seen.missing:                # others say their part in a moment
            time.sleep(0.5)
            seen = look()
        if json:
            say_json(seen)
            return
        out = console()
        if once or not out.is_terminal:
            out.print(picture(seen, seen.at))
            return
        from rich.live import Live

        with Live(console=out, screen=True, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
            while True:
                live.update(picture(seen, seen.at), refresh=True)
                time.sleep(every)
                with contextlib.suppress(Unreachable):
                    seen = look()


def tail(
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also each job that ends, on the nodes that --url names.")
    ] = False,
    url: Url = None,
    token_file: TokenFile = None,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each event, for programs.")] = False,
) -> None:
    """Follow what happens to the cluster, as it happens: a line for each event. Ctrl-C ends it.

    Events of the cluster come from all nodes, whichever is asked; jobs only
    from the nodes that are named. A line of JSON has the event's stable name.

    [bold]Example[/]

      rota tail --jobs --json | jq 'select(.event == "job_ended") | .fields.outcome'
    """
    from rota.client.settings.config import client_config, load_token

    config = client_config(url, token=load_token(token_file) if token_file else None)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_tail(config, jobs=jobs, json=json))


async def _tail(config: ClientConfig, *, jobs: bool, json: bool) -> None:
    """All nodes that are named; each event once, though several tell it."""
    seen: dict[tuple[float, str, str], None] = {}

    async def follow(address: str) -> None:
        async for happened in _events(config, address, jobs=jobs, insist=len(config.urls) == 1):
            key = happened.at, happened.node, f"{happened.event}{happened.fields}"
            if key not in seen:
                seen[key] = None
                if len(seen) > 2_000:
                    del seen[next(iter(seen))]
                _show(happened, json=json)

    addresses = config.urls if jobs else config.urls[:1]
    await asyncio.gather(*(follow(address) for address in addresses))


def _show(happened: Happened, *, json: bool) -> None:
    from rota.client.ids import job_id

    from ...telemetry.words import event_words, seconds
    from .picture import event_line

    if json:
        say(msgspec.json.encode(happened).decode())
        return
    fields = happened.fields
    if happened.event == "job_ended":
        job = job_id(str(fields.get("bundle")), fields.get("index", 0))
        error = f": {fields['error']}" if fields.get("error") else ""
        took = seconds(fields.get("ran_s"))
        words = f"{fields.get('task')} {job} {fields.get('outcome')} in {took}{error}"
    else:
        words = event_words(happened.event, fields)
    console().print(event_line(happened.at, happened.node, happened.event, words))


async def _events(config: ClientConfig, address: str, *, jobs: bool, insist: bool) -> AsyncIterator[Happened]:
    """Of one node, for ever: where it breaks off, again. `insist`: the first time it must work."""
    import aiohttp

    complaint = ""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=3.0, sock_read=SILENCE_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            try:
                path = f"{address}/v1/events" + ("?jobs=1" if jobs else "")
                async with session.get(path, headers=_headers(config, address), ssl=config.tls() or True) as answer:
                    if answer.status == 401:
                        raise Unauthorized(f"{address} wants the cluster's token: --token-file, or ROTA_TOKEN_FILE")
                    if answer.status != 200:
                        raise Unreachable(f"{address} answers {answer.status} {answer.reason}")
                    insist, complaint = False, ""
                    async for happened in _read(answer):
                        yield happened
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                fault = f"{address}: {error or type(error).__name__}"
                if insist:
                    raise Unreachable(f"no node can be reached ({fault})") from None
                if fault != complaint:
                    complain(f"rota: {fault}; trying again")
                    complaint = fault
            await asyncio.sleep(AGAIN_S)


async def _read(answer: Any) -> AsyncIterator[Happened]:
    from ...telemetry.records import Happened

    name = ""
    async for line in answer.content:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode(errors="replace")
        elif line.startswith(b"data: ") and name not in ("pulse", "missed"):
            with contextlib.suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line[6:], type=Happened)
        elif line.startswith(b"data: ") and name == "missed":
            complain("rota: events came faster than they could be read; some are missing here")


def _headers(config: ClientConfig, address: str) -> dict[str, str]:
    found = _token(config, address)
    return {"Authorization": f"Bearer {found}"} if found else {}


def _token(config: ClientConfig, address: str) -> str | None:
    own = config.local.secrets(address) if config.local is not None else None
    return config.token or (own.token if own is not None else None)


def dashboard(url: Url = None, token_file: TokenFile = None) -> None:
    """Print the address of the dashboard, which logs you in.

    The token stands behind a `#`: browsers keep that to themselves, and the
    page takes it out of the address at once. Still, whoever sees this line
    can get in.
    """
    from rota.client.settings.config import client_config, load_token

    config = client_config(url, token=load_token(token_file) if token_file else None)
    address = config.urls[0]
    found = _token(config, address)
    say(f"{address}/login#{quote(found, safe='')}" if found else f"{address}/")
