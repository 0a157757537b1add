"""The master's decisions, without a store: events in, commands out."""

from __future__ import annotations

import msgspec
import pytest

from rota.client.model import Rate
from rota.cluster.ledger.ledger import Record
from rota.cluster.master.dispatch.aggregator import CLOSED_S
from rota.cluster.master.dispatch.commands import GiveClaim, LoadPage, Quarantine, Split, TakeOver
from rota.cluster.master.dispatch.expiries import SWEEP_AT
from rota.cluster.master.dispatch.pages import PAGE_NEXT
from rota.cluster.master.dispatch.queues import WINDOW_MAX
from rota.cluster.master.dispatch.rates import Reserve
from rota.cluster.master.dispatch.turns import ALONE_WAIT_S
from rota.cluster.state.records import Claim, QueueRecord, TaskRecord, Token, claim_of, encode

from ..table import KEYS, Table


def test_nothing_is_given_before_the_snapshot_is_complete() -> None:
    table = Table(is_open=False)
    table.member("n1")
    table.job("b1")
    assert table.decide() == []
    table.picture.open()
    assert table.given() == [("b1", "n1")]


def test_jobs_go_out_in_key_order_up_to_the_slots() -> None:
    table = Table()
    table.member("n1", slots=2)
    tokens = {name: table.job(name) for name in ("b1", "b2", "b3")}
    assert table.given() == [("b1", "n1"), ("b2", "n1")]
    assert table.given() == []
    table.claimed("n1", "b1", tokens["b1"])
    table.ended("n1", "b1")
    assert [bundle for bundle, _ in table.given()] == ["b3"]


def test_higher_priority_goes_first() -> None:
    table = Table()
    table.job("low", priority=-5)
    table.job("high", priority=5)
    table.member("n1", slots=1)
    assert table.given() == [("high", "n1")]


def test_work_spreads_to_the_node_with_most_room() -> None:
    table = Table()
    table.member("n1", slots=2)
    table.member("n2", slots=4)
    for number in range(6):
        table.job(f"b{number}")
    nodes = [node for _, node in table.given()]
    assert sorted(nodes) == ["n1", "n1", "n2", "n2", "n2", "n2"]


def test_an_unrunnable_head_does_not_block_others_of_its_queue() -> None:
    table = Table()
    table.member("n1")
    table.job("stuck", task="m:unknown")
    table.job("fine")
    assert table.given() == [("fine", "n1")]


def test_a_node_gets_only_what_it_has_the_key_of() -> None:
    table = Table()
    table.member("other", slots=9, keys=["k1#bbbbbbbb"])        # the same id, another key
    table.member("keyless", slots=9, keys=[])
    table.job("b1", signed="k1#aaaaaaaa")
    assert table.given() == []
    table.member("right", slots=1, keys=["k0#cccccccc", "k1#aaaaaaaa"])
    assert table.given() == [("b1", "right")]


def test_unsigned_jobs_go_to_nodes_without_a_key() -> None:
    table = Table()
    table.member("signed", slots=9, keys=["k1#aaaaaaaa"])
    table.job("b1", signed="")
    assert table.given() == []
    table.member("keyless", keys=[])
    assert table.given() == [("b1", "keyless")]


def test_an_id_without_a_fingerprint_fits_every_key_of_that_id() -> None:
    table = Table()
    table.member("n1", keys=["k2#aaaaaaaa"])
    table.job("other", signed="k1")
    table.job("fits", signed="k2")
    assert table.given() == [("fits", "n1")]


def test_where_the_release_before_says_nothing_of_keys_the_node_finds_out() -> None:
    table = Table()
    table.member("n1", keys=["k1#aaaaaaaa"])
    table.job("before")
    assert table.given() == [("before", "n1")]


def test_a_node_of_the_release_before_is_given_only_jobs_of_that_release() -> None:
    table = Table()
    table.member("before", slots=9)
    table.job("now", signed="k1#aaaaaaaa")
    table.job("before")
    assert table.given() == [("before", "before")]


def test_a_node_gets_only_its_queues_and_only_while_active() -> None:
    table = Table()
    table.member("n1", queues=["other"])
    table.member("n2", state="draining")
    table.job("b1")
    assert table.given() == []
    table.member("n2")
    assert table.given() == [("b1", "n2")]


def test_shipped_code_needs_the_same_python() -> None:
    table = Table()
    table.member("n1", functions=True, python="3.12")
    table.job("b1", function="abc", python="3.11")
    assert table.given() == []
    table.member("n2", functions=True, python="3.11")
    assert table.given() == [("b1", "n2")]


def test_queues_take_turns() -> None:
    table = Table()
    table.member("n1", slots=4)
    for number in range(10):
        table.job(f"noisy{number}", queue="noisy")
    table.job("small", queue="small")
    assert "small" in [bundle for bundle, _ in table.given()]


def test_an_idle_node_gets_a_whole_bundle_and_a_busy_one_waits() -> None:
    table = Table()
    table.member("n1", slots=2)
    table.job("b1", count=60)
    table.job("b2", count=60)
    assert table.given() == [("b1", "n1")]


def test_a_fast_node_that_is_busy_does_not_hide_an_idle_one() -> None:
    """Found by the simulation, seed 13626: a bundle waited for the fast node while another had nothing to do."""
    table = Table()
    table.member("fast", slots=2)
    for number in range(5):
        token = table.job(f"b{number}")
        assert table.given() == [(f"b{number}", "fast")]
        table.claimed("fast", f"b{number}", token)
        table.ended("fast", f"b{number}")
    table.claimed("fast", "b5", table.job("b5"))
    table.member("idle", slots=2)
    table.job("b6", count=7)
    assert table.given() == [("b6", "idle")]


def test_what_a_node_gives_back_whole_goes_elsewhere_and_is_no_throughput() -> None:
    """It was given ahead and lay behind long jobs, perhaps such that the master does not see (level `none`)."""
    table = Table()
    table.member("busy", slots=1)
    for number in range(20):
        token = table.job(f"b{number:02d}")
        assert table.given() == [(f"b{number:02d}", "busy")]
        table.claimed("busy", f"b{number:02d}", token)
        table.ended("busy", f"b{number:02d}")
    token = table.job("ahead")
    assert table.given() == [("ahead", "busy")]
    table.claimed("busy", "ahead", token)
    table.member("other", slots=1)
    table.handed_back("busy", "ahead", token)
    assert table.given() == [("ahead", "other")]
    table.job("more")
    table.job("and more")
    assert table.given() == [("more", "busy")]          # its slot, and nothing ahead


def test_a_large_bundle_does_not_wait_for_a_busy_node_because_the_idle_one_gave_something_back() -> None:
    """Found by the simulation, seed 47478: after an outage all that a node had went back, and so it was passed over."""
    table = Table()
    table.member("back", slots=2)
    token = table.job("b1")
    assert table.given() == [("b1", "back")]
    table.claimed("back", "b1", token)
    table.member("busy", slots=3)
    table.handed_back("back", "b1", token)
    assert table.given() == [("b1", "busy")]
    table.claimed("busy", "b1", token)
    table.job("b2", count=20)
    assert table.split() == {"b2": 2}        # to the slots that are free; the pieces go to either


def test_what_a_node_gives_back_marks_its_task_as_slow() -> None:
    table = Table()
    table.member("n1", slots=2)
    token = table.job("b1", count=60)
    table.job("b2", count=60)
    assert table.given() == [("b1", "n1")]
    table.claimed("n1", "b1", token)
    claim = Claim(**{name: getattr(token, name) for name in Token.__struct_fields__}, fence=5, back=58)
    done = "f" * 14 + "c"       # bits 2..59
    table.put(KEYS.claim("n1", "b1"), encode(Claim(**(
        {name: getattr(claim, name) for name in Claim.__struct_fields__} | {"done": done}
    ))))
    table.member("n2", slots=2)
    commands = table.decide()
    assert [type(command) for command in commands] == [Split]


def test_throughput_opens_room_beyond_the_slots() -> None:
    table = Table()
    table.member("n1", slots=1)
    for number in range(200):
        token = table.job(f"b{number:03d}")
        ((bundle, _),) = table.given()
        table.claimed("n1", bundle, token)
        table.ended("n1", bundle)
    for number in range(200, 400):
        table.job(f"b{number:03d}")
    assert len(table.given()) > 100


def test_suspects_are_split_and_given_without_prefetch() -> None:
    table = Table()
    table.member("n1", slots=1)
    table.job("b1", count=3, orphanings=1)
    (command,) = table.decide()
    assert isinstance(command, Split)


def test_what_was_lost_while_it_ran_has_a_node_for_itself() -> None:
    """One on each, before what came earlier; others have the node after a while, or when it has ended."""
    table = Table()
    table.job("a1")
    for name in ("b1", "b2", "b3"):
        table.job(name, orphanings=2, lost=1)
    table.member("n1", slots=8)
    table.member("n2", slots=8)
    assert table.play_given() == [("b1", "n1"), ("b2", "n2")]
    table.now += CLOSED_S
    assert table.play_given() == [("a1", "n1")]
    table.ended("n2", "b2")
    assert table.play_given() == [("b3", "n2")]


def test_it_waits_for_a_node_that_has_nothing_else_but_not_for_ever() -> None:
    table = Table()
    table.member("n1", slots=8)
    assert table.play_given() == []
    table.job("a1")
    assert table.play_given() == [("a1", "n1")]
    table.job("b1", orphanings=2, lost=1)
    table.job("b2", orphanings=2, lost=1)
    assert table.play_given() == []
    table.now += ALONE_WAIT_S - 0.1
    assert table.play_given() == []         # nor a spare slot
    table.member("n2", slots=8)
    assert table.play_given() == [("b1", "n2")]
    table.now += ALONE_WAIT_S - 0.1
    assert table.play_given() == []
    table.now += 0.2
    assert table.play_given() == [("b2", "n1")]


def test_others_go_where_no_such_job_is() -> None:
    table = Table()
    table.member("n1", slots=8)
    table.job("b1", orphanings=2, lost=1)
    assert table.play_given() == [("b1", "n1")]
    table.now += CLOSED_S
    table.member("n2", slots=2)
    for name in ("a1", "a2", "a3"):
        table.job(name)
    assert sorted(node for _, node in table.play_given()) == ["n1", "n2", "n2"]


def test_of_these_tasks_that_are_quick_or_never_ended_go_before() -> None:
    table = Table()
    table.member("n1", slots=8)
    for name in ("b1", "b2"):
        table.job(name, orphanings=2, lost=1)
    table.job("c1", task="m:g", orphanings=2, lost=1)
    assert table.play_given() == [("b1", "n1")]
    table.now += 6.0
    table.ended("n1", "b1")
    assert table.play_given() == [("c1", "n1")]
    table.now += 0.1
    table.delete(KEYS.node("n1"))
    table.ended("n1", "c1")                 # lost, not ended: nothing is learnt
    table.job("c1", task="m:g", orphanings=3, lost=2)
    table.member("n2", slots=8)
    assert table.play_given() == [("c1", "n2")]


def test_a_dead_nodes_claims_are_taken_over() -> None:
    table = Table()
    table.member("n1")
    table.delete(KEYS.node("n1"))
    assert table.decide() == [TakeOver("n1")]


def test_claims_found_under_nobody_are_taken_over_when_the_master_opens() -> None:
    table = Table(is_open=False)
    token = Token("m:f", "q", 0, 1, 1, "sync", 0)
    table.put(KEYS.claim("ghost", "b1"), encode(claim_of(token, 5)))
    table.picture.open()
    assert TakeOver("ghost") in table.decide()


def refuse(table: Table, command: GiveClaim, *, token_stale: bool) -> None:
    table.aggregator.settle(
        command.item, command.node, command.held, applied=False, token_stale=token_stale, doubtful_at=None,
        now=table.now,
    )


def test_a_refused_claim_comes_back_unless_its_token_has_moved() -> None:
    table = Table()
    table.member("n1", slots=1)
    table.job("b1")
    (command,) = table.decide()
    assert isinstance(command, GiveClaim)
    refuse(table, command, token_stale=False)
    (command,) = table.decide()
    assert isinstance(command, GiveClaim)
    refuse(table, command, token_stale=True)
    assert table.decide() == []
    assert table.aggregator.nodes["n1"].outstanding["sync"] == 0


def test_a_claim_of_unknown_fate_keeps_its_slot_until_the_watch_has_passed() -> None:
    table = Table()
    table.member("n1", slots=1)
    table.job("b1")
    table.job("b2")
    (command,) = table.decide()
    assert isinstance(command, GiveClaim)
    doubt(table, command, until=table.revision + 1)
    assert table.decide() == []
    table.put(KEYS.task("m:x"), encode(TaskRecord("sync")))
    assert [bundle for bundle, _ in table.given()] == ["b2"]


def doubt(table: Table, command: GiveClaim, *, until: int) -> None:
    """The write was repeated, and then found its token gone: it may have been itself."""
    table.aggregator.settle(
        command.item, command.node, command.held, applied=False, token_stale=True, doubtful_at=until, now=table.now
    )


def test_a_bundle_that_is_given_again_while_its_first_claim_is_in_doubt_counts_once() -> None:
    """Each reservation counts for the limits of its task until it is known to be void: for ever, if another took its
    place."""
    table = Table()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_concurrency=2)))
    table.member("n1", slots=5)
    token = table.job("b1")
    (first,) = table.decide()
    assert isinstance(first, GiveClaim)
    doubt(table, first, until=table.revision + 3)
    table.put(KEYS.job("q", 0, token.order, "b1"), encode(token))
    (second,) = table.decide()
    assert isinstance(second, GiveClaim) and second.node.name == "n1"
    table.claimed("n1", "b1", token)
    table.delete(KEYS.claim("n1", "b1"))
    table.put(KEYS.task("m:x"), encode(TaskRecord("sync")))
    assert not table.aggregator.limits.of_task and table.aggregator.nodes["n1"].outstanding["sync"] == 0


def test_a_late_verdict_does_not_concern_the_next_reservation_of_the_same_bundle() -> None:
    """Given out, handed back, and given to the same node again, before the first write's fate was known."""
    table = Table()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_concurrency=1)))
    table.member("n1", slots=2)
    token = table.job("b1")
    (first,) = table.decide()
    assert isinstance(first, GiveClaim)
    table.claimed("n1", "b1", token)
    doubt(table, first, until=table.revision + 3)
    table.delete(KEYS.claim("n1", "b1"))
    table.put(KEYS.job("q", 0, token.order, "b1"), encode(token))
    assert table.given() == [("b1", "n1")]
    table.job("b2")
    assert table.given() == []
    assert table.aggregator.nodes["n1"].outstanding["sync"] == 1


def test_a_limit_holds_across_nodes_and_bundles() -> None:
    table = Table()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_concurrency=3)))
    table.member("n1", slots=10)
    table.member("n2", slots=10)
    for number in range(10):
        table.job(f"b{number}")
    assert len(table.given()) == 3


def test_a_paused_queue_stands_still_and_goes_on() -> None:
    table = Table()
    table.member("n1")
    table.put(KEYS.queue("q"), encode(QueueRecord(paused=True)))
    table.job("b1")
    assert table.given() == []
    table.delete(KEYS.queue("q"))
    assert table.given() == [("b1", "n1")]


def test_garbage_is_quarantined_and_foreign_keys_are_left_alone() -> None:
    table = Table()
    table.member("n1")
    table.put(KEYS.job("q", 0, 1, "b1"), b"\xff garbage")
    table.put(KEYS.jobs + b"no/such/layout/at/all", b"x")
    commands = table.decide()
    assert [type(command) for command in commands] == [Quarantine]
    assert table.picture.strays()[0] == 2


def test_tokens_behind_the_window_wait_for_their_page() -> None:
    table = Table(is_open=False)
    table.picture.expect_page("q", 0)
    first = KEYS.job("q", 0, 1, "b1")
    token = Token("m:f", "q", 0, 1, 1, "sync", 0)
    table.picture.page("q", 0, [Record(first, encode(token), 5, 5, 1)], more=True)
    table.member("n1", slots=8)
    table.job("b9", order=9)
    table.picture.open()
    commands = table.decide()
    assert [command.item.bundle for command in commands if isinstance(command, GiveClaim)] == ["b1"]
    (load,) = [command for command in commands if isinstance(command, LoadPage)]
    assert load.after == first
    token = msgspec.structs.replace(token, order=9)
    table.picture.page("q", 0, [Record(KEYS.job("q", 0, 9, "b9"), encode(token), 12, 12, 1)], more=False)
    assert [bundle for bundle, _ in table.given()] == ["b9"]


def test_a_put_while_a_page_is_loading_is_not_lost() -> None:
    table = Table(is_open=False)
    table.picture.expect_page("q", 0)
    table.picture.open()
    table.member("n1", slots=8)
    table.job("b2", order=50)       # seen by the watch while the first page is on its way
    table.picture.page("q", 0, [], more=False)
    assert table.given() == [("b2", "n1")]


def serial(table: Table, **settings: bool) -> None:
    table.put(KEYS.queue("q"), encode(QueueRecord(serial=True, **settings)))


def test_a_serial_queue_runs_one_at_a_time_in_order() -> None:
    table = Table()
    serial(table)
    table.member("n1", slots=5)
    table.member("n2", slots=5)
    first, _ = table.job("b1"), table.job("b2")
    assert [bundle for bundle, _ in table.given()] == ["b1"]
    assert table.given() == []
    table.claimed("n1", "b1", first)
    assert table.given() == []
    table.ended("n1", "b1")
    assert [bundle for bundle, _ in table.given()] == ["b2"]


def test_the_head_of_a_serial_queue_blocks_whatever_its_state() -> None:
    table = Table()
    serial(table)
    table.member("n1", slots=5)
    table.job("b1", order=1, blocked=True)
    table.job("b2", order=2)
    assert table.given() == []
    table.job("b1", order=1, not_before=5_000)
    assert table.aggregator.decide(table.now, 4_000) == []
    assert table.aggregator.next_ms == 5_000
    (command,) = table.aggregator.decide(table.now, 5_000)
    assert isinstance(command, GiveClaim)
    assert command.item.bundle == "b1"


def test_a_serial_queue_waits_until_the_pieces_of_a_split_are_seen() -> None:
    table = Table()
    serial(table)
    table.member("n1", slots=5)
    table.job("b1", count=3, order=1)
    table.job("b2", order=2)
    (split,) = table.decide()
    assert isinstance(split, Split)
    assert split.size == 1
    table.aggregator.settle(
        split.item, None, applied=True, token_stale=False, doubtful_at=None, now=table.now,
        revision=table.revision + 1,
    )
    assert table.decide() == []
    table.job("b1.0", order=1)
    assert [bundle for bundle, _ in table.given()] == ["b1.0"]


def test_a_limit_per_key_counts_equal_keys_only() -> None:
    table = Table()
    table.put(KEYS.task("m:f"), encode(TaskRecord("sync", max_per_key=1)))
    table.member("n1", slots=10)
    table.job("b1", key="anna")
    table.job("b2", key="anna")
    table.job("b3", key="bert")
    assert sorted(bundle for bundle, _ in table.given()) == ["b1", "b3"]


def test_a_growing_backlog_is_not_kept_in_memory() -> None:
    """What came in while nobody could run it is known up to a limit; the rest is read again when its turn comes."""
    table = Table()
    number = WINDOW_MAX + PAGE_NEXT
    stored = {}
    for job in range(number):
        token = table.job(f"b{job:06d}")
        stored[KEYS.job("q", 0, token.order, f"b{job:06d}")] = Record(b"", encode(token), 1, table.revision, 1)
    window = table.aggregator.queues["q"].windows[0]
    assert window.size <= WINDOW_MAX
    table.member("n1", slots=number)
    given: list[str] = []
    while commands := table.decide():
        given += [command.item.bundle for command in commands if isinstance(command, GiveClaim)]
        for command in commands:
            if isinstance(command, LoadPage):
                page = sorted(key for key in stored if key > command.after)
                records = [msgspec.structs.replace(stored[key], key=key) for key in page[: command.limit]]
                table.picture.page("q", 0, records, more=len(page) > command.limit)
    assert given == [f"b{job:06d}" for job in range(number)]


def test_a_lane_that_is_empty_is_forgotten() -> None:
    """Each key of a limit has a lane, and keys are as many as customers."""
    table = Table()
    table.member("n1", slots=10)
    for customer in range(5):
        table.job(f"b{customer}", key=str(customer))
    assert len(table.given()) == 5
    assert not any(family.lanes for family in table.aggregator.queues["q"].families())


def test_a_serial_queue_whose_rate_is_used_up_holds_up_no_other_of_its_task() -> None:
    table = Table()
    table.put(KEYS.queue("slow"), encode(QueueRecord(serial=True, rate=Rate(1, 3600.0))))
    table.member("n1", slots=10)
    head = table.job("s0", queue="slow")
    table.job("s1", queue="slow")
    (reserve,) = table.decide()
    assert isinstance(reserve, Reserve)
    table.aggregator.reserved(reserve, table.revision + 1, applied=True)
    (command,) = [command for command in table.decide() if isinstance(command, GiveClaim)]
    table.settle(command)
    table.claimed("n1", "s0", head)
    table.ended("n1", "s0")
    assert table.given() == []
    table.job("q0")
    table.job("q1")
    assert sorted(bundle for bundle, _ in table.given()) == ["q0", "q1"]


@pytest.mark.parametrize("of", ["queue", "key"])
def test_a_raised_rate_holds_for_what_waits_already(of: str) -> None:
    """It was to be looked at in an hour."""
    def put(rate: Rate) -> None:
        if of == "queue":
            table.put(KEYS.queue("q"), encode(QueueRecord(rate=rate)))
        else:
            table.put(KEYS.task("m:f"), encode(TaskRecord("sync", rate_per_key=rate)))

    def give(wall_ms: int) -> int:
        jobs = 0
        while commands := table.aggregator.decide(table.now, wall_ms):
            for command in commands:
                if isinstance(command, Reserve):
                    table.aggregator.reserved(command, table.revision, applied=True)
                elif isinstance(command, GiveClaim):
                    table.settle(command, wall_ms=wall_ms)
                    jobs += 1
        return jobs

    table = Table()
    put(Rate(1, 3600.0))
    table.member("n1", slots=10)
    for number in range(5):
        table.job(f"b{number}", key="k")
    assert give(1_000) == 1 and give(2_000) == 0
    put(Rate(1, 1.0))
    assert give(2_001) == 0
    again = table.aggregator.next_ms
    assert again is not None and again <= 3_001
    assert give(again) == 1


def test_what_would_expire_is_not_remembered_when_it_is_gone() -> None:
    table = Table()
    stays = table.job("stays", expires=10**15)
    for number in range(3 * SWEEP_AT):
        token = table.job(f"b{number}", expires=10**15)
        table.delete(KEYS.job("q", 0, token.order, f"b{number}"))
    soonest = table.picture.expiries._soonest
    assert len(soonest) <= 2 * SWEEP_AT and (10**15, "q", 0, KEYS.job("q", 0, stays.order, "stays")) in soonest
