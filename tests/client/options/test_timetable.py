"""When schedules are due, above all where clocks are changed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.client.errors import InvalidJob
from rota.client.options.timetable import CATCH_UP_MAX, LATE_MS, Timetable, timetable

BERLIN = "Europe/Berlin"
DAY_MS = 86_400_000


def ms(text: str, zone: str = "UTC") -> int:
    """"2026-03-29 02:30" in a zone; "…+1" is the second of two equal wall times."""
    fold = text.endswith("+1")
    moment = datetime.fromisoformat(text.removesuffix("+1")).replace(tzinfo=ZoneInfo(zone), fold=int(fold))
    return round(moment.timestamp() * 1000)


def shown(moments: list[int], zone: str = "UTC") -> list[str]:
    return [f"{datetime.fromtimestamp(at / 1000, UTC).astimezone(ZoneInfo(zone)):%d %H:%M%z}" for at in moments]


def run(table: Timetable, start: int, count: int) -> list[int]:
    found: list[int] = []
    at: int | None = start
    while len(found) < count and (at := table.next_after(at)) is not None:
        found.append(at)
    return found


def test_an_interval_counts_from_its_start() -> None:
    table = timetable(every=timedelta(minutes=5), start_ms=1_000)
    assert table.next_after(0) == table.next_after(1_000) == 301_000
    assert table.next_after(300_999) == 301_000
    assert table.next_after(301_000) == 601_000
    assert table.last_until(300_999) is None
    assert table.last_until(301_000) == table.last_until(600_999) == 301_000


def test_cron_in_a_time_zone() -> None:
    table = timetable(cron="0 3 * * 1-5", tz=BERLIN)
    friday = ms("2026-11-27 02:59", BERLIN)
    assert shown(run(table, friday, 3), BERLIN) == ["27 03:00+0100", "30 03:00+0100", "01 03:00+0100"]
    assert table.next_after(ms("2026-11-27 03:00", BERLIN)) == ms("2026-11-30 03:00", BERLIN)
    assert table.last_until(ms("2026-11-27 03:00", BERLIN)) == ms("2026-11-27 03:00", BERLIN)
    assert table.last_until(ms("2026-11-27 03:00", BERLIN) - 1) == ms("2026-11-26 03:00", BERLIN)


def test_the_hour_that_is_left_out() -> None:
    """29 March 2026: 02:00 becomes 03:00. What falls between runs right after, as in cron; nothing is skipped."""
    table = timetable(cron="30 2 * * *", tz=BERLIN)
    found = run(table, ms("2026-03-28 00:00", BERLIN), 3)
    assert shown(found, BERLIN) == ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]


def test_the_hour_that_comes_twice() -> None:
    """25 October 2026: 03:00 becomes 02:00. What names an hour runs once, what runs every half hour goes on."""
    once = run(timetable(cron="30 2 * * *", tz=BERLIN), ms("2026-10-25 00:00", BERLIN), 2)
    assert [f"{at:%d}" for at in (datetime.fromtimestamp(at / 1000, ZoneInfo(BERLIN)) for at in once)] == ["25", "26"]
    always = run(timetable(cron="*/30 * * * *", tz=BERLIN), ms("2026-10-25 01:30", BERLIN), 5)
    assert {b - a for a, b in pairwise(always)} == {1_800_000}


TABLES = [
    timetable(cron="*/7 * * * *", tz=BERLIN), timetable(cron="30 2 * * *", tz=BERLIN),
    timetable(cron="0 0 L * *", tz="America/New_York"), timetable(cron="15 * * * 0", tz="Asia/Kolkata"),
    timetable(cron="0 3 * * *"), timetable(every=90), timetable(every=timedelta(days=1), start_ms=7),
]


@given(st.sampled_from(TABLES), st.integers(min_value=1_600_000_000_000, max_value=1_900_000_000_000))
def test_forward_and_backward_agree(table: Timetable, moment: int) -> None:
    """Exactly once hangs on it: the tick that is next must be the last one when its time has come."""
    after = table.next_after(moment)
    assert after is not None and after > moment
    assert table.last_until(after) == after
    before = table.last_until(after - 1)
    assert before is not None and before <= moment
    assert table.next_after(before) == after


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.explain())
def test_forward_and_backward_agree_over_a_change_of_the_clock(table: Timetable) -> None:
    for day in ("2026-03-28", "2026-10-24", "2026-11-01", "2026-03-07"):
        ticks = run(table, ms(f"{day} 00:00"), 300)
        for earlier, later in pairwise(ticks):
            assert earlier < later
            assert table.last_until(later - 1) == earlier and table.last_until(later) == later


def test_missed_ticks() -> None:
    table = timetable(every=60)
    now = 1_000 * 60_000 + 30_000
    assert table.due(now - 600_000, now, "latest") == [60_000_000]
    assert table.due(now - 180_000, now, "all") == [59_880_000, 59_940_000, 60_000_000]
    assert len(timetable(every=1).due(0, now, "all")) == CATCH_UP_MAX
    assert table.due(now - 600_000, now, "none") == [60_000_000]        # half a minute late: not missed
    daily = timetable(every=timedelta(days=1))
    assert daily.due(0, 3 * DAY_MS + LATE_MS, "none") == []
    assert daily.due(0, 3 * DAY_MS + LATE_MS - 1, "none") == [3 * DAY_MS]


def test_a_clock_set_back_fires_nothing_twice() -> None:
    table = timetable(every=60)
    fired = table.due(0, 600_000, "latest")[-1]
    assert fired == 600_000
    assert table.due(fired, 300_000, "all") == [] and table.due(fired, fired, "all") == []
    assert table.due(fired, 660_000, "all") == [660_000]


def test_a_long_pause_costs_little() -> None:
    begun = time.process_time()
    for catch_up in ("latest", "none"):
        timetable(cron="* * * * *", tz=BERLIN).due(0, 1_800_000_000_000, catch_up)
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize(("said", "words"), [
    ({"cron": "0 3 * * 1-5", "tz": BERLIN}, "At 03:00 on Monday through Friday (Europe/Berlin)"),
    ({"every": 300}, "Every 5 minutes"), ({"every": 1}, "Every second"), ({"every": 86_400}, "Every day"),
    ({"every": 1.5}, "Every 1.5 seconds"),
])
def test_in_words(said: dict[str, Any], words: str) -> None:
    assert timetable(**said).explain() == words


@pytest.mark.parametrize(("said", "message"), [
    ({}, "either cron"), ({"cron": "* * * * *", "every": 5}, "either cron"), ({"every": 0}, "every"),
    ({"every": 0.5}, "at least 1 s"), ({"every": float("nan")}, "every"), ({"every": 5, "tz": "UTC"}, "no time zone"),
    ({"cron": "0 3 * *"}, "five fields"), ({"cron": "61 * * * *"}, "five fields"), ({"cron": "0 0 31 2 *"}, "cron"),
    ({"cron": "* * * * *", "tz": "Mars/Base"}, "not a time zone"), ({"cron": "* * * * *", "tz": "../etc"}, "time zone"),
    ({"cron": "x" * 500}, "at most 200"), ({"cron": 5}, "five fields"),
])
def test_what_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        timetable(**said)
