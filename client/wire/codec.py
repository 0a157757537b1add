"""Bytes: bodies, results and code shipped by value, as they travel and are stored. Who signed them: see `keyring`.

A body is `u32 length of the header | msgpack(Header) | payloads back to back`.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import msgspec

from ..errors import InvalidJob
from ..model import BUNDLE_BYTES_MAX, HEADER_SCHEMA, HEADER_SCHEMA_MAX, JOBS_PER_BUNDLE_MAX, UNREADABLE, Header, Results

TAG_BYTES = 16
HEADER_BYTES_MAX = 32 * 1024
"""480 jobs need up to 14 KiB (most of it their signatures), a table of retries 1 KiB; names are short. A longer header
is garbage."""

BODY_BYTES_MAX = 4 + HEADER_BYTES_MAX + BUNDLE_BYTES_MAX

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""What cloudpickled code is bound to."""

_ALL = list(range(JOBS_PER_BUNDLE_MAX))
encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode
decode_results = msgspec.msgpack.Decoder(Results).decode


class FunctionBlob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Code shipped by value, as stored below functions/<sha256 of code>."""

    code: bytes
    python: str
    key_id: str = ""
    tag: bytes = b""
    v: int = 1


def encode_body(header: Header, payloads: Iterable[bytes]) -> bytes:
    head = encode(header)
    return b"".join((len(head).to_bytes(4, "big"), head, *payloads))


def decode_header(body: bytes) -> tuple[Header, int]:
    """The header, with the jobs that are meant, and the offset of the first payload. Raises `InvalidJob` for anything
    that is no body."""
    header, offset = _decode(body)
    return _meant(header) if header.only else header, offset


def _decode(body: bytes) -> tuple[Header, int]:
    """With all jobs that the body holds."""
    offset = 4 + int.from_bytes(body[:4], "big")
    if len(body) < 4 or offset > min(len(body), HEADER_BYTES_MAX):
        raise InvalidJob("malformed body: its header is cut short or too long")
    try:
        header = _decode_header(body[4:offset])
    except UNREADABLE as error:
        raise InvalidJob(f"malformed body: {error}") from None
    fault = _fault_of(header, len(body) - offset)
    if fault:
        raise InvalidJob(f"malformed body of bundle {header.bundle!r:.60}: {fault}")
    return header, offset


def _fault_of(header: Header, payload_bytes: int) -> str:
    indexes, sizes = header.indexes, header.sizes
    if not 1 <= header.v <= HEADER_SCHEMA_MAX:
        return f"schema {header.v} is newer than this release of rota"
    if header.v == 1 and (header.priority, header.key, header.delay_s) != (0, "", 0.0):
        return "its schema covers neither priority, key nor delay, and it says some"
    if not 0 < len(indexes) <= JOBS_PER_BUNDLE_MAX or len(sizes) != len(indexes):
        return f"{len(indexes)} indexes, {len(sizes)} sizes"
    if indexes != _ALL[: len(indexes)] and (        # (nearly always they are all)
        min(indexes) < 0 or max(indexes) >= JOBS_PER_BUNDLE_MAX or len(set(indexes)) != len(indexes)
    ):
        return "indexes out of range, or repeated"
    if min(sizes) < 0 or sum(sizes) != payload_bytes or payload_bytes > BUNDLE_BYTES_MAX:
        return f"{payload_bytes} payload bytes where its header says {sum(sizes)}"
    return _fault_of_tags(header)


def _fault_of_tags(header: Header) -> str:
    if header.signed_whole:
        if len(header.tags) != TAG_BYTES:
            return f"{len(header.tags)} bytes of a signature for all of its jobs"
        if len(set(header.only)) != len(header.only) or not set(header.only) <= set(header.indexes):
            return "it is cut to jobs that it does not hold, or to one of them twice"
    elif len(header.tags) not in (0, TAG_BYTES * len(header.indexes)):
        return f"{len(header.tags)} bytes of signatures for {len(header.indexes)} jobs"
    elif header.only:
        return "its schema knows no jobs that are not meant"
    return ""


def _meant(header: Header) -> Header:
    size_of = dict(zip(header.indexes, header.sizes, strict=True))
    return msgspec.structs.replace(header, indexes=header.only, sizes=[size_of[index] for index in header.only])


def split_body(body: bytes) -> tuple[Header, list[bytes]]:
    """The header and each job's payload, in the order of `header.indexes`. Not verified: see `Keyring.verify`."""
    header, payloads, _ = split_whole(body)
    return picked(header, payloads)


def split_whole(body: bytes) -> tuple[Header, list[bytes], int]:
    """The same with all jobs that the body holds, also those that are not meant; and the offset of the first
    payload."""
    header, offset = _decode(body)
    ends = accumulate(header.sizes, initial=offset)
    return header, [body[start:end] for start, end in pairwise(ends)], offset


def picked(header: Header, payloads: list[bytes]) -> tuple[Header, list[bytes]]:
    """Only the jobs that are meant."""
    if not header.only:
        return header, payloads
    payload_of = dict(zip(header.indexes, payloads, strict=True))
    return _meant(header), [payload_of[index] for index in header.only]


def payloads(body: bytes) -> list[bytes]:
    """Each job's payload."""
    return split_body(body)[1]


def slices(body: bytes, parts: Iterable[Sequence[int]]) -> list[bytes]:
    """A body for each of these parts, without a key (`Keyring.slices` has one). Signatures of jobs stay valid. Of what
    is signed as a whole, each has all the bytes, and says which jobs are meant."""
    header, offset = _decode(body)
    if header.signed_whole:
        return [
            encode_body(msgspec.structs.replace(header, only=list(part)), (body[offset:],))
            if list(part) != (header.only or header.indexes) else body for part in parts
        ]
    _, jobs, _ = split_whole(body)
    place_of = {index: place for place, index in enumerate(header.indexes)}
    cut = []
    for part in parts:
        at = [place_of[index] for index in part]
        tags = header.tags and b"".join(header.tags[TAG_BYTES * i : TAG_BYTES * (i + 1)] for i in at)
        cut.append(part_body(header, list(part), [jobs[i] for i in at], tags))
    return cut


def broken_slices(body: bytes, parts: Iterable[Sequence[int]]) -> list[bytes]:
    """The same of a body whose signature does not fit: where that was one of all jobs, small ones, whose signatures fit
    as little."""
    header, jobs = split_body(body)
    if not header.signed_whole:
        return slices(body, parts)
    payload_of = dict(zip(header.indexes, jobs, strict=True))
    return [
        part_body(header, list(part), [payload_of[index] for index in part], bytes(TAG_BYTES * len(part)))
        for part in parts
    ]


def part_body(header: Header, indexes: list[int], payloads: list[bytes], tags: bytes) -> bytes:
    """A body with only these jobs, and a signature for each."""
    part = msgspec.structs.replace(
        header, indexes=indexes, sizes=list(map(len, payloads)), tags=tags, only=[], v=min(header.v, HEADER_SCHEMA),
    )
    return encode_body(part, payloads)


def enqueue_digest(body: bytes, header: Header | None = None) -> bytes:
    """16 bytes that are equal for two enqueues that ask for the same: all but the time, the key and its tags. For
    receipts: a repeated enqueue (a POST with an Idempotency-Key) is encoded anew, at another time. Bundles that are
    signed as a whole are repeated as they are, and their signature says it all. `header`: of the verified body, if
    that is at hand."""
    if header is None or not header.signed_whole:
        header, offset = _decode(body)
    if header.signed_whole:
        return header.tags
    bare = msgspec.structs.replace(header, enqueued_at=0.0, key_id="", tags=b"")
    return hashlib.blake2b(encode(bare) + body[offset:], digest_size=TAG_BYTES).digest()


def is_harmless(results: bytes) -> bool:
    """Whether results hold nothing that would be unpickled: whoever sent them can lie, and no more."""
    try:
        entries = decode_results(results).entries if results else []
    except UNREADABLE:
        return False
    return all(entry.codec == "json" or not entry.value for entry in entries)


def function_digest(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def function_in(digest: str, blob: bytes) -> bytes | None:
    """The code with this digest, or None if the blob holds no such. Enough for who has the digest from a verified body:
    to take code from a stranger, see `Keyring.open_function`."""
    try:
        code = msgspec.msgpack.decode(blob, type=FunctionBlob).code
    except UNREADABLE:
        return None
    return code if hmac.compare_digest(function_digest(code).encode(), digest.encode()) else None


def encode_results(results: Results) -> bytes:
    return encode(results)
