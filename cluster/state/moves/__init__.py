"""How a job moves: every write that takes a token from one place to another, or ends a job. Pure, one function each.

A token is in exactly one place: `waiting` (below jobs/), `scheduled`, `awaiting` (it waits for
other jobs), or `claimed` (below claims/). Of what has failed
for good there is a record in the failed set (`failed`). `[*]`: not in the store yet, or not any more.

    [*] --> waiting: enqueue
    [*] --> scheduled: enqueue
    [*] --> awaiting: enqueue
    [*] --> claimed: enqueue_claimed
    [*] --> claimed: enqueue_express
    [*] --> waiting: fire
    [*] --> scheduled: fire
    awaiting --> waiting: release
    awaiting --> scheduled: release
    awaiting --> waiting: wake
    awaiting --> awaiting: cancel_some
    awaiting --> awaiting: replace
    awaiting --> waiting: replace
    awaiting --> scheduled: replace
    awaiting --> [*]: cancel
    awaiting --> [*]: expire
    awaiting --> [*]: abandon
    awaiting --> failed: set_aside
    awaiting --> awaiting: set_some_aside
    awaiting --> failed: set_some_aside
    waiting --> claimed: claim
    waiting --> waiting: split
    waiting --> waiting: cancel_some
    waiting --> waiting: retry_head
    waiting --> waiting: replace
    waiting --> scheduled: replace
    waiting --> awaiting: replace
    waiting --> [*]: cancel
    waiting --> [*]: expire
    waiting --> failed: skip_head
    waiting --> failed: set_aside
    waiting --> waiting: set_some_aside
    waiting --> failed: set_some_aside
    scheduled --> waiting: become_due
    scheduled --> scheduled: cancel_some
    scheduled --> [*]: cancel
    scheduled --> [*]: expire
    scheduled --> waiting: replace
    scheduled --> scheduled: replace
    scheduled --> awaiting: replace
    scheduled --> failed: set_aside
    scheduled --> scheduled: set_some_aside
    scheduled --> failed: set_some_aside
    claimed --> claimed: mark_started
    claimed --> claimed: record
    claimed --> claimed: remember_first
    claimed --> claimed: part_with
    claimed --> scheduled: part_with
    claimed --> awaiting: part_with
    claimed --> claimed: give_back
    claimed --> waiting: give_back
    claimed --> waiting: hand_back
    claimed --> waiting: take_over
    claimed --> scheduled: take_over
    claimed --> scheduled: retry
    claimed --> waiting: retry_in_place
    claimed --> scheduled: suspend
    claimed --> awaiting: suspend
    claimed --> waiting: sleep_in_place
    claimed --> waiting: block
    claimed --> failed: fail
    claimed --> failed: set_aside
    claimed --> claimed: set_some_aside
    claimed --> failed: set_some_aside
    claimed --> [*]: end
    failed --> waiting: revive
    failed --> [*]: delete

Every move takes the token away from where it was, or writes it anew there, and puts it where it goes, in one
transaction that is guarded by the token as it was seen (`at`: its key, and the revision of its last write) and by what
entitles the writer (`who`: its member key, or the master's fence). So there is at most one of it, and a late twin of a
repeated write finds its condition broken.

Most functions return a `Write`. A claim's own node may have several writes of one claim ready, of which each must
wait for the one before: what these put and delete is returned as `Ops`, and guarded when its turn comes.
"""

from .awaiting import abandon, forgotten, given, let_in, let_out, not_well, release, wake
from .claimed import (
    block,
    end,
    give_back,
    hand_back,
    mark_started,
    part_with,
    record,
    remember_first,
    retry,
    retry_in_place,
    sleep_in_place,
    suspend,
    take_over,
)
from .ended import finished, result
from .entering import Bound, Fired, enqueue, enqueue_claimed, enqueue_express, fire
from .failed import delete, fail, revive, set_aside, set_some_aside, skip_head
from .ops import Conditions, Ops
from .remembered import forget_steps, remember, remembered
from .waiting import become_due, cancel, cancel_some, claim, expire, replace, retry_head, split

__all__ = [
    "Bound", "Conditions", "Fired", "Ops", "abandon", "become_due", "block", "cancel", "cancel_some", "claim", "delete",
    "end",
    "enqueue", "enqueue_claimed", "enqueue_express", "expire", "fail", "finished", "fire", "forget_steps", "forgotten",
    "give_back", "given", "hand_back", "let_in", "let_out", "mark_started", "not_well", "part_with", "record",
    "release", "remember", "remember_first", "remembered", "replace", "result", "retry", "retry_head", "retry_in_place",
    "revive", "set_aside", "set_some_aside", "skip_head", "sleep_in_place", "split", "suspend", "take_over",
    "wake",
]
