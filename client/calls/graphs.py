"""What a flow consists of: its bundles, and which waits for jobs of which. Pure.

A section is what one `with rota.flow(…)` block enqueues; its graph travels and is stored as compressed MessagePack. Who
can write to the store can write anything there: decoding is total, and bounded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from ..ids import job_id
from ..model import JOBS_PER_BUNDLE_MAX, UNREADABLE, JobBits, OnUpstream, Text

FLOW_JOBS_MAX = 50_000
"""Jobs of one section."""

SECTIONS_MAX = 1_000
"""Of one flow."""

GRAPH_BYTES_MAX = 512 * 1024
"""Of a section's graph, as it is stored."""

PLAIN_BYTES_MAX = 16 * 1024 * 1024

Edge = tuple[Annotated[str, Meta(max_length=64)], JobBits]
"""A bundle, and which of its jobs (a bitmap in hex)."""


class FlowPart(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One bundle of a flow."""

    bundle: Annotated[str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z-]{0,63}\Z")]
    task: Text
    queue: Text
    count: Annotated[int, Meta(ge=1, le=JOBS_PER_BUNDLE_MAX)]
    after: tuple[Edge, ...] = ()
    on_upstream: OnUpstream = "block"

    @property
    def all(self) -> int:
        """Its jobs, as a bitmap."""
        return (1 << self.count) - 1

    @property
    def ids(self) -> list[str]:
        return [job_id(self.bundle, index) for index in range(self.count)]


_decoder = msgspec.msgpack.Decoder(list[FlowPart])
_encode = msgspec.msgpack.Encoder().encode


def pack(parts: Sequence[FlowPart]) -> bytes:
    return zlib.compress(_encode(parts), 6)


def unpack(graph: bytes) -> list[FlowPart] | None:
    """None for what is no graph."""
    opened = zlib.decompressobj()
    try:
        plain = opened.decompress(graph, PLAIN_BYTES_MAX)
        return _decoder.decode(plain) if opened.eof else None
    except (zlib.error, *UNREADABLE):
        return None


def jobs_of(parts: Iterable[FlowPart]) -> dict[str, int]:
    """Bitmaps by bundle."""
    return {part.bundle: part.all for part in parts}


def last_of(parts: Sequence[FlowPart]) -> dict[str, int]:
    """The jobs that none of the others waits for: their results are the flow's. Bitmaps by bundle."""
    last = jobs_of(parts)
    for part in parts:
        for bundle, jobs in part.after:
            if bundle in last:
                last[bundle] &= ~int(jobs or "0", 16)
    return {bundle: jobs for bundle, jobs in last.items() if jobs}


def each(jobs: dict[str, int]) -> Iterator[tuple[str, int]]:
    """(bundle, index) of bitmaps by bundle."""
    for bundle, bits in jobs.items():
        for index in range(bits.bit_length()):
            if bits >> index & 1:
                yield bundle, index
