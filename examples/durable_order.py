"""An order that is charged once, though its node is killed between two steps.

    rota dev --app durable_order --nodes 2      # two nodes
    python durable_order.py                     # in another terminal: orders, and says what happened

The job itself kills its node, as a power cut would, after the card was charged and before the parcel is packed. Another
node takes the job over, runs it again from its first line, and the step that was remembered answers from memory.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import rota


def charge(ledger: str, cents: int) -> str:
    with Path(ledger).open("a") as book:
        book.write(f"charged {cents} cents\n")
    return f"payment of {cents} cents"


def pack(ledger: str, payment: str) -> str:
    with Path(ledger).open("a") as book:
        book.write("packed\n")
    return f"parcel for the {payment}"


@rota.task
def fulfil(ledger: str, cents: int) -> str:
    first = rota.step("who begins", os.getpid)
    payment = rota.step("charge", charge, ledger, cents)
    if os.getpid() == first:
        kill_my_node()
    rota.sleep(1)                           # no slot is held meanwhile
    return rota.step("pack", pack, ledger, payment)


def kill_my_node() -> None:
    """kill -9 of the process that this runner works for: a child of the guard, like the runner itself."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getppid() and b"rota.cluster.process" in command:
            os.kill(int(process.name), signal.SIGKILL)
    time.sleep(60)                          # the guard ends this runner in a moment


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, rota.Client() as client:
        ledger = Path(folder) / "ledger"
        print(client.enqueue(fulfil, str(ledger), 4200).result(timeout=60))
        print(ledger.read_text(), end="")
        sys.exit(ledger.read_text().count("charged") != 1)


if __name__ == "__main__":
    main()
