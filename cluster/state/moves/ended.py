"""What is left of jobs that have ended: results, and what is kept of them. On leases: it goes by itself."""

from __future__ import annotations

from rota.client.codec import Seal, encode_results, slice_body
from rota.client.model import ResultEntry, Results

from ...ledger.ledger import Put
from ..keys import Keys, whole
from ..records import Claim, FinishedRecord, encode


def result(keys: Keys, seal: Seal, bundle: str, entries: list[ResultEntry], fence: int, lease: int = 0) -> Put:
    """For whoever waits for these jobs. `fence`: of the attempt; or, without one, the revision that was ended."""
    signed = seal.keyring.sign_results(Results(whole(bundle), entries), seal.cluster)
    return Put(keys.result(bundle, entries[0].index, fence), encode_results(signed), lease)


def finished(
    keys: Keys, bundle: str, indexes: list[int], claim: Claim, fence: int, *, node: str, at_s: float, body: bytes
) -> tuple[Put, Put]:
    """What can be looked at afterwards of jobs that ended well: a record that shows them, and their arguments."""
    shown = FinishedRecord(whole(bundle), indexes, claim.task, claim.queue, claim.attempt, node, at_s)
    return (
        Put(keys.finished_jobs(claim.queue, bundle, indexes[0], fence), encode(shown)),
        Put(keys.finished_body(bundle, indexes[0], fence), slice_body(body, indexes)),
    )
