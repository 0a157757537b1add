"""Arguments and results that neither nodes nor the store can read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import rota
from rota.client.errors import ConfigError, KeyMissing
from rota.client.settings.local import key_line
from rota.client.wire import sealing
from rota.client.wire.codec import payloads
from rota.client.wire.keyring import Keyring
from rota.cluster.cli.inspect import look
from rota.cluster.dashboard.arguments import described
from rota.cluster.ledger.ledger import Record
from rota.testing import MemoryCluster

from . import sealed_tasks as app

SECRET = "4929 1234 5678"
OLD, NEW = Keyring({"old": bytes(range(32))}), Keyring({"old": bytes(range(32)), "new": bytes(range(32, 64))})
OTHER = Keyring({"old": bytes(range(64, 96))})


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    with MemoryCluster() as made:
        yield made
    sealing.use(None)


def stored(cluster: MemoryCluster) -> tuple[Record, ...]:
    return cluster._call(cluster._ledger.read(b"/rota", b"/rotb")).records


def test_neither_arguments_nor_results_can_be_read_in_the_store(cluster: MemoryCluster) -> None:
    sealing.use(OLD)
    assert app.shout.enqueue(f"a {SECRET}").result(timeout=60) == f"A {SECRET}"
    parts = app.shout.enqueue_many([(f"b {SECRET}",), (f"c {SECRET}",)])
    whole = app.join.enqueue(*parts, SECRET)                        # results in place of handles
    assert whole.result(timeout=60) == f"B {SECRET}+C {SECRET}+{SECRET}"
    assert app.second.enqueue(SECRET).result(timeout=60) == 2       # retried
    assert app.stepped.enqueue(SECRET).result(timeout=60) == SECRET
    later = app.shout.using(run_after=60).enqueue(SECRET)
    failed = app.fail.enqueue(SECRET)
    with pytest.raises(rota.JobFailed):
        failed.result(timeout=60)
    held = stored(cluster)
    assert len(held) > 10 and not any(SECRET.encode() in record.value for record in held)
    assert any(SECRET[-4:].encode() in record.value for record in held) is False
    assert cluster.client.arguments(failed.id) == ((SECRET,), {})
    assert cluster.client.arguments(later.id) == ((SECRET,), {})


def test_what_has_no_key_says_so(cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]) -> None:
    sealing.use(OLD)
    handle = app.shout.enqueue(SECRET)
    cluster.settle()
    later = app.shout.using(run_after=60).enqueue(SECRET)
    for ring in (None, OTHER):
        sealing.use(ring)
        with pytest.raises(KeyMissing, match="'old'"):
            handle.result(timeout=60)
        with pytest.raises(KeyMissing, match="'old'"):
            cluster.client.arguments(later.id)
    look.job(later.id, arguments=True, url=cluster.url)
    assert "encrypted" in capsys.readouterr().out
    body = cluster._call(cluster._node.service.body(later.id))
    assert "encrypted, with key old" in described(body) and sealing.is_sealed(payloads(body)[0])


def test_a_job_waits_for_a_runner_with_its_key(cluster: MemoryCluster) -> None:
    """It uses up no attempt, however often it is offered in vain."""
    sealing.use(OLD)
    with rota.pipeline():
        handle = app.shout.using(max_attempts=1, run_after=1).enqueue(SECRET)
        once = app.join.using(max_attempts=1, run_after=1).enqueue(SECRET)
    for ring in (None, OTHER):
        sealing.use(ring)
        cluster.travel(seconds=31)
        assert handle.status().place == once.status().place == "scheduled"
    sealing.use(OLD)
    cluster.travel(seconds=31)
    assert handle.result(timeout=60) == once.result(timeout=60) == SECRET


def test_keys_are_replaced_one_after_the_other(cluster: MemoryCluster, tmp_path: Path) -> None:
    sealing.use(OLD)
    before = app.shout.using(run_after=60).enqueue("before")
    sealing.use(NEW)
    after = app.shout.using(run_after=60).enqueue("after")
    assert sealing.key_of(payloads(cluster._call(cluster._node.service.body(after.id)))[0]) == "new"
    cluster.travel(seconds=61)
    assert (before.result(timeout=60), after.result(timeout=60)) == ("BEFORE", "AFTER")
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{key_line()}\n")
    file.chmod(0o600)
    rota.encrypt(file)
    assert app.shout.enqueue("by file").result(timeout=60) == "BY FILE"
    with pytest.raises(ConfigError):
        rota.encrypt(tmp_path / "none")


def test_what_is_sealed_opens_in_its_place_only() -> None:
    ring = sealing.Ring(OLD)
    data = ring.seal(b"data", sealing.ARGUMENTS)
    assert ring.open(data, sealing.ARGUMENTS) == b"data" and data != ring.seal(b"data", sealing.ARGUMENTS)
    assert len(data) <= 4 + sealing.OVERHEAD_BYTES_MAX
    for wrong in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), data[:20], sealing.PREFIX, sealing.PREFIX + b"\xff"):
        with pytest.raises(KeyMissing):
            ring.open(wrong, sealing.ARGUMENTS)
    with pytest.raises(KeyMissing):
        ring.open(data, sealing.RESULT)


def test_jobs_in_json_stay_as_they_are(cluster: MemoryCluster) -> None:
    """Whoever enqueues over HTTP has no key, and is to read the result."""
    sealing.use(OLD)
    from rota.client.calls.pickling import dump_value

    assert dump_value({"a": 1}, "json") == (b'{"a": 1}', "json")
    assert sealing.is_sealed(dump_value({"a": 1})[0])
