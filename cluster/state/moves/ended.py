"""What is left of jobs that have ended: results, and what is kept of them. On leases: it goes by itself."""

from __future__ import annotations

from msgspec.structs import replace

from rota.client.model import ResultEntry, Results
from rota.client.wire.codec import encode_results
from rota.client.wire.keyring import Seal

from ...ledger.ledger import Put
from ..keys import Keys, whole
from ..records import Claim, FinishedRecord, Token, encode
from ..words import Words


def result(
    keys: Keys, seal: Seal, bundle: str, entries: list[ResultEntry], fence: int, lease: int = 0, *,
    of: Token | None = None, node: str = "", began_ms: int = 0, at_ms: int = 0, together: bool = False,
) -> Put:
    """For whoever waits for these jobs. `fence`: of the attempt; or, without one, the revision that was ended. The rest
    is for people who look at them: what they were, and where and when they ended. `together`: signed as a whole,
    for those that were."""
    results = Results(whole(bundle), entries, node=node, began_ms=began_ms, at_ms=at_ms)
    if of is not None:
        verified = Words(seal).heard_token(bundle, of)
        results = Words(seal).results(replace(results, task=of.task, queue=of.queue, past=verified.past))
    signed = seal.keyring.sign_results(results, seal.cluster, whole=together)
    return Put(keys.result(bundle, entries[0].index, fence), encode_results(signed), lease)


def finished(
    keys: Keys, seal: Seal, bundle: str, indexes: list[int], claim: Claim, fence: int, *, node: str, at_s: float,
    body: bytes,
) -> tuple[Put, Put]:
    """What can be looked at afterwards of jobs that ended well: a record that shows them, and their arguments."""
    shown = FinishedRecord(
        whole(bundle), indexes, claim.task, claim.queue, claim.attempt, node, at_s, enqueued_at=claim.at / 1000
    )
    return (
        Put(keys.finished_jobs(claim.queue, bundle, indexes[0], fence), encode(shown)),
        Put(keys.finished_body(bundle, indexes[0], fence), seal.slice(body, indexes)),
    )
