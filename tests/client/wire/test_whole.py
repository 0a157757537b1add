"""One signature for a bundle, one for a record of results: nothing in them can be changed, and what is cut out of a
bundle is still signed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rota.client.errors import InvalidJob, ResultInvalid, SignatureRefused
from rota.client.model import HEADER_SCHEMA, HEADER_SCHEMA_MAX, RESULTS_SCHEMA_MAX, Header, Options, ResultEntry
from rota.client.wire import codec
from rota.client.wire.keyring import UNSIGNED, Keyring, Seal

from .test_codec import CHANGED, CLUSTER, ENTRY_CHANGES, HEADER, KEY, KEYRING, OTHER, PAYLOADS, RESULTS

SEAL = Seal(KEYRING, CLUSTER, whole=True)
BODY = SEAL.body(HEADER, PAYLOADS)
RESULT_BYTES = codec.encode_results(KEYRING.sign_results(RESULTS, CLUSTER, whole=True))
ROTATED = Keyring({"k1": KEY, "k2": OTHER})


def forged(body: bytes = BODY, payloads: list[bytes] | None = None, **changes: Any) -> bytes:
    """The signed body with a changed header, maybe other payloads, and the old signature."""
    header, there, _ = codec.split_whole(body)
    return codec.encode_body(msgspec.structs.replace(header, **changes), there if payloads is None else payloads)


def is_refused(body: bytes) -> bool:
    try:
        KEYRING.verify(body, CLUSTER)
    except (SignatureRefused, InvalidJob):
        return True
    return False


def test_a_bundle_has_one_signature_and_arrives_as_it_was_made() -> None:
    header, payloads = KEYRING.verify(BODY, CLUSTER)
    assert payloads == PAYLOADS and len(header.tags) == codec.TAG_BYTES and header.signed_whole
    assert msgspec.structs.replace(header, key_id="", tags=b"", v=HEADER_SCHEMA) == HEADER


def test_a_lone_job_and_what_is_unsigned_stay_as_they_were() -> None:
    lone = msgspec.structs.replace(HEADER, indexes=[0], sizes=[5])
    assert SEAL.body(lone, PAYLOADS[:1]) == Seal(KEYRING, CLUSTER).body(lone, PAYLOADS[:1])
    assert Seal(UNSIGNED, CLUSTER, whole=True).body(HEADER, PAYLOADS) == codec.encode_body(HEADER, PAYLOADS)


@pytest.mark.parametrize("field", Header.__struct_fields__)
def test_no_field_of_a_header_can_be_changed(field: str) -> None:
    if field == "only":
        return                  # which of its jobs are meant is not signed: a slice says as much of itself
    changes = {**CHANGED, "tags": bytes(16), "v": HEADER_SCHEMA}
    assert forged() == BODY and is_refused(forged(**{field: changes[field]}))


@pytest.mark.parametrize("field", Options.__struct_fields__)
def test_no_option_can_be_changed_or_dropped(field: str) -> None:
    for value in ((), (7.0,)) if field == "retry_delays_s" else (None, 7):
        assert is_refused(forged(options=msgspec.structs.replace(HEADER.options, **{field: value})))


def test_no_byte_of_a_body_can_be_changed_nor_can_it_be_cut_or_lengthened() -> None:
    for place in range(len(BODY)):
        for bit in (0x01, 0x80):
            assert is_refused(BODY[:place] + bytes([BODY[place] ^ bit]) + BODY[place + 1 :]), place
    assert all(is_refused(BODY[:end]) for end in range(len(BODY))) and is_refused(BODY + b"x")


@pytest.mark.parametrize("changes", [
    {"sizes": [13, 0, 5], "payloads": PAYLOADS[::-1]},              # jobs that change places
    {"sizes": [4, 1, 13]},                                          # the same bytes, cut elsewhere
    {"sizes": [0, 5, 13]},
    {"indexes": [1, 0, 2]},
    {"indexes": [0, 1, 5]},
    {"indexes": [0, 1], "sizes": [5, 0], "payloads": PAYLOADS[:2]},     # one dropped
    {"indexes": [0, 1, 2, 3], "sizes": [5, 0, 13, 0]},                  # one added, of no bytes
    {"indexes": [0, 2], "sizes": [5, 13]},                              # one dropped that had none
])  # fmt: skip
def test_jobs_cannot_change_places_nor_come_nor_go(changes: dict[str, Any]) -> None:
    assert is_refused(forged(**changes))


def test_a_signature_of_one_form_is_worth_nothing_in_the_other() -> None:
    lone = msgspec.structs.replace(HEADER, indexes=[0], sizes=[5])
    by_job = Seal(KEYRING, CLUSTER).body(lone, PAYLOADS[:1])
    assert is_refused(forged(by_job, v=HEADER_SCHEMA_MAX))
    assert is_refused(forged(v=HEADER_SCHEMA)) and is_refused(forged(tags=b"")) and is_refused(forged(tags=bytes(48)))
    ((first, *_),) = [codec.slices(codec.encode_body(HEADER, PAYLOADS), [[0]])]
    assert is_refused(forged(first, v=HEADER_SCHEMA_MAX, tags=codec.decode_header(BODY)[0].tags, key_id="k1"))


def test_it_is_for_one_cluster_and_one_key() -> None:
    with pytest.raises(SignatureRefused, match="does not fit"):
        KEYRING.verify(BODY, "staging")
    with pytest.raises(SignatureRefused, match="does not fit"):
        Keyring({"k1": OTHER}).verify(BODY, CLUSTER)
    with pytest.raises(SignatureRefused, match=r"signed with key 'k1'; known here: k2"):
        Keyring({"k2": OTHER}).verify(BODY, CLUSTER)
    with pytest.raises(SignatureRefused, match="no signing key is configured"):
        UNSIGNED.verify(BODY, CLUSTER)


def test_what_is_repeated_is_known_by_its_signature() -> None:
    header = KEYRING.verify(BODY, CLUSTER)[0]
    assert codec.enqueue_digest(BODY) == codec.enqueue_digest(BODY, header) == header.tags
    other = SEAL.body(msgspec.structs.replace(HEADER, queue="urgent"), PAYLOADS)
    assert codec.enqueue_digest(other) != header.tags


# -- what is cut out of it


@pytest.mark.parametrize("indexes", [[0], [2], [0, 2], [2, 1, 0], [0, 1, 2]])
@pytest.mark.parametrize("keyring", [KEYRING, ROTATED, UNSIGNED, Keyring({"k2": OTHER}), Keyring({"k1": OTHER})])
def test_slices_are_signed_whoever_makes_them(keyring: Keyring, indexes: list[int]) -> None:
    """Who has the key signs each job of them; who has not leaves all the bytes, for those to verify who have it."""
    part = keyring.slices(BODY, [indexes], CLUSTER)[0]
    header, payloads = KEYRING.verify(part, CLUSTER)
    assert (header.indexes, payloads) == (indexes, [PAYLOADS[index] for index in indexes])
    assert header.sizes == list(map(len, payloads)) and header.key_id == "k1"
    assert codec.decode_header(part)[0] == header and codec.split_body(part) == (header, payloads)
    assert (part == BODY) is (indexes == [0, 1, 2])
    for again in (keyring, KEYRING, UNSIGNED):
        for index in indexes:
            header, payloads = KEYRING.verify(again.slices(part, [[index]], CLUSTER)[0], CLUSTER)
            assert (header.indexes, payloads) == ([index], [PAYLOADS[index]])


def test_a_slice_that_was_cut_without_the_key_can_be_changed_as_little() -> None:
    part = UNSIGNED.slices(BODY, [[0, 2]], CLUSTER)[0]
    for place in range(len(part)):
        changed = part[:place] + bytes([part[place] ^ 1]) + part[place + 1 :]
        if not is_refused(changed):         # it means others of these jobs now
            header, payloads = KEYRING.verify(changed, CLUSTER)
            assert payloads == [PAYLOADS[index] for index in header.indexes]
    for only in ([3], [0, 0], [0, 3], [-1]):
        assert is_refused(forged(only=only))


def test_what_was_damaged_is_not_signed_when_it_is_cut() -> None:
    damaged = BODY[:-1] + b"y"
    for cut in (KEYRING.slices(damaged, [[0], [1, 2]], CLUSTER), codec.broken_slices(damaged, [[0], [1, 2]])):
        assert all(map(is_refused, cut))
        assert [codec.decode_header(part)[0].indexes for part in cut] == [[0], [1, 2]]
        assert codec.payloads(cut[1]) == [b"", b"third payloay"]
    by_job = Seal(KEYRING, CLUSTER).body(HEADER, PAYLOADS)[:-1] + b"y"
    assert [is_refused(part) for part in codec.broken_slices(by_job, [[0], [2]])] == [False, True]


# -- results


def results_refused(data: bytes) -> bool:
    try:
        KEYRING.verify_results(data, CLUSTER)
    except ResultInvalid:
        return True
    return False


def test_results_have_one_signature_and_arrive_as_they_were_made() -> None:
    results = KEYRING.verify_results(RESULT_BYTES, CLUSTER)
    assert results.entries == RESULTS.entries and len(results.tag) == codec.TAG_BYTES
    lone = msgspec.structs.replace(RESULTS, entries=RESULTS.entries[:1])
    assert KEYRING.sign_results(lone, CLUSTER, whole=True) == KEYRING.sign_results(lone, CLUSTER)
    assert UNSIGNED.sign_results(RESULTS, CLUSTER, whole=True) == RESULTS


def test_no_byte_of_results_can_be_changed_and_no_entry_comes_goes_or_moves() -> None:
    for place in range(len(RESULT_BYTES)):
        assert results_refused(RESULT_BYTES[:place] + bytes([RESULT_BYTES[place] ^ 1]) + RESULT_BYTES[place + 1 :])
    signed = KEYRING.verify_results(RESULT_BYTES, CLUSTER)
    first, second = signed.entries
    for entries in ([first], [second, first], [first, second, ResultEntry(2, "ok")], [], [first, first]):
        assert results_refused(codec.encode_results(msgspec.structs.replace(signed, entries=entries)))


@pytest.mark.parametrize("field", ResultEntry.__struct_fields__)
def test_no_field_of_a_result_can_be_changed(field: str) -> None:
    signed = KEYRING.verify_results(RESULT_BYTES, CLUSTER)
    entries = [signed.entries[0], msgspec.structs.replace(signed.entries[1], **{field: ENTRY_CHANGES[field]})]
    assert results_refused(codec.encode_results(msgspec.structs.replace(signed, entries=entries)))


@pytest.mark.parametrize("changes", [
    {"bundle": "k3f9q2m7xa5t-00000020"}, {"key_id": ""}, {"key_id": "k9"}, {"v": 1}, {"v": 3}, {"tag": b""},
    {"tag": bytes(16)},
])  # fmt: skip
def test_no_head_of_results_can_be_changed(changes: dict[str, Any]) -> None:
    signed = KEYRING.verify_results(RESULT_BYTES, CLUSTER)
    assert results_refused(codec.encode_results(msgspec.structs.replace(signed, **changes)))
    with pytest.raises(ResultInvalid):
        KEYRING.verify_results(RESULT_BYTES, "staging")


def test_a_signature_of_results_of_one_form_is_worth_nothing_in_the_other() -> None:
    lone = KEYRING.sign_results(msgspec.structs.replace(RESULTS, entries=RESULTS.entries[:1]), CLUSTER)
    (entry,) = lone.entries
    moved = msgspec.structs.replace(
        lone, v=RESULTS_SCHEMA_MAX, tag=entry.tag, entries=[msgspec.structs.replace(entry, tag=b"")]
    )
    assert results_refused(codec.encode_results(moved))


def test_a_client_of_the_release_before_gets_them_signed_one_by_one() -> None:
    told = KEYRING.results_one_by_one(RESULT_BYTES, CLUSTER)
    assert told == codec.encode_results(KEYRING.sign_results(RESULTS, CLUSTER)) != RESULT_BYTES
    assert KEYRING.results_one_by_one(told, CLUSTER) == told
    damaged = RESULT_BYTES[:-1] + b"?"
    assert KEYRING.results_one_by_one(damaged, CLUSTER) == damaged and not KEYRING.results_one_by_one(b"", CLUSTER)
