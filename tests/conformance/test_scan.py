"""Reading large ranges: page by page, at one revision."""

from __future__ import annotations

from typing import Any

import pytest

from rota.client.errors import Compacted, LedgerUnavailable
from rota.cluster.ledger.ledger import Delete, Ledger, Page, Put, Txn
from rota.cluster.ledger.scan import pages, scan

from .backends import OpenLedger
from .test_watches import write


async def names(ledger: Ledger, prefix: bytes, **options: Any) -> list[bytes]:
    return [record.key.removeprefix(prefix) async for record in scan(ledger, prefix, **options)]


async def ten(ledger: Ledger, prefix: bytes) -> list[bytes]:
    """Ten keys below the prefix, and some beside it."""
    await write(ledger, prefix[:-1], *(prefix + b"%d" % number for number in range(10)))
    return [b"%d" % number for number in range(10)]


@pytest.mark.parametrize("size", [1, 3, 5, 10, 11])
async def test_every_record_once_and_in_order(open_ledger: OpenLedger, prefix: bytes, size: int) -> None:
    async with open_ledger() as ledger:
        assert await names(ledger, prefix, size=size) == []
        keys = await ten(ledger, prefix)
        assert await names(ledger, prefix, size=size) == keys
        sizes = [len(page.records) async for page in pages(ledger, prefix, size=size)]
        assert sizes[:-1] == [size] * ((10 - 1) // size)


@pytest.mark.parametrize(("options", "expected"), [
    ({"limit": 0}, range(0)), ({"limit": 1}, range(1)), ({"limit": 4}, range(4)), ({"limit": 6}, range(6)),
    ({"limit": 99}, range(10)), ({"after": b"3"}, range(4, 10)), ({"after": b"3", "limit": 2}, range(4, 6)),
    ({"after": b"9"}, range(0)),
])
async def test_a_part_of_it(
    open_ledger: OpenLedger, prefix: bytes, options: dict[str, Any], expected: range
) -> None:
    async with open_ledger() as ledger:
        keys = await ten(ledger, prefix)
        if "after" in options:
            options = options | {"after": prefix + options["after"]}
        assert await names(ledger, prefix, size=3, **options) == [keys[number] for number in expected]


async def test_keys_only(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        await ten(ledger, prefix)
        assert {record.value async for record in scan(ledger, prefix, size=4)} == {b"v"}
        assert {record.value async for record in scan(ledger, prefix, size=4, keys_only=True)} == {b""}


async def test_what_changes_meanwhile_is_not_shown(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        keys = await ten(ledger, prefix)
        found, revisions = [], set()
        async for page in pages(ledger, prefix, size=4):
            found += [record.key.removeprefix(prefix) for record in page.records]
            revisions.add(page.revision)
            await ledger.commit(Txn((), (Delete(prefix + b"9"), Put(prefix + b"8x", b""))))
        assert found == keys and len(revisions) == 1


async def test_pages_at_a_revision(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        keys = await ten(ledger, prefix)
        before = (await ledger.read(prefix)).revision
        await ledger.commit(Txn((), (Delete(prefix, prefix + b"5"),)))
        found = [record async for page in pages(ledger, prefix, size=4, revision=before) for record in page.records]
        assert [record.key.removeprefix(prefix) for record in found] == keys
        assert await names(ledger, prefix) == keys[5:]


async def test_a_compaction_meanwhile(open_ledger: OpenLedger, prefix: bytes) -> None:
    """Who needs one revision is told; who reads records gets the rest as it is by then."""
    async with open_ledger() as ledger:
        await ten(ledger, prefix)
        with pytest.raises(Compacted):
            async for _ in pages(ledger, prefix, size=4):
                await ledger.compact(await write(ledger, prefix + b"0"))
        found = []
        async for record in scan(ledger, prefix, size=4):
            found.append(record.key.removeprefix(prefix))
            if record.key == prefix + b"1":
                await ledger.commit(Txn((), (Delete(prefix + b"2"), Delete(prefix + b"8"))))
                await ledger.compact(await write(ledger, prefix + b"9x"))
        assert found == [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"9", b"9x"]


@pytest.mark.parametrize("patient", [True, False])
async def test_a_store_that_does_not_answer(open_ledger: OpenLedger, prefix: bytes, patient: bool) -> None:
    async with open_ledger() as ledger:
        keys = await ten(ledger, prefix)
        refusals = [1, 3]           # the first read, and the third

        class Faulty:
            reads = 0

            async def read(self, *arguments: Any, **options: Any) -> Page:
                self.reads += 1
                if self.reads in refusals:
                    raise LedgerUnavailable("not now")
                return await ledger.read(*arguments, **options)

        faulty: Any = Faulty()
        if not patient:
            with pytest.raises(LedgerUnavailable):
                _ = [page async for page in pages(faulty, prefix, size=6)]
            return
        found = [record async for page in pages(faulty, prefix, size=6, patient=True) for record in page.records]
        assert [record.key.removeprefix(prefix) for record in found] == keys and faulty.reads == 4
