"""Enqueues of a thread that comes alone, one after another: on a socket of its own, and safe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rota.client.api import express
from rota.client.api.clients import Client
from rota.client.errors import InvalidJob, Overloaded
from rota.client.transports.direct import DirectLink, Lost
from rota.client.wire import frames as wire
from tests.client.fake_service import KEYRING, TOKEN, FakeNode, fake_node_in_thread
from tests.client.sample_tasks import add

FEW = express.AFTER + 3


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_node_in_thread() as node:
        yield node


@pytest.fixture
def client(node: FakeNode) -> Iterator[Client]:
    with Client(node.url, token=TOKEN, key=KEYRING, retry_window_s=5.0) as client:
        yield client


def way(client: Client) -> Any:
    assert client._made is not None
    return client._made.express


def warm(client: Client) -> DirectLink:
    for number in range(FEW):
        client.enqueue(add, number, 1)
    link = way(client)._link
    assert link is not None
    return link


def test_who_comes_alone_again_and_again_gets_a_socket_and_others_do_not(client: Client, node: FakeNode) -> None:
    handles = [client.enqueue(add, number, 1) for number in range(express.AFTER)]
    assert len(node.port._sockets) == 1
    handles += [client.enqueue(add, number, 1) for number in range(express.AFTER, 30)]
    assert len(node.port._sockets) == 2
    assert [handle.result(timeout=5) for handle in handles] == list(range(1, 31))
    assert node.store.jobs == 30
    assert node.service.seen_revisions == sorted(node.service.seen_revisions)


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_stored_twice(
    client: Client, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, real = warm(client), DirectLink.ask

    def lost(self: DirectLink, request: wire.EnqueueRequest) -> Any:
        real(self, request)
        raise Lost("cut off")

    monkeypatch.setattr(DirectLink, "ask", lost)
    before = node.store.jobs
    assert client.enqueue(add, 1, 2).result(timeout=5) == 3
    assert node.store.jobs == before + 1
    assert way(client)._link is not link


def test_a_node_that_cannot_now_is_asked_again_over_the_loop(client: Client, node: FakeNode) -> None:
    warm(client)
    node.service.faults.append(Overloaded("not now", 0.01))
    before = node.store.jobs
    assert client.enqueue(add, 1, 2).result(timeout=5) == 3
    assert node.store.jobs == before + 1


def test_what_is_asked_again_comes_behind_all_that_the_client_has_stored(client: Client, node: FakeNode) -> None:
    warm(client)
    assert client._made is not None
    client._made._seen_revision = 5_000         # by bundles that went over the loop, to other nodes
    node.service.faults.append(Overloaded("not now", 0.01))
    client.enqueue(add, 1, 2)
    assert node.service.seen_revisions[-2:] == [5_000, 5_000]


def test_a_refusal_is_raised(client: Client, node: FakeNode) -> None:
    link = warm(client)
    node.service.refusals.append(InvalidJob("no"))
    before = len(node.service.requests)
    with pytest.raises(InvalidJob, match="no"):
        client.enqueue(add, 1, 2)
    assert len(node.service.requests) == before + 1
    assert way(client)._link is link


def test_a_socket_that_the_node_has_closed_is_not_used(client: Client) -> None:
    link = warm(client)
    link._socket.shutdown(2)
    assert client.enqueue(add, 1, 2).result(timeout=5) == 3
    assert way(client)._link is None


def test_what_is_interrupted_leaves_no_answer_for_the_next(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    warm(client)

    def interrupted(self: DirectLink) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(DirectLink, "_frame", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.enqueue(add, 1, 2)
    assert way(client)._link is None
    assert client.enqueue(add, 1, 2).result(timeout=5) == 3


def test_a_second_thread_goes_over_the_loop(client: Client, node: FakeNode) -> None:
    warm(client)
    with way(client)._lock:         # as while another thread's call is under way
        assert client.enqueue(add, 1, 2).result(timeout=5) == 3
    assert way(client)._row == 0


def test_where_no_socket_can_be_had_the_loop_goes_on(
    client: Client, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fails(*arguments: Any, **named: Any) -> Any:
        tries.append(arguments)
        raise UnicodeError("a label that is too long")

    monkeypatch.setattr(DirectLink, "open", fails)
    for number in range(3 * FEW):
        client.enqueue(add, number, 1)
    assert node.store.jobs == 3 * FEW
    assert len(tries) == 1, "not at every call"


def test_closing_ends_it(client: Client) -> None:
    link = warm(client)
    client.close()
    assert link._socket.fileno() == -1
