"""Signatures: of jobs, of results, of code shipped by value.

Every job carries its own tag, a keyed BLAKE2b over everything that could be abused if it were exchanged (cluster,
bundle, task, queue, mode, codec, Python, function, time, options), the job's index and its payload: so slices of a body
stay valid, and nothing can be moved to another queue, task or cluster. Results and code are signed likewise, each
purpose under a label of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import stat
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path

import msgspec

from ..errors import ConfigError, ResultInvalid, SignatureRefused
from ..ids import is_name
from ..model import JOBS_PER_BUNDLE_MAX, UNREADABLE, Header, ResultEntry, Results
from .codec import (
    PYTHON,
    TAG_BYTES,
    FunctionBlob,
    decode_results,
    encode,
    encode_body,
    function_digest,
    split_body,
)

KEY_BYTES_MIN = 32
KEY_BYTES_DISTINCT_MIN = 8
"""Random bytes have many more; zeros, and keys that somebody typed, have fewer."""

KEY_ID_CHARS_MAX = 32
_JOB, _RESULT, _FUNCTION, _MARK, _STAMP = b"rota-job", b"rota-result", b"rota-function", b"rota-mark", b"rota-stamp"
_INDEX = [index.to_bytes(2, "big") for index in range(JOBS_PER_BUNDLE_MAX)]


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

    def sign(self, header: Header, payloads: Sequence[bytes], cluster: str) -> Header:
        """The header with a tag for each payload."""
        if not self._keys:
            return header
        tags = self._job_tags(self.newest, header, payloads, cluster)
        return msgspec.structs.replace(header, key_id=self.newest, tags=tags)

    def sign_body(self, body: bytes, cluster: str) -> bytes:
        """Sign (again) a body that came from where this process trusts: a runner of this node."""
        header, jobs = split_body(body)
        return encode_body(self.sign(header, jobs, cluster), jobs)

    def verify(self, body: bytes, cluster: str) -> tuple[Header, list[bytes]]:
        """The header and the payloads of a body that someone with a key made for this cluster.
        Raises `SignatureRefused`, or `InvalidJob` if it is no body at all."""
        header, jobs = split_body(body)
        self._refuse_unknown(
            header.key_id, header.tags, f"bundle {header.bundle!r:.60}",
            lambda text: SignatureRefused(text, header.key_id if header.tags else ""),
        )
        if self._keys and not hmac.compare_digest(
            self._job_tags(header.key_id, header, jobs, cluster), header.tags
        ):
            raise SignatureRefused(f"bundle {header.bundle!r:.60}: the signature does not fit what it says")
        return header, jobs

    def _job_tags(self, key_id: str, header: Header, payloads: Sequence[bytes], cluster: str) -> bytes:
        copy = self._context(key_id, _JOB, _job_context(header, cluster)).copy
        tags = []
        for index, payload in zip(header.indexes, payloads, strict=True):
            mac = copy()
            mac.update(_INDEX[index] + payload)
            tags.append(mac.digest())
        return b"".join(tags)

    # results

    def sign_results(self, results: Results, cluster: str) -> Results:
        """The results with a tag in each entry."""
        if not self._keys:
            return results
        tags = self._result_tags(self.newest, results, cluster)
        entries = [msgspec.structs.replace(entry, tag=tag) for entry, tag in zip(results.entries, tags, strict=True)]
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
        self._refuse_unknown(results.key_id, b"".join(entry.tag for entry in results.entries), what, ResultInvalid)
        if self._keys:
            for entry, tag in zip(results.entries, self._result_tags(results.key_id, results, cluster), strict=True):
                if not hmac.compare_digest(tag, entry.tag):
                    raise ResultInvalid(f"{what}: the signature does not fit what they say")
        return results

    def _result_tags(self, key_id: str, results: Results, cluster: str) -> list[bytes]:
        context = self._context(key_id, _RESULT, encode((results.v, cluster, results.bundle)))
        tags = []
        for entry in results.entries:
            mac = context.copy()
            mac.update(encode(_entry_facts(entry)))
            tags.append(mac.digest())
        return tags

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
        mac = self._context(key_id, _FUNCTION, encode((1, cluster, python)))
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
        return self._context(key_id, _STAMP, encode((1, cluster, *facts))).hexdigest()

    # all kinds

    def _refuse_unknown(self, key_id: str, tags: bytes, what: str, error: Callable[[str], Exception]) -> None:
        if not self._keys:
            if key_id or tags:
                raise error(f"{what}: signed with key {key_id!r:.40}, and here no signing key is configured")
        elif not tags:
            raise error(f"{what}: unsigned. Give this process the cluster's key file (ROTA_KEY_FILE)")
        elif key_id not in self._keys:
            raise error(f"{what}: signed with key {key_id!r:.40}; known here: {', '.join(self._keys)}")

    def _context(self, key_id: str, purpose: bytes, context: bytes) -> hashlib.blake2b:
        """A keyed hash of the context, its length first so that nothing can slide over into what follows."""
        mac = hashlib.blake2b(key=self._keys[key_id], digest_size=TAG_BYTES, person=purpose)
        mac.update(len(context).to_bytes(4, "big") + context)
        return mac


UNSIGNED = Keyring({})
"""No key: for loopback, and for a runner, whose node signs for it."""


class Seal:
    """A keyring and the cluster it signs for: what a client needs to make bodies and to open results."""

    def __init__(self, keyring: Keyring, cluster: str) -> None:
        self.keyring = keyring
        self.cluster = cluster

    def body(self, header: Header, payloads: Sequence[bytes]) -> bytes:
        return encode_body(self.keyring.sign(header, payloads, self.cluster), payloads)

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


def _job_context(header: Header, cluster: str) -> bytes:
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
    return encode(facts)


def _entry_facts(entry: ResultEntry) -> tuple[object, ...]:
    return (entry.index, entry.status, entry.value, entry.error, entry.traceback, entry.attempts, entry.codec)


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(value)
