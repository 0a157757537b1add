"""What `rota doctor` looks at."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from rota.client.errors import Compacted, ConfigError, LedgerDenied, LedgerError, StoreTooOld

from ...admin.strays import strays
from ...boot.config import EtcdConfig, NodeConfig, check_files, check_store_files
from ...boot.process import ledger_settings
from ...clock import SystemClock
from ...ledger.etcd import EtcdLedger
from ...ledger.ledger import prefix_end
from ...ledger.releases import check_version
from ...state.keys import Keys
from ...state.records import Member, Token, decode

HISTORY_MAX = 200_000
"""Revisions that etcd may remember before we say that nobody compacts them: some minutes of a busy queue."""

QUOTA_SHARE_MAX = 0.6
"""Of the quota in use. At 0.8 nodes begin to refuse enqueues."""

CLOCK_OFFSET_S_MAX = 2.0
ANSWER_S = 5.0
NODES_MAX, WAITING_MAX = 1_000, 20_000
"""Of the records that are looked at for keys."""

SAID_MAX = 5

Grade = Literal["good", "warning", "bad"]


class Finding(NamedTuple):
    grade: Grade
    text: str


def files(config: NodeConfig) -> Iterator[Finding]:
    try:
        check_files(config)
    except ConfigError as error:
        yield Finding("bad", str(error))
        return
    for name in (config.key_file, config.token_file):
        if name and Path(name).stat().st_mode & 0o007:
            yield Finding("bad", f"{name} can be read by everyone on this machine: chmod 600 it")
    if not config.key_file:
        yield Finding("bad", "no signing key (--insecure-no-key): every user of this machine can have code run by it")
    elif config.local:
        yield Finding("good", "no key file is given: nodes and clients of this user here share one of their own")


def store_files(etcd: EtcdConfig) -> Iterator[Finding]:
    """Where the settings name no node's secrets."""
    try:
        check_store_files(etcd)
    except ConfigError as error:
        yield Finding("bad", str(error))


async def store(etcd: EtcdConfig, cluster: str) -> list[Finding]:
    where = ", ".join(etcd.endpoints)
    try:
        async with EtcdLedger(ledger_settings(etcd)) as ledger:
            findings = [finding async for finding in _examine(ledger, where)]
            keys = Keys(cluster)
            named = [Finding("warning", text) async for text in strays(ledger, keys)]
            return [*findings, *await _signing(ledger, keys), *named]
    except LedgerDenied as error:
        return [Finding("bad", f"etcd at {where} refuses us: {error}. See --etcd-user, --etcd-cert")]
    except (LedgerError, OSError) as error:
        return [Finding("bad", f"no etcd answers at {where}: {error}. Is it running? Does it want TLS (https://…)?")]


async def _examine(ledger: EtcdLedger, where: str) -> AsyncIterator[Finding]:
    status = await ledger.status()
    try:
        warning = check_version(status.version)
        yield Finding("warning", warning) if warning else Finding("good", f"etcd {status.version} at {where}")
    except StoreTooOld as error:
        yield Finding("bad", str(error))
    if status.no_space:
        yield Finding("bad", "etcd's quota is used up (NOSPACE): compact, defragment, then `etcdctl alarm disarm`")
    elif status.quota_bytes:
        share = status.bytes_in_use / status.quota_bytes
        text = f"{status.bytes_in_use / 1024**2:,.0f} MiB in use, {share:.0%} of the quota"
        yield Finding("warning" if share > QUOTA_SHARE_MAX else "good", text)
    if status.revision > HISTORY_MAX:
        try:
            await ledger.read(b"/rota", revision=status.revision - HISTORY_MAX, keys_only=True, limit=1)
        except Compacted:
            yield Finding("good", "etcd's history is compacted")
        else:
            yield Finding("warning", (
                f"etcd remembers more than {HISTORY_MAX:,} revisions: start its members with "
                "--auto-compaction-mode=periodic --auto-compaction-retention=2m, or nodes with --compact"
            ))


async def _signing(ledger: EtcdLedger, keys: Keys) -> Iterable[Finding]:
    """Whether each node can run what the others sign, and whether anybody can run what waits."""
    page = await ledger.read(keys.nodes, prefix_end(keys.nodes), limit=NODES_MAX)
    members = {
        record.key[len(keys.nodes):].decode(errors="replace"): member
        for record in page.records if record.lease and (member := decode(Member, record.value)) is not None
    }
    waiting = await ledger.read(keys.jobs, prefix_end(keys.jobs), limit=WAITING_MAX)
    tokens = [token for record in waiting.records if (token := decode(Token, record.value)) is not None]
    return trust(members, tokens)


def trust(members: Mapping[str, Member], tokens: Iterable[Token]) -> Iterator[Finding]:
    """Pure. Each node signs with its last key."""
    strangers = False
    for mark in sorted({_signs(member) for member in members.values() if member.keys is not None}):
        missing = sorted(node for node, member in members.items() if not member.can_verify(mark))
        if missing:
            strangers = True
            signers = ", ".join(sorted(node for node, member in members.items() if _signs(member) == mark)[:SAID_MAX])
            what = f"sign with key {mark}" if mark else "have no key"
            yield Finding("bad", (
                f"{', '.join(missing[:SAID_MAX])} cannot run the jobs of {signers}, which {what}: give all nodes the "
                "same key file (a new key is added everywhere before it signs: `rota init --add-key`, then --use-key)"
            ))
    if members and not strangers:
        yield Finding("good", f"every node can verify what the others sign ({len(members)} nodes)")
    stuck = Counter(
        token.signed or "" for token in tokens
        if members and not any(member.can_verify(token.signed) for member in members.values())
    )
    for signed, count in sorted(stuck.items()):
        what = f"signed with key {signed}, which no node has" if signed else "unsigned, and every node has a key"
        yield Finding("bad", f"{count:,} bundles wait and cannot be run: they are {what}")


def _signs(member: Member) -> str:
    return member.keys[-1] if member.keys else ""


def nodes(urls: str, token: str | None = None) -> Iterator[Finding]:
    """With the token, a node that is not ready says why."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    opener = urllib.request.build_opener(_NoRedirects)
    for url in filter(None, (part.strip().rstrip("/") for part in urls.split(","))):
        try:
            asked = urllib.request.Request(f"{url}/readyz", headers=headers)
            with opener.open(asked, timeout=ANSWER_S) as answer:
                yield Finding("good", f"{url} is ready")
                yield from _clock(url, answer.headers.get("Date"))
        except urllib.error.HTTPError as error:
            yield Finding("bad", f"{url} is not ready: {_why(error)}")
        except (OSError, ValueError) as error:
            yield Finding("bad", f"{url} does not answer: {getattr(error, 'reason', error)}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token is for who was asked."""

    def redirect_request(self, *_: object) -> None:
        return None


def _clock(url: str, date: str | None) -> Iterator[Finding]:
    """A delay ends by the master's clock, so clocks should agree; the header is exact to a second."""
    if date is None:
        return
    offset_s = abs(parsedate_to_datetime(date).timestamp() - SystemClock().wall())
    if offset_s > CLOCK_OFFSET_S_MAX:
        yield Finding("warning", f"the clock of {url} is {offset_s:.0f} s apart from ours: is NTP running on both?")


def _why(error: urllib.error.HTTPError) -> str:
    try:
        page = msgspec.json.decode(error.read(), type=dict[str, str])
        return page.get("why") or page.get("message") or error.reason
    except msgspec.DecodeError:
        return error.reason
