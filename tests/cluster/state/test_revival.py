"""What is run again from the failed set."""

from __future__ import annotations

import msgspec

from rota.client.model import Header
from rota.client.wire.codec import encode_body
from rota.cluster.clock import SystemClock
from rota.cluster.ledger.ledger import Put, Record
from rota.cluster.state import revival
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import FailedRecord, Failure, Token, encode, token_in

KEYS, BUNDLE = Keys("t"), "0s8sf4s75de1-00000000"


def test_it_runs_where_it_ran_and_counts_as_it_counted() -> None:
    """It took one slot, on any node, and was nobody's."""
    said = Token(
        "m:f", "q", 0, 3, 1, "async", 0, attempt=5, weight=4, fair="ann", rate_key="host", requires=("gpu",)
    )
    body = encode_body(Header(BUNDLE, "m:f", "q", "async", [0], [1], 0.0), [b"x"])
    failure = Failure(body, "trace", encode(said))
    again = revival.retry(
        KEYS, SystemClock(), (), Record(KEYS.failed_job("q", BUNDLE, 0), b"", 0, 7, 0),
        FailedRecord(f"{BUNDLE}/0", "m:f", "q", "ValueError: x", 5, "n", 0.0),
        Record(KEYS.failure(BUNDLE, 0), msgspec.msgpack.encode(failure), 0, 7, 0),
    )
    assert again is not None
    write = again.write(9, None)
    put = next(op for op in write.ops if isinstance(op, Put) and op.key.startswith(KEYS.jobs))
    token = token_in("q", put.value)
    assert token is not None and (token.order, token.attempt) == (9, 1)
    assert (token.weight, token.fair, token.rate_key, token.requires) == (4, "ann", "host", ("gpu",))
