"""Bodies, results and code: what is signed cannot be changed, and nothing is unpickled before that is sure."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rota.client.calls import pickling
from rota.client.errors import ConfigError, InvalidJob, ResultInvalid, SignatureRefused
from rota.client.model import BUNDLE_BYTES_MAX, Header, Options, ResultEntry, Results
from rota.client.wire import codec, tags
from rota.client.wire.keyring import UNSIGNED, Keyring, Seal

KEY = b"0123456789abcdef0123456789abcdef"
OTHER = b"fedcba9876543210fedcba9876543210"
KEYRING = Keyring({"k1": KEY})
CLUSTER = "prod"

PAYLOADS = [b"first", b"", b"third payload"]
HEADER = Header(
    bundle="k3f9q2m7xa5t-0000001f",
    task="shop.tasks:bill",
    queue="default",
    mode="sync",
    indexes=[0, 1, 2],
    sizes=[5, 0, 13],
    enqueued_at=1_700_000_000.25,
    codec="cloudpickle",
    python="3.11",
    function="ab" * 32,
    options=Options(3, 30.0, 60.0, 90.0, 2.0, 8.0, (0.5, 1.5), keep_log=50),
    v=2,
    priority=5,
    key="ann",
    delay_s=1.5,
)
BODY = Seal(KEYRING, CLUSTER).body(HEADER, PAYLOADS)

RESULTS = Results("k3f9q2m7xa5t-0000001f", [
    ResultEntry(0, "ok", value=b"a value"),
    ResultEntry(1, "failed", error="ValueError: no", traceback="Traceback ...", attempts=3),
])
RESULT_BYTES = codec.encode_results(KEYRING.sign_results(RESULTS, CLUSTER))

CHANGED: dict[str, Any] = {
    "bundle": "k3f9q2m7xa5t-00000020",
    "task": "shop.tasks:refund",
    "queue": "urgent",
    "mode": "async",
    "indexes": [0, 1, 3],
    "sizes": [4, 1, 13],
    "enqueued_at": 1_700_000_000.5,
    "codec": "pickle",
    "python": "3.12",
    "function": "cd" * 32,
    "options": Options(max_attempts=3, timeout_s=31, keep_result_s=60),
    "key_id": "k2",
    "tags": bytes(48),
    "v": 1,
    "priority": 0,
    "key": "",
    "delay_s": 0.0,
    "flow": "k3f9q2m7xa5t",
    "only": [0],
}


def forged(**changes: Any) -> bytes:
    """The signed body with a changed header and the old tags."""
    header, payloads = codec.split_body(BODY)
    return codec.encode_body(msgspec.structs.replace(header, **changes), payloads)


def test_a_body_arrives_as_it_was_made() -> None:
    header, payloads = KEYRING.verify(BODY, CLUSTER)
    assert payloads == PAYLOADS == codec.payloads(BODY)
    assert msgspec.structs.replace(header, key_id="", tags=b"") == HEADER
    assert codec.decode_header(BODY)[0] == header


@pytest.mark.parametrize("field", Header.__struct_fields__)
def test_no_field_of_a_header_can_be_changed(field: str) -> None:
    assert forged() == BODY
    with pytest.raises((SignatureRefused, InvalidJob)):
        KEYRING.verify(forged(**{field: CHANGED[field]}), CLUSTER)


@pytest.mark.parametrize("field", Options.__struct_fields__)
def test_no_option_can_be_changed_or_dropped(field: str) -> None:
    for value in ((), (7.0,)) if field == "retry_delays_s" else (None, 7):
        options = msgspec.structs.replace(HEADER.options, **{field: value})
        with pytest.raises(SignatureRefused):
            KEYRING.verify(forged(options=options), CLUSTER)


def test_options_of_the_first_release_sign_as_they_did() -> None:
    """Jobs that it stored must still verify: what it did not know is not part of their signature."""
    early = msgspec.structs.replace(HEADER, options=Options(3, 30.0, 60.0), priority=0, key="", delay_s=0.0, v=1)
    expected = codec.encode((
        1, CLUSTER, HEADER.bundle, HEADER.task, HEADER.queue, "sync", "cloudpickle", "3.11", HEADER.function,
        HEADER.enqueued_at, 3, 30.0, 60.0,
    ))
    assert codec.encode(tags._job_facts(early, CLUSTER)) == expected


def test_no_byte_of_a_body_can_be_changed() -> None:
    for place in range(len(BODY)):
        for bit in (0x01, 0x80):
            changed = BODY[:place] + bytes([BODY[place] ^ bit]) + BODY[place + 1 :]
            with pytest.raises((SignatureRefused, InvalidJob)):
                KEYRING.verify(changed, CLUSTER)


def test_no_body_can_be_cut_or_lengthened() -> None:
    for end in range(len(BODY)):
        with pytest.raises((SignatureRefused, InvalidJob)):
            KEYRING.verify(BODY[:end], CLUSTER)
    with pytest.raises(InvalidJob):
        KEYRING.verify(BODY + b"x", CLUSTER)


def test_jobs_cannot_change_places() -> None:
    header, payloads = codec.split_body(BODY)
    swapped = msgspec.structs.replace(header, sizes=[13, 0, 5])
    with pytest.raises(SignatureRefused):
        KEYRING.verify(codec.encode_body(swapped, payloads[::-1]), CLUSTER)


def test_a_body_is_for_one_cluster() -> None:
    with pytest.raises(SignatureRefused, match="does not fit"):
        KEYRING.verify(BODY, "staging")


@pytest.mark.parametrize("indexes", [[0], [2], [0, 2], [2, 1, 0], [0, 1, 2]])
def test_slices_stay_valid(indexes: list[int]) -> None:
    part = KEYRING.slices(BODY, [indexes], CLUSTER)[0]
    header, payloads = KEYRING.verify(part, CLUSTER)
    assert header.indexes == indexes
    assert payloads == [PAYLOADS[index] for index in indexes]


def test_a_slice_of_a_slice() -> None:
    part = codec.slices(codec.slices(BODY, [[1, 2]])[0], [[2]])[0]
    assert KEYRING.verify(part, CLUSTER)[1] == [PAYLOADS[2]]


def test_seconds_sign_alike_as_int_and_as_float() -> None:
    """msgpack keeps 30 and 30.0 apart, the struct it is decoded into does not."""
    header = msgspec.structs.replace(HEADER, enqueued_at=1_700_000_000, options=Options(timeout_s=30))
    KEYRING.verify(Seal(KEYRING, CLUSTER).body(header, PAYLOADS), CLUSTER)


@pytest.mark.parametrize("garbage", [
    b"", b"\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1", b"garbage bytes, put there by hand", b"\0\0\0\0",
    b"\0\0\0\x05hello", b"\0\0\0\x01\x80", (10**6).to_bytes(4, "big") + b"x" * 10**6,
])  # fmt: skip
def test_garbage_is_refused_as_such(garbage: bytes) -> None:
    with pytest.raises(InvalidJob, match="malformed body"):
        codec.decode_header(garbage)


def test_impossible_headers_are_refused() -> None:
    for changes in (
        {"indexes": []}, {"indexes": [0, 0, 1]}, {"indexes": [-1, 1, 2]}, {"indexes": [0, 1, 480]},
        {"sizes": [-1, 6, 13]}, {"sizes": [18]}, {"tags": b"short"},
    ):  # fmt: skip
        with pytest.raises(InvalidJob, match="malformed body"):
            codec.decode_header(forged(**changes))
    big = msgspec.structs.replace(HEADER, indexes=[0], sizes=[BUNDLE_BYTES_MAX + 1])
    with pytest.raises(InvalidJob, match="malformed body"):
        codec.decode_header(codec.encode_body(big, [bytes(BUNDLE_BYTES_MAX + 1)]))


def test_a_newer_schema_is_refused_by_name() -> None:
    with pytest.raises(InvalidJob, match="schema 4 is newer"):
        codec.decode_header(forged(v=4))


def test_the_digest_of_an_enqueue_leaves_out_when_and_by_whom_it_was_signed() -> None:
    later = msgspec.structs.replace(HEADER, enqueued_at=1_800_000_000.0)
    digest = codec.enqueue_digest(BODY)
    assert digest == codec.enqueue_digest(Seal(Keyring({"k2": OTHER}), CLUSTER).body(later, PAYLOADS))
    assert digest != codec.enqueue_digest(Seal(KEYRING, CLUSTER).body(HEADER, [*PAYLOADS[:2], b"third paYload"]))
    assert digest != codec.enqueue_digest(forged(queue="urgent"))


# -- who may sign what


def test_unsigned_and_signed_do_not_mix() -> None:
    unsigned = Seal(UNSIGNED, CLUSTER).body(HEADER, PAYLOADS)
    assert UNSIGNED.verify(unsigned, CLUSTER)[1] == PAYLOADS
    with pytest.raises(SignatureRefused, match="ROTA_KEY_FILE"):
        KEYRING.verify(unsigned, CLUSTER)
    with pytest.raises(SignatureRefused, match="no signing key is configured"):
        UNSIGNED.verify(BODY, CLUSTER)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(SignatureRefused, match=r"signed with key 'k1'; known here: k2"):
        Keyring({"k2": OTHER}).verify(BODY, CLUSTER)


def test_the_same_id_with_another_key() -> None:
    with pytest.raises(SignatureRefused, match="does not fit"):
        Keyring({"k1": OTHER}).verify(BODY, CLUSTER)


def test_rotation_loses_nothing() -> None:
    """Add the new key everywhere, then sign with it, then remove the old one."""
    old, both, new = KEYRING, Keyring({"k1": KEY, "k2": OTHER}), Keyring({"k2": OTHER})
    accepting = Keyring({"k2": OTHER, "k1": KEY})       # knows the new key, still signs with the old one
    assert accepting.newest == "k1" and both.newest == "k2"
    for signer, readers in (
        (old, (old, accepting, both)), (accepting, (old, accepting, both)), (both, (accepting, both, new)),
    ):  # fmt: skip
        body = Seal(signer, CLUSTER).body(HEADER, PAYLOADS)
        for reader in readers:
            reader.verify(body, CLUSTER)


def test_a_node_signs_for_its_runner() -> None:
    unsigned = Seal(UNSIGNED, "").body(HEADER, PAYLOADS)
    assert KEYRING.sign_body(unsigned, CLUSTER) == BODY


def test_long_keys_are_taken_whole() -> None:
    body = Seal(Keyring({"k1": KEY * 4}), CLUSTER).body(HEADER, PAYLOADS)
    with pytest.raises(SignatureRefused):
        Keyring({"k1": KEY * 4 + b"x"}).verify(body, CLUSTER)


# -- results


def test_results_arrive_as_they_were_made() -> None:
    results = KEYRING.verify_results(RESULT_BYTES, CLUSTER)
    assert [msgspec.structs.replace(entry, tag=b"") for entry in results.entries] == RESULTS.entries


ENTRY_CHANGES: dict[str, Any] = {
    "index": 5, "status": "cancelled", "value": b"another", "error": "x", "traceback": "x", "attempts": 9,
    "codec": "json", "tag": bytes(16),
}  # fmt: skip


@pytest.mark.parametrize("field", ResultEntry.__struct_fields__)
def test_no_field_of_a_result_can_be_changed(field: str) -> None:
    signed = KEYRING.verify_results(RESULT_BYTES, CLUSTER)
    for place in range(2):
        entries = list(signed.entries)
        entries[place] = msgspec.structs.replace(entries[place], **{field: ENTRY_CHANGES[field]})
        with pytest.raises(ResultInvalid):
            KEYRING.verify_results(codec.encode_results(msgspec.structs.replace(signed, entries=entries)), CLUSTER)


@pytest.mark.parametrize("changes", [{"bundle": "k3f9q2m7xa5t-00000020"}, {"key_id": ""}, {"key_id": "k9"}, {"v": 2}])
def test_no_head_of_results_can_be_changed(changes: dict[str, Any]) -> None:
    signed = KEYRING.verify_results(RESULT_BYTES, CLUSTER)
    with pytest.raises(ResultInvalid):
        KEYRING.verify_results(codec.encode_results(msgspec.structs.replace(signed, **changes)), CLUSTER)


def test_no_byte_of_results_can_be_changed() -> None:
    for place in range(len(RESULT_BYTES)):
        changed = RESULT_BYTES[:place] + bytes([RESULT_BYTES[place] ^ 1]) + RESULT_BYTES[place + 1 :]
        with pytest.raises(ResultInvalid):
            KEYRING.verify_results(changed, CLUSTER)


def test_results_of_another_cluster_or_unsigned() -> None:
    with pytest.raises(ResultInvalid):
        KEYRING.verify_results(RESULT_BYTES, "staging")
    with pytest.raises(ResultInvalid, match="unsigned"):
        KEYRING.verify_results(codec.encode_results(RESULTS), CLUSTER)
    with pytest.raises(ResultInvalid, match="no signing key"):
        UNSIGNED.verify_results(RESULT_BYTES, CLUSTER)
    assert UNSIGNED.verify_results(codec.encode_results(RESULTS), CLUSTER) == RESULTS


def test_an_empty_record_of_results_is_refused_where_keys_are() -> None:
    with pytest.raises(ResultInvalid):
        KEYRING.verify_results(codec.encode_results(Results("k3f9q2m7xa5t-0000001f", [], key_id="k1")), CLUSTER)


# -- code


def test_code_travels_signed() -> None:
    code = pickling.dump_function(lambda x: x + 1)
    digest = codec.function_digest(code)
    blob = KEYRING.sign_function(code, CLUSTER)
    assert pickling.load_function(KEYRING.open_function(digest, blob, CLUSTER).code)(1) == 2
    for refused in (
        lambda: KEYRING.open_function("0" * 64, blob, CLUSTER),
        lambda: KEYRING.open_function(digest, blob, "staging"),
        lambda: KEYRING.open_function(digest, UNSIGNED.sign_function(code, CLUSTER), CLUSTER),
        lambda: UNSIGNED.open_function(digest, blob, CLUSTER),
        lambda: KEYRING.open_function(digest, b"garbage", CLUSTER),
    ):
        with pytest.raises(SignatureRefused):
            refused()


def test_no_byte_of_code_can_be_changed() -> None:
    code = pickling.dump_function(len)
    blob = KEYRING.sign_function(code, CLUSTER)
    for place in range(len(blob)):
        with pytest.raises(SignatureRefused):
            KEYRING.open_function(
                codec.function_digest(code), blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :], CLUSTER
            )


def test_tags_of_one_purpose_are_worth_nothing_for_another() -> None:
    """The same bytes under the same key, as jobs, as results, as code and as a stamp, have different tags."""
    made = set()
    for purpose in (tags.JOB, tags.BUNDLE, tags.RESULT, tags.RESULTS, tags.FUNCTION, tags.STAMP):
        mac = tags.keyed(KEY, purpose, b"context")
        mac.update(b"message")
        made.add(mac.digest())
    assert len(made) == 6


# -- key files


def key_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_file(tmp_path: Path) -> None:
    text = f"# keys, newest last\n\nold:{KEY.hex()}\n  new:{OTHER.hex()}\n"
    keyring = Keyring.load(key_file(tmp_path / "keys", text))
    assert keyring.ids == ["old", "new"] and keyring.newest == "new"
    assert repr(keyring) == "<Keyring old new>"


@pytest.mark.parametrize(("text", "message"), [
    ("", "holds no key"),
    ("# nothing\n", "holds no key"),
    ("k1:abcd\n", "2 bytes; at least 32"),
    ("k1:xyz\n", "line 1: not of the form"),
    (f"k1:{KEY.hex()}\nk1:{OTHER.hex()}\n", "line 2: the key id 'k1' occurs twice"),
    (f"a b:{KEY.hex()}\n", "line 1: not of the form"),
    (f"{KEY.hex()}\n", "line 1: not of the form"),
    (f":{KEY.hex()}\n", "line 1: not of the form"),
    (f"{'k' * 33}:{KEY.hex()}\n", "line 1: not of the form"),
    ("k1:\u00e9\n", "cannot be read"),
])
def test_bad_key_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Keyring.load(key_file(tmp_path / "keys", text))
    said = str(caught.value).replace(str(tmp_path), "")
    assert not any(KEY.hex()[start : start + 6] in said for start in range(len(KEY.hex()) - 5)), "digits of a key"


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o606, 0o666, 0o622])
def test_a_key_file_that_others_can_change(mode: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        Keyring.load(key_file(tmp_path / "keys", f"k1:{KEY.hex()}\n", mode))


def test_keys_that_can_be_guessed() -> None:
    assert Keyring({"zero": bytes(32), "good": KEY, "word": b"password" * 4}).guessable == ["zero", "word"]


def test_a_key_file_for_a_group_of_ones_own(tmp_path: Path) -> None:
    assert Keyring.load(key_file(tmp_path / "keys", f"k1:{KEY.hex()}\n", 0o640)).ids == ["k1"]


def test_a_key_file_that_everyone_reads(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        Keyring.load(key_file(tmp_path / "keys", f"k1:{KEY.hex()}\n", 0o644))
    with pytest.raises(ConfigError, match="cannot be read"):
        Keyring.load(tmp_path / "none")


# -- arguments and values


def test_nothing_is_unpickled_to_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_args: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", explode)
    checks: list[Callable[[], object]] = [
        lambda: KEYRING.verify(BODY, CLUSTER),
        lambda: KEYRING.verify_results(RESULT_BYTES, CLUSTER),
        lambda: codec.slices(BODY, [[1]]),
        lambda: codec.enqueue_digest(BODY),
        lambda: KEYRING.open_function(codec.function_digest(b"x"), KEYRING.sign_function(b"x", CLUSTER), CLUSTER),
    ]
    for check in checks:
        check()
