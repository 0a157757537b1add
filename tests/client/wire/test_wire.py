"""Frames there and back, and errors on their way: only rota's own classes are ever rebuilt."""

from __future__ import annotations

import msgspec
import pytest

from rota.client import errors
from rota.client.model import Enqueue, Receipt
from rota.client.wire import frames as wire
from rota.client.wire.views import EventsPage, JobEvent

FROM_CLIENT = [
    wire.EnqueueRequest(1, 7, [Enqueue("k3f9q2m7xa5t-0000001f", "m:f", "default", 1, "sync", b"body", delay_s=1.5)]),
    wire.FunctionRequest(2, "ab", b"code"),
    wire.FollowRequest(3, "k3f9q2m7xa5t", ["k3f9q2m7xa5t-0000001f"]),
    wire.Unfollow(["k3f9q2m7xa5t-0000001f"]),
    wire.TaskModeRequest(4, "m:f"),
    wire.WatchRequest(5, "k3f9q2m7xa5t_0000001f_0", "cursor"),
    wire.Unwatch(5),
]
FROM_NODE = [
    wire.Hello(1, "prod", "n1", ["k1"]),
    wire.EnqueueReply(1, [Receipt("k3f9q2m7xa5t-0000001f", 9, 8), None], {1: wire.Refusal("UnknownTask", "no")}),
    wire.Done(2, ["x"]),
    wire.TaskModeReply(3, "async"),
    wire.ResultPush([("k3f9q2m7xa5t-0000001f", b"results")]),
    wire.ErrorFrame(4, wire.Refusal("Overloaded", "later", {"retry_after_s": 2.0})),
    wire.EventsPush(5, EventsPage([JobEvent("state", 1.5, "running", 2, "n1")], "cursor", True)),
]


@pytest.mark.parametrize("frame", FROM_CLIENT)
def test_frames_of_a_client(frame: wire.FromClient) -> None:
    assert wire.decode_from_client(wire.encode(frame)) == frame
    with pytest.raises(msgspec.DecodeError):
        wire.decode_from_node(wire.encode(frame))


@pytest.mark.parametrize("frame", FROM_NODE)
def test_frames_of_a_node(frame: wire.FromNode) -> None:
    assert wire.decode_from_node(wire.encode(frame)) == frame
    with pytest.raises(msgspec.DecodeError):
        wire.decode_from_client(wire.encode(frame))


def test_every_kind_of_frame_is_covered() -> None:
    assert {type(frame) for frame in FROM_CLIENT} == set(wire.FromClient.__args__)
    assert {type(frame) for frame in FROM_NODE} == set(wire.FromNode.__args__)
    tags = [type(frame).__struct_config__.tag for frame in (*FROM_CLIENT, *FROM_NODE)]
    assert sorted(tags) == [1, 2, 3, 4, 5, 6, 7, 17, 18, 19, 20, 21, 22, 23], "tags are never renumbered"


def test_a_reader_skips_what_a_newer_writer_adds() -> None:
    frame = msgspec.msgpack.decode(wire.encode(FROM_NODE[0]))
    assert wire.decode_from_node(msgspec.msgpack.encode([*frame, "new", {"x": 1}])) == FROM_NODE[0]


ERRORS = [
    errors.InvalidJob("bad queue"),
    errors.JobTooLarge(300_000, 262_144),
    errors.Overloaded("later", 2.5),
    errors.EnqueueUnknown("k3f9q2m7xa5t-0000001f"),
    errors.JobUnknown("gone", "k3f9q2m7xa5t_0000001f_0"),
    errors.JobFailed("k3f9q2m7xa5t_0000001f_0", "ValueError: x", "Traceback", 3),
    errors.PartlyEnqueued(["k3f9q2m7xa5t_0000001f_0"], ValueError("x")),
]


@pytest.mark.parametrize("error", ERRORS)
def test_errors_there_and_back(error: errors.RotaError) -> None:
    back = wire.error_of(msgspec.msgpack.decode(wire.encode(wire.refusal(error)), type=wire.Refusal))
    assert type(back) is type(error) and str(back) == str(error)
    scalars = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float)}
    assert vars(back) == scalars


@pytest.mark.parametrize("error", [
    ZeroDivisionError("secret"), errors.WriteUnknown("secret"), errors.NoSpace("secret"), wire.NodeFault("secret"),
    type("InvalidJob", (errors.RotaError,), {})("secret"),
])
def test_what_is_not_for_clients_travels_without_its_text(error: Exception) -> None:
    refusal = wire.refusal(error)
    assert (refusal.kind, refusal.facts) == (wire.INTERNAL, {}) and "secret" not in refusal.message
    assert type(wire.error_of(refusal)) is wire.NodeFault


@pytest.mark.parametrize("kind", ["SystemExit", "os.system", "Exception", "", "LedgerError", "WriteUnknown"])
def test_other_classes_are_never_rebuilt(kind: str) -> None:
    assert type(wire.error_of(wire.Refusal(kind, "x"))) is wire.NodeFault


def test_versions() -> None:
    wire.check_version(wire.PROTOCOL, "the node")
    with pytest.raises(errors.ProtocolMismatch, match="upgrade this client"):
        wire.check_version(wire.PROTOCOL + 1, "the node")
    with pytest.raises(errors.ProtocolMismatch, match="upgrade the node"):
        wire.check_version(wire.PROTOCOL - 1, "the node")
