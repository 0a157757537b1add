"""What is to be written of a bundle that lies under this node, and with which leases."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from ...ledger.buckets import Bucket
from ...ledger.ledger import Delete, Put


class Kept(msgspec.Struct, frozen=True, gc=False):
    """Keys of a settlement that are kept for a time: on a lease of this bucket."""

    bucket: Bucket
    keys: tuple[bytes, ...]


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """One guarded write of an executor. `final`: the claim is gone after it. `leased`: False while leases of the
    buckets in `kept` have to be granted first. `without_puts`: what is left of it for a store that is full. `stored`
    is called when it is in the store."""

    ops: tuple[Put | Delete, ...]
    final: bool
    jobs: int
    kept: tuple[Kept, ...] = ()
    leased: bool = True
    without_puts: tuple[Put | Delete, ...] | None = None
    stored: Callable[[], None] | None = None

    def with_leases(self, leases: list[int]) -> Settlement:
        """One for each of `kept`."""
        lease_of = {key: lease for kept, lease in zip(self.kept, leases, strict=True) for key in kept.keys}
        ops = tuple(
            Put(op.key, op.value, lease_of[op.key]) if isinstance(op, Put) and op.key in lease_of else op
            for op in self.ops
        )
        return replace(self, ops=ops, leased=True)

    def refreshed(self) -> Settlement:
        """To be tried again: with new leases, in case an old one is what was refused."""
        return replace(self, leased=not self.kept)

    def delete_only(self) -> Settlement:
        assert self.without_puts is not None
        return replace(self, ops=self.without_puts, kept=(), leased=True, without_puts=None)
