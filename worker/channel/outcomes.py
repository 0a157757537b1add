"""What a runner says of a job, held to its bounds: user code shares its process, and can say anything."""

from __future__ import annotations

import math
import pickle

import msgspec

from rota.client.ids import BUNDLE
from rota.client.model import BUNDLE_BYTES_MAX, DURATION_S_MAX, UNREADABLE, UPSTREAM_MAX, Outcome, Upstream

ERROR_CHARS_MAX = 1_000
TRACEBACK_CHARS_MAX = 17_000

NONE_PICKLED = pickle.dumps(None, 5)


def checked(outcome: Outcome) -> Outcome:
    """The outcome itself, or, if it is none that a runner makes, that the job failed and why."""
    if (
        outcome.status == "ok" and 0.0 <= outcome.ran_s <= DURATION_S_MAX and len(outcome.value) <= BUNDLE_BYTES_MAX
        and not outcome.error and not outcome.traceback
    ):
        return outcome              # as nearly all, and as `_problem` would find
    problem = _problem(outcome)
    return outcome if not problem else Outcome(outcome.index, "failed", error=f"its outcome is not valid: {problem}")


def _problem(outcome: Outcome) -> str:
    if len(outcome.value) > BUNDLE_BYTES_MAX:
        return f"a result of {len(outcome.value):,} bytes; the limit is {BUNDLE_BYTES_MAX:,}"
    if not is_delay(outcome.ran_s):
        return f"a run of {outcome.ran_s!r} s"
    if outcome.status == "wait":
        return _problem_of_wait(outcome)
    if outcome.status == "ok":
        return "" if not outcome.error and not outcome.traceback else "a result with an error"
    if len(outcome.error) > ERROR_CHARS_MAX:
        return f"an error of {len(outcome.error):,} characters; the limit is {ERROR_CHARS_MAX:,}"
    if len(outcome.traceback) > TRACEBACK_CHARS_MAX:
        return f"a traceback of {len(outcome.traceback):,} characters; the limit is {TRACEBACK_CHARS_MAX:,}"
    if not is_delay(outcome.delay_s):
        return f"a delay of {outcome.delay_s!r} s"
    return ""


_decode_upstream = msgspec.msgpack.Decoder(tuple[Upstream, ...]).decode


def _problem_of_wait(outcome: Outcome) -> str:
    try:
        upstream = _decode_upstream(outcome.value)
    except UNREADABLE:
        return "what it waits for cannot be read"
    if not all(BUNDLE.match(one.bundle) for one in upstream):
        return "what it waits for has no name that jobs have"
    if not is_delay(outcome.delay_s):
        return f"a wait of {outcome.delay_s!r} s at the most"
    jobs = sum(int(one.jobs or "0", 16).bit_count() for one in upstream)
    return "" if 0 < jobs <= UPSTREAM_MAX else f"it waits for {jobs:,} jobs"


def returned_none(jobs: list[tuple[int, list[int], list[float]]]) -> list[tuple[int, Outcome]]:
    """What a `Well` stands for."""
    return [
        (key, Outcome(index, "ok", NONE_PICKLED, "", "", 0.0, "pickle", ran_s))     # in order: names would cost
        for key, indexes, ran in jobs for index, ran_s in zip(indexes, ran, strict=False)
    ]


def is_delay(seconds: float) -> bool:
    """(NaN is none.)"""
    return math.isfinite(seconds) and 0 <= seconds <= DURATION_S_MAX
