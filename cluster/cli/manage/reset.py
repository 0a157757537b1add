"""`rota reset`: forget a whole cluster."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from rota.client.errors import ConfigError

from ...boot import settings
from ...ledger.ledger import Condition, Delete, Ledger, Target, Txn, prefix_end
from ...state.keys import Keys
from ...terminal import say
from .. import options

PAGE = 10_000


def reset(
    etcd: options.Etcd = None,
    etcd_ca: options.EtcdCa = None,
    etcd_cert: options.EtcdCert = None,
    etcd_key: options.EtcdKey = None,
    etcd_user: options.EtcdUser = None,
    etcd_password_file: options.EtcdPasswordFile = None,
    cluster: options.Cluster = None,
    config: options.Config = None,
    yes: Annotated[str | None, typer.Option(metavar="CLUSTER", help="Do it if this is its name. Default: ask.")] = None,
) -> None:
    """Delete all that a cluster has stored: jobs, failed jobs, results, settings.

    For development and tests. It is refused while the cluster has nodes; stop
    them first. Other clusters on the same etcd are not touched.

    [bold]Example[/]

      rota reset --etcd 127.0.0.1:2379 --cluster staging --yes staging
    """
    from ...boot.process import ledger_settings
    from ...ledger.etcd import EtcdLedger  # late: other commands need no gRPC

    flags = {
        "etcd": etcd, "etcd_ca": etcd_ca, "etcd_cert": etcd_cert, "etcd_key": etcd_key, "etcd_user": etcd_user,
        "etcd_password_file": etcd_password_file, "cluster": cluster,
    }  # fmt: skip
    store, name = settings.load_store(flags, os.environ, config)
    answer = yes or typer.prompt(f"This deletes everything of cluster {name}. Type its name to go on")
    if answer != name:
        raise ConfigError(f"{answer!r} is not the name of the cluster ({name}): nothing was deleted")

    async def forget() -> int:
        async with EtcdLedger(ledger_settings(store)) as ledger:
            return await delete_all(ledger, Keys(name))

    say(f"{asyncio.run(forget()):,} keys of cluster {name} deleted")


async def delete_all(ledger: Ledger, keys: Keys) -> int:
    """Delete everything below both roots, a page at a time, while there is no member; returns how many keys that were.
    Raises `ConfigError` if there is one."""
    nobody = Condition(keys.nodes, Target.LEASE, "==", 0, prefix_end(keys.nodes))        # a member has a lease
    deleted = 0
    for root in (keys.root, keys.data):
        while records := (await ledger.read(root, prefix_end(root), limit=PAGE, keys_only=True)).records:
            page = Delete(records[0].key, records[-1].key + b"\0")
            if not (await ledger.commit(Txn((nobody,), (page,)))).succeeded:
                raise ConfigError(
                    f"cluster {keys.cluster} has nodes: stop them first (`rota nodes` lists them). "
                    f"{deleted:,} keys were deleted"
                )
            deleted += len(records)
    return deleted
