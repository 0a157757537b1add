"""`rota doctor`: what is wrong, or will be, before it hurts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import typer

from rota.client.settings.local import Local

from ...boot import settings
from ...terminal import say
from .. import options, show
from ..ask import Json, Url

STYLES = {"good": "green", "warning": "yellow", "bad": "bold red"}


def doctor(
    etcd: options.Etcd = None,
    etcd_ca: options.EtcdCa = None,
    etcd_cert: options.EtcdCert = None,
    etcd_key: options.EtcdKey = None,
    etcd_user: options.EtcdUser = None,
    etcd_password_file: options.EtcdPasswordFile = None,
    key_file: options.KeyFile = None,
    token_file: options.TokenFile = None,
    config: options.Config = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Look for what is wrong with etcd, settings and nodes.

    Give it the settings of a node (on the command line, in the environment or
    as --config). It looks at etcd's release, space and history, at the files
    named in the settings, and whether the nodes at --url answer and their
    clocks agree with this machine's. To look at an etcd and its nodes it needs
    no key. The exit code is 1 if something is bad.

    [bold]Example[/]

      rota doctor --etcd 127.0.0.1:2379 --url http://127.0.0.1:4100
    """
    from rota.client.settings.config import load_token

    from . import examine  # late: other commands need no gRPC

    flags = {
        "etcd": etcd, "etcd_ca": etcd_ca, "etcd_cert": etcd_cert, "etcd_key": etcd_key, "etcd_user": etcd_user,
        "etcd_password_file": etcd_password_file, "key_file": key_file, "token_file": token_file,
    }  # fmt: skip
    where, cluster = settings.load_store(flags, os.environ, config)
    token = None
    if where.is_local or settings.names_secrets(flags, os.environ, config):
        node = settings.load(flags, os.environ, config, own_key=Local(os.environ).key_file)
        token = load_token(node.token_file) if node.token_file and Path(node.token_file).exists() else None
        findings = [*examine.files(node)]
    else:
        findings = [*examine.store_files(where)]
    urls = url or os.environ.get("ROTA_URL") or ""
    findings += [*asyncio.run(examine.store(where, cluster)), *examine.nodes(urls, token)]
    if json:
        show.as_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            say((f"{finding.grade:8}", STYLES[finding.grade]), finding.text)
    raise typer.Exit(int(any(finding.grade == "bad" for finding in findings)))
