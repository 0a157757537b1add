"""What lies in the store of an outbox: whose turn it is to move its rows. It hangs on a lease; the rows are
elsewhere."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from .records import Number, Place, Schema, schema


class OutboxRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Moments are ms since 1970. The counts are what the relay told last."""

    holder: Annotated[str, Meta(max_length=128)]
    since: Place
    moved: Number = 0
    waiting: Number = 0
    aside: Number = 0
    oldest: Place = 0
    v: Schema = msgspec.field(default_factory=schema)
