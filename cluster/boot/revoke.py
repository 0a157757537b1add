"""Revoking a lease over gRPC, for a guard whose etcd has no JSON gateway: `python -m rota.cluster.boot.revoke`.

It reads on stdin what the guard was told of etcd, and the lease, and ends with 0 when the lease is gone. The guard
itself knows the standard library only.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from rota.client.errors import LedgerError

from ..ledger.channels import EtcdConfig
from ..ledger.etcd import EtcdLedger


class Order(msgspec.Struct):
    endpoints: tuple[str, ...]
    lease: str                      # hex
    user: str = ""
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""


async def revoke(order: Order) -> None:
    def path(name: str) -> Path | None:
        return Path(name) if name else None

    config = EtcdConfig(
        endpoints=order.endpoints, user=order.user, password_file=path(order.password_file), ca_cert=path(order.ca),
        cert=path(order.cert), key=path(order.key),
    )
    async with EtcdLedger(config) as ledger:
        await ledger.revoke(int(order.lease, 16))


def main() -> int:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        asyncio.run(revoke(order))
    except (LedgerError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
