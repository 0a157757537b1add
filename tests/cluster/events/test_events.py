"""Events reach who listens, one at a time and in order; the log has words for them."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from rota.cluster.events import log as event_log
from rota.cluster.events import records
from rota.cluster.events.hub import Events
from rota.cluster.events.records import BecameMaster, BundleTaken, ClusterEvent, JobEnded, NodeJoined

KINDS = ClusterEvent.__subclasses__()


def test_listeners_hear_in_order_until_they_stop() -> None:
    events, heard = Events(), []
    assert not events.wanted(NodeJoined)
    stop = events.listen(heard.append, (NodeJoined, BecameMaster))
    events.emit(BundleTaken("b", "t", "q", 1, 1, 0.0))
    events.emit(NodeJoined("a-1", "main"))
    events.emit(BecameMaster("a-1", 7))
    assert events.wanted(NodeJoined) and [event.name for event in heard] == ["node_joined", "became_master"]
    stop()
    stop()
    events.emit(NodeJoined("b-1", "main"))
    assert len(heard) == 2 and not events.wanted(NodeJoined)


def test_a_listener_that_fails_hurts_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    events, heard = Events(), []

    def broken(event: ClusterEvent) -> None:
        raise ValueError("no")

    events.listen(broken, [NodeJoined])
    events.listen(heard.append, [NodeJoined])
    events.emit(NodeJoined("a-1", "main"))
    assert len(heard) == 1
    assert "a listener failed at node_joined" in caplog.text


def test_names_are_distinct_and_do_not_change() -> None:
    names = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(names)) == len(names)
    assert all(isinstance(name, str) and name.islower() and " " not in name for name in names)


def example(kind: type[ClusterEvent]) -> ClusterEvent:
    values: dict[str, Any] = {"str": "x", "int": 3, "float": 2.5}
    return kind(**{field.name: values[field.type.__name__] for field in msgspec.structs.fields(kind)})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_can_be_written(kind: type[ClusterEvent], caplog: pytest.LogCaptureFixture) -> None:
    """Each line names only fields that its event has; each event travels as JSON."""
    event = example(kind)
    assert msgspec.json.decode(msgspec.json.encode(event))["event"] == event.name
    events = Events()
    event_log.attach(events)
    with caplog.at_level(logging.INFO):
        events.emit(event)
    if kind in event_log.LINES:
        (record,) = caplog.records
        assert record.__dict__["event"] == event.name and "{" not in record.getMessage()
    else:
        assert not caplog.records


def test_what_happens_to_every_job_is_not_for_the_log() -> None:
    events = Events()
    event_log.attach(events)
    assert not events.wanted(BundleTaken) and not events.wanted(JobEnded)


def test_every_line_is_of_an_event() -> None:
    assert set(event_log.LINES) <= set(KINDS)
    assert {kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, ClusterEvent)} == {
        ClusterEvent, *KINDS
    }
