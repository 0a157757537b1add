"""The flags of queues: a key `nonempty/<queue>` says that jobs may wait there.

Every transaction that puts a token into a queue puts its flag, too (once, however many tokens); the master takes it
away when nothing waits there, guarded by the revision at which he saw it. So where there is no flag nothing waits, and
a transaction can have that as its condition: one key, whatever the queue holds, and whatever it held before. (A
condition on the range of its tokens would make the store walk over all that ended lately.)
"""

from __future__ import annotations

from ..ledger.commits import Along, Commits
from ..ledger.ledger import Delete, Ledger, Put
from .keys import Keys


def commits_of(ledger: Ledger, keys: Keys) -> Commits:
    """What writes tokens writes by these."""
    return Commits(ledger, along=flags(keys))


def flags(keys: Keys) -> Along:
    jobs, flag_of = keys.jobs, keys.flag_of

    def along(op: Put | Delete) -> Put | None:
        if type(op) is Put and op.key.startswith(jobs):
            return Put(flag_of(op.key), b"")
        return None

    return along
