"""An app that cannot be imported while the file $BROKEN exists."""

import os
from pathlib import Path

import rota

if Path(os.environ["BROKEN"]).exists():
    with Path(os.environ["BROKEN"]).open("a") as file:
        file.write("tried\n")
    raise RuntimeError("this app is broken")


@rota.task(max_attempts=1)
def fine():
    return "fine"


@rota.task(max_attempts=1)
def leave():
    os._exit(1)
