"""What nodes say of jobs (errors, tracebacks, earlier attempts) in records that whoever writes to the store can write.

They are stamped with a key. Where the stamp is missing or wrong, the words may be anybody's: they are shown as such,
never as if the job had said them. Pure.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from rota.client.model import History, Results
from rota.client.wire.keyring import UNSIGNED, Seal

from .keys import whole
from .records import FailedRecord, Failure, Token

T = TypeVar("T", bound=Token)

NOT_OURS = "(not signed by a node that has our key) "


class Words:
    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    # -- saying ------------------------------------------------------------------------------------------------------

    def token(self, bundle: str, token: T) -> T:
        """With a stamp on its error and its earlier attempts; without any, if it tells of nothing."""
        if not token.error and not token.past:
            return replace(token, stamp="") if token.stamp else token
        return replace(token, stamp=self._stamp(_of_token(bundle, token)))

    def failed(self, record: FailedRecord) -> FailedRecord:
        return replace(record, stamp=self._stamp(_of_failed(record)))

    def failure(self, id_: str, failure: Failure) -> Failure:
        if not failure.traceback:
            return failure
        return replace(failure, stamp=self._stamp(("traceback", id_, failure.traceback)))

    def results(self, results: Results) -> Results:
        if not results.past:
            return results
        return replace(results, stamp=self._stamp(("past", results.bundle, _plain(results.past))))

    def _stamp(self, facts: tuple[object, ...]) -> str:
        return self._seal.keyring.stamp(facts, self._seal.cluster)

    # -- hearing -----------------------------------------------------------------------------------------------------

    def heard_token(self, bundle: str, token: T) -> T:
        """As it may be shown."""
        if (not token.error and not token.past) or self._is_ours(token.stamp, _of_token(bundle, token)):
            return token
        return replace(token, error=token.error and NOT_OURS + token.error, past=())

    def heard_failed(self, record: FailedRecord) -> FailedRecord:
        if self._is_ours(record.stamp, _of_failed(record)):
            return record
        return replace(record, error=NOT_OURS + record.error)

    def heard_failure(self, id_: str, failure: Failure) -> Failure:
        if not failure.traceback or self._is_ours(failure.stamp, ("traceback", id_, failure.traceback)):
            return failure
        return replace(failure, traceback=NOT_OURS + failure.traceback)

    def heard_past(self, results: Results) -> History:
        ours = self._is_ours(results.stamp, ("past", results.bundle, _plain(results.past)))
        return results.past if ours else ()

    def _is_ours(self, stamp: str, facts: tuple[object, ...]) -> bool:
        return self._seal.keyring.is_stamp(stamp, facts, self._seal.cluster)


UNSIGNED_WORDS = Words(Seal(UNSIGNED, ""))


def _of_token(bundle: str, token: Token) -> tuple[object, ...]:
    return ("token", whole(bundle), token.task, token.error, _plain(token.past))


def _of_failed(record: FailedRecord) -> tuple[object, ...]:
    return (
        "failed", record.id, record.task, record.queue, record.error, record.attempts, record.node, float(record.at),
        record.reason,
    )


def _plain(past: History) -> list[tuple[object, ...]]:
    """Numbers as they are after JSON."""
    return [(one.attempt, one.node, one.began_ms, one.ended_ms, one.how) for one in past]
