"""Signatures: of jobs, of results, of code shipped by value.

A bundle has one tag, or each of its jobs has one: a keyed BLAKE2b over everything that could be abused if it were
exchanged (cluster, bundle, task, queue, mode, codec, Python, function, time, options), the indexes of jobs and their
payloads (`tags`): so nothing can be moved to another queue, task or cluster. Results and code are signed likewise, each
purpose under a label of its own. What is signed as a whole is signed job by job when it is cut.
"""

from __future__ import annotations

import hashlib
import hmac
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import msgspec

from ..errors import ConfigError, ResultInvalid, SignatureRefused
from ..ids import is_name
from ..model import HEADER_SCHEMA, HEADER_SCHEMA_MAX, RESULTS_SCHEMA_MAX, UNREADABLE, Header, Results
from . import codec, tags
from .codec import (
    PYTHON,
    FunctionBlob,
    decode_results,
    encode,
    encode_body,
    function_digest,
    split_body,
    split_whole,
)

KEY_BYTES_MIN = 32
KEY_BYTES_DISTINCT_MIN = 8
"""Random bytes have many more; zeros, and keys that somebody typed, have fewer."""

KEY_ID_CHARS_MAX = 32
_MARK = b"rota-mark"


class Keyring:
    """Keys by id, newest last. Signs with the newest, accepts all.

    An empty keyring signs nothing and accepts only what is unsigned; nodes allow that on loopback only.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys: dict[str, bytes] = {}
        for key_id, key in keys.items():
            if not is_name(key_id) or len(key_id) > KEY_ID_CHARS_MAX:
                raise ConfigError(f"{key_id!r:.40} is not a valid key id: letters, digits and _ . : @ - (at most 32)")
            if len(key) < KEY_BYTES_MIN:
                raise ConfigError(
                    f"the signing key {key_id!r} has {len(key)} bytes; at least {KEY_BYTES_MIN} are needed. "
                    "`rota init` writes a good one."
                )
            self._keys[key_id] = key if len(key) <= 64 else hashlib.blake2b(key).digest()
        self.newest = next(reversed(self._keys), "")
        self._marks = {key_id: f"{key_id}#{_fingerprint(key)}" for key_id, key in self._keys.items()}

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Keyring:
        """Read a key file: one `id:hex` a line, newest last; empty lines and lines that begin with # are skipped."""
        path = Path(path)
        try:
            check_mode(path, "key file")
            lines = path.read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the key file {path} cannot be read: {error}") from None
        keys: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            key_id, colon, digits = line.strip().partition(":")
            if not line.strip() or key_id.startswith("#"):
                continue
            try:
                key = bytes.fromhex(digits)
            except ValueError:
                key = b""
            if not colon or not key or not is_name(key_id) or len(key_id) > KEY_ID_CHARS_MAX:
                # (without what stands there: it may be the key)
                raise ConfigError(
                    f"{path}, line {number}: not of the form `id:hex`, where an id has at most {KEY_ID_CHARS_MAX} "
                    "letters, digits and _ . @ -"
                )
            if keys.setdefault(key_id, key) is not key:
                raise ConfigError(f"{path}, line {number}: the key id {key_id!r} occurs twice")
        if not keys:
            raise ConfigError(f"the key file {path} holds no key; `rota init` writes one")
        return cls(keys)

    @property
    def ids(self) -> list[str]:
        return list(self._keys)

    @property
    def marks(self) -> list[str]:
        """What may be shown of each key: `id#fingerprint`. Two keys that were given one id have different marks."""
        return list(self._marks.values())

    def mark(self, key_id: str) -> str:
        """That of one key; of a key that is not here, its id alone. "" stands for unsigned."""
        return self._marks.get(key_id, key_id)

    def derived(self, purpose: bytes) -> dict[str, bytes]:
        """Keys of 32 bytes for something else than signing, by the ids of these."""
        return {
            key_id: hashlib.blake2b(key=key, digest_size=32, person=purpose).digest() for key_id, key in
            self._keys.items()
        }

    @property
    def guessable(self) -> list[str]:
        """The ids of keys that nobody has drawn at random: zeros, or a word over and over."""
        return [key_id for key_id, key in self._keys.items() if len(set(key)) < KEY_BYTES_DISTINCT_MIN]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"<Keyring {' '.join(self._keys) or 'empty'}>"

    # jobs

    def sign(self, header: Header, payloads: Sequence[bytes], cluster: str, *, whole: bool = False) -> Header:
        """The header with a tag for each payload; or one for all (`whole`), if they are several."""
        if not self._keys:
            return header
        if whole and len(payloads) > 1:
            header = msgspec.structs.replace(header, v=HEADER_SCHEMA_MAX)
            tag = tags.of_bundle(self._keys[self.newest], header, b"".join(payloads), cluster)
        else:
            tag = tags.of_jobs(self._keys[self.newest], header, payloads, cluster)
        return msgspec.structs.replace(header, key_id=self.newest, tags=tag)

    def sign_body(self, body: bytes, cluster: str) -> bytes:
        """Sign (again) a body that came from where this process trusts: a runner of this node."""
        header, jobs = split_body(body)
        return encode_body(self.sign(header, jobs, cluster), jobs)

    def verify(self, body: bytes, cluster: str) -> tuple[Header, list[bytes]]:
        """The header and the payloads of a body that someone with a key made for this cluster.
        Raises `SignatureRefused`, or `InvalidJob` if it is no body at all."""
        header, jobs, offset = split_whole(body)
        self._refuse_unknown(
            header.key_id, header.tags, f"bundle {header.bundle!r:.60}",
            lambda text: SignatureRefused(text, header.key_id if header.tags else ""),
        )
        if self._keys:
            key = self._keys[header.key_id]
            if header.signed_whole:
                expected = tags.of_bundle(key, header, memoryview(body)[offset:], cluster)
            else:
                expected = tags.of_jobs(key, header, jobs, cluster)
            if not hmac.compare_digest(expected, header.tags):
                raise SignatureRefused(f"bundle {header.bundle!r:.60}: the signature does not fit what it says")
        return codec.picked(header, jobs)

    def slices(self, body: bytes, parts: Iterable[Sequence[int]], cluster: str) -> list[bytes]:
        """A body for each of these parts. What was signed as a whole is verified first and then signed job by job, with
        the key that had signed it; without that key, each has all the bytes (`codec.slices`), for others to verify."""
        header = codec.decode_header(body)[0]
        if not header.signed_whole:
            return codec.slices(body, parts)
        try:
            header, jobs = self.verify(body, cluster)
        except SignatureRefused:
            return codec.slices(body, parts)
        key, by_jobs = self._keys[header.key_id], msgspec.structs.replace(header, v=HEADER_SCHEMA)
        payload_of, cut = dict(zip(header.indexes, jobs, strict=True)), []
        for indexes in map(list, parts):
            if indexes == header.indexes:
                cut.append(body)
                continue
            some = [payload_of[index] for index in indexes]
            part = msgspec.structs.replace(by_jobs, indexes=indexes)
            cut.append(codec.part_body(part, indexes, some, tags.of_jobs(key, part, some, cluster)))
        return cut

    # results

    def sign_results(self, results: Results, cluster: str, *, whole: bool = False) -> Results:
        """The results with a tag in each entry; or one for all (`whole`), if they are several."""
        if not self._keys:
            return results
        key = self._keys[self.newest]
        if whole and len(results.entries) > 1:
            results = msgspec.structs.replace(results, v=RESULTS_SCHEMA_MAX, key_id=self.newest)
            return msgspec.structs.replace(results, tag=tags.of_results(key, results, cluster))
        made = tags.of_entries(key, results, cluster)
        entries = [msgspec.structs.replace(entry, tag=tag) for entry, tag in zip(results.entries, made, strict=True)]
        return msgspec.structs.replace(results, entries=entries, key_id=self.newest)

    def results_of(self, bundle: str, data: bytes, cluster: str) -> Results:
        """The results of this bundle that a node of this cluster wrote. Raises `ResultInvalid`, also for those of
        another bundle: whoever asked must not take them for his."""
        results = self.verify_results(data, cluster)
        if results.bundle != bundle:
            raise ResultInvalid(f"results of {results.bundle!r:.60} came in place of those of {bundle!r:.60}")
        return results

    def verify_results(self, data: bytes, cluster: str) -> Results:
        """The results that a node of this cluster wrote, of whatever bundle. Raises `ResultInvalid`."""
        try:
            results = decode_results(data)
        except UNREADABLE as error:
            raise ResultInvalid(f"a result record cannot be read: {error}") from None
        what = f"the results of bundle {results.bundle!r:.60}"
        whole = results.v == RESULTS_SCHEMA_MAX
        signed = results.tag if whole else b"".join([entry.tag for entry in results.entries])
        self._refuse_unknown(results.key_id, signed, what, ResultInvalid)
        if not self._keys:
            return results
        key = self._keys[results.key_id]
        if whole:
            expected = [tags.of_results(key, results, cluster)]
            found = [results.tag]
        else:
            expected = tags.of_entries(key, results, cluster)
            found = [entry.tag for entry in results.entries]
        if not all(map(hmac.compare_digest, expected, found)):
            raise ResultInvalid(f"{what}: the signature does not fit what they say")
        return results

    def results_one_by_one(self, data: bytes, cluster: str) -> bytes:
        """The same with a tag in each entry, for a client of the release before. What cannot be verified stays as it
        is: who gets it refuses it."""
        try:
            results = self.verify_results(data, cluster)
        except ResultInvalid:
            return data
        if results.v != RESULTS_SCHEMA_MAX:
            return data
        return encode(self.sign_results(msgspec.structs.replace(results, v=1, tag=b""), cluster))

    # functions

    def sign_function(self, code: bytes, cluster: str, python: str = PYTHON) -> bytes:
        """The blob to store below `functions/<function_digest(code)>`."""
        tag = self._function_tag(self.newest, code, python, cluster) if self._keys else b""
        return encode(FunctionBlob(code=code, python=python, key_id=self.newest, tag=tag))

    def open_function(self, digest: str, blob: bytes, cluster: str) -> FunctionBlob:
        """The code behind a digest, verified. Raises `SignatureRefused`."""
        try:
            function = msgspec.msgpack.decode(blob, type=FunctionBlob)
        except UNREADABLE as error:
            raise SignatureRefused(f"the code {digest:.64} cannot be read: {error}") from None
        self._refuse_unknown(
            function.key_id, function.tag, f"the code {digest:.64}",
            lambda text: SignatureRefused(text, function.key_id if function.tag else ""),
        )
        if self._keys:
            tag = self._function_tag(function.key_id, function.code, function.python, cluster)
            if not hmac.compare_digest(tag, function.tag):
                raise SignatureRefused(f"the code {digest:.64}: the signature does not fit")
        if not hmac.compare_digest(function_digest(function.code).encode(), digest.encode()):
            raise SignatureRefused(f"the code {digest:.64} is not what its digest says")
        return function

    def _function_tag(self, key_id: str, code: bytes, python: str, cluster: str) -> bytes:
        mac = tags.keyed(self._keys[key_id], tags.FUNCTION, encode((1, cluster, python)))
        mac.update(code)
        return mac.digest()

    # what nodes say of jobs in records that are not signed as a whole

    def stamp(self, facts: tuple[object, ...], cluster: str) -> str:
        """A signature of these facts, as text; "" without a key."""
        return f"{self.newest}:{self._stamp(self.newest, facts, cluster)}" if self._keys else ""

    def is_stamp(self, stamp: str, facts: tuple[object, ...], cluster: str) -> bool:
        """Whether somebody with a key of ours said so. Without a key nothing is checked."""
        key_id, _, digits = stamp.rpartition(":")
        if not self._keys:
            return True
        return key_id in self._keys and hmac.compare_digest(
            self._stamp(key_id, facts, cluster).encode(), digits.encode("utf-8", "replace")
        )

    def _stamp(self, key_id: str, facts: tuple[object, ...], cluster: str) -> str:
        return tags.keyed(self._keys[key_id], tags.STAMP, encode((1, cluster, *facts))).hexdigest()

    # all kinds

    def _refuse_unknown(self, key_id: str, signed: bytes, what: str, error: Callable[[str], Exception]) -> None:
        if not self._keys:
            if key_id or signed:
                raise error(f"{what}: signed with key {key_id!r:.40}, and here no signing key is configured")
        elif not signed:
            raise error(f"{what}: unsigned. Give this process the cluster's key file (ROTA_KEY_FILE)")
        elif key_id not in self._keys:
            raise error(f"{what}: signed with key {key_id!r:.40}; known here: {', '.join(self._keys)}")


UNSIGNED = Keyring({})
"""No key: for loopback, and for a runner, whose node signs for it."""


class Seal:
    """A keyring and the cluster it signs for: what is needed to make bodies, to cut them, and to open results. `whole`:
    each node of the cluster can read what is signed as a whole."""

    def __init__(self, keyring: Keyring, cluster: str, *, whole: bool = False) -> None:
        self.keyring = keyring
        self.cluster = cluster
        self.whole = whole

    def body(self, header: Header, payloads: Sequence[bytes]) -> bytes:
        return encode_body(self.keyring.sign(header, payloads, self.cluster, whole=self.whole), payloads)

    def slices(self, body: bytes, parts: Iterable[Sequence[int]]) -> list[bytes]:
        """A body for each of these parts. Raises `InvalidJob` if it is none."""
        return self.keyring.slices(body, parts, self.cluster)

    def slice(self, body: bytes, indexes: Sequence[int]) -> bytes:
        return self.slices(body, [indexes])[0]

    def function(self, code: bytes) -> bytes:
        return self.keyring.sign_function(code, self.cluster)

    def results(self, bundle: str, data: bytes) -> Results:
        return self.keyring.results_of(bundle, data, self.cluster)


def check_mode(path: Path, what: str) -> None:
    """Raise `ConfigError` if others than its owner (and, to read, its group) can do anything with a file of secrets."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o004:
        raise ConfigError(f"the {what} {path} can be read by everyone on this machine: chmod 600 it")
    if mode & 0o022:
        raise ConfigError(f"the {what} {path} can be written by others than its owner (mode {mode:04o}): chmod 600 it")


def _fingerprint(key: bytes) -> str:
    """Tells keys apart, and nothing else about them."""
    return hashlib.blake2b(key=key, digest_size=4, person=_MARK).hexdigest()
