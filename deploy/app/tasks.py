"""Tasks for trying out the containers. Yours go into a folder of your own: ROTA_APP_FOLDER and ROTA_APP say which."""

import asyncio
import platform
import time

import rota


@rota.task
def hello(name: str = "world") -> str:
    return f"hello {name}, from {platform.node()}"


@rota.task
def work(seconds: float = 1.0) -> str:
    """Keep a runner busy."""
    time.sleep(seconds)
    return platform.node()


@rota.task
async def wait(seconds: float = 1.0) -> str:
    """Keep an event loop waiting: a node does a hundred of these at a time."""
    await asyncio.sleep(seconds)
    return platform.node()
