"""What a signature covers: keyed BLAKE2b, each purpose under a label of its own (`person`). Pure.

A bundle is signed as a whole, or job by job: then slices of its body stay valid. The same goes for a record of results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..model import JOBS_PER_BUNDLE_MAX, Header, ResultEntry, Results
from .codec import TAG_BYTES, encode

JOB, BUNDLE, RESULT, RESULTS = b"rota-job", b"rota-bundle", b"rota-result", b"rota-results"
FUNCTION, STAMP = b"rota-function", b"rota-stamp"
_INDEX = [index.to_bytes(2, "big") for index in range(JOBS_PER_BUNDLE_MAX)]


def keyed(key: bytes, purpose: bytes, context: bytes) -> hashlib.blake2b:
    """A keyed hash of the context, its length first so that nothing can slide over into what follows."""
    mac = hashlib.blake2b(key=key, digest_size=TAG_BYTES, person=purpose)
    mac.update(len(context).to_bytes(4, "big") + context)
    return mac


def of_jobs(key: bytes, header: Header, payloads: Iterable[bytes], cluster: str) -> bytes:
    """One tag for each job, with its index and its payload."""
    copy = keyed(key, JOB, encode(_job_facts(header, cluster))).copy
    tags = []
    for index, payload in zip(header.indexes, payloads, strict=True):
        mac = copy()
        mac.update(_INDEX[index] + payload)
        tags.append(mac.digest())
    return b"".join(tags)


def of_bundle(key: bytes, header: Header, payloads: bytes | memoryview, cluster: str) -> bytes:
    """One tag for all jobs: which they are, where each payload ends, and all payloads, back to back. `header`: with all
    jobs that the body holds."""
    mac = keyed(key, BUNDLE, encode((_job_facts(header, cluster), header.indexes, header.sizes)))
    mac.update(payloads)
    return mac.digest()


def of_entries(key: bytes, results: Results, cluster: str) -> list[bytes]:
    """One tag for each result."""
    context = keyed(key, RESULT, encode((results.v, cluster, results.bundle)))
    tags = []
    for entry in results.entries:
        mac = context.copy()
        mac.update(encode(_entry_facts(entry)))
        tags.append(mac.digest())
    return tags


def of_results(key: bytes, results: Results, cluster: str) -> bytes:
    """One tag for all results of a record, and for what order they have there."""
    mac = keyed(key, RESULTS, encode((results.v, cluster, results.bundle)))
    mac.update(encode(results.entries))
    return mac.digest()


def _job_facts(header: Header, cluster: str) -> tuple[object, ...]:
    """Numbers are made floats first: what was an int before msgpack is a float after it, and must sign alike."""
    options = header.options
    facts: tuple[object, ...] = (
        header.v, cluster, header.bundle, header.task, header.queue, header.mode, header.codec, header.python,
        header.function, float(header.enqueued_at), options.max_attempts, _seconds(options.timeout_s),
        _seconds(options.keep_result_s),
    )  # fmt: skip
    rest = (options.keep_finished_s, options.backoff_base_s, options.backoff_cap_s)
    if header.v > 1:
        facts += (header.priority, header.key, float(header.delay_s))
    if header.v > 1 or options.retry_delays_s or rest != (None, None, None):    # as then for who said none of it
        facts += (*map(_seconds, rest), tuple(map(float, options.retry_delays_s)))
    if options.keep_log is not None:
        facts += ("keep_log", options.keep_log)
    if header.flow:
        facts += ("flow", header.flow)
    return facts


def _entry_facts(entry: ResultEntry) -> tuple[object, ...]:
    return (entry.index, entry.status, entry.value, entry.error, entry.traceback, entry.attempts, entry.codec)


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(value)
