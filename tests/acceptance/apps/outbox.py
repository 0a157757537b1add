"""Jobs that tell a journal that they ran; and, started as a program, a relay that dies over its rows."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence

import sqlalchemy as sa

import rota
from rota.outbox.sqlalchemy import Outbox, SqlRows

outbox = Outbox()


@rota.task
def tell(journal: str, number: int) -> None:
    with open(journal, "a") as file:        # noqa: PTH123 - one write, appended as a whole
        file.write(f"{number} {rota.current_job().id}\n")


class Mortal(SqlRows):
    """Dies where it hurts most: a row has been moved, and is still there."""

    chance = 0.0

    def delete(self, ids: Sequence[int]) -> None:
        if random.random() < self.chance:
            os.kill(os.getpid(), signal.SIGKILL)
        super().delete(ids)


if __name__ == "__main__":
    from rota.outbox.relay import Relay

    _, database, urls, chance = sys.argv
    rows = Mortal(sa.create_engine(database), outbox.table)
    rows.chance = float(chance)
    Relay(rows, "mortal", urls=urls.split(","), poll=0.05).run()
