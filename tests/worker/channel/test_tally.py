"""What a runner notes is read once, in order, also where the memory begins anew; and nothing else can get there."""

from __future__ import annotations

import mmap
import os

import pytest

from rota.worker.channel.tally import BYTES, PLACES, Tally, TallyReader
from rota.worker.guard import tally as guards


def test_what_is_noted_is_read_once_and_in_order() -> None:
    memory = guards.new_tally()
    reader, tally = TallyReader(guards.only_read(memory)), Tally(os.dup(memory))
    assert reader.new() == ([], [])
    noted = read = 0
    for count in (1, 3, PLACES - 5, 2, PLACES, PLACES):
        for _ in range(count):
            tally.note(noted, noted / 2)
            noted += 1
        numbers, ran = reader.new()
        assert numbers == list(range(read, noted)) and ran == [number / 2 for number in numbers]
        reader.taken(count - 1)
        assert reader.new() == ([noted - 1], [(noted - 1) / 2])
        reader.taken(1)
        assert reader.new() == ([], [])
        read = noted
    os.close(memory)


def test_its_memory_is_what_the_guard_makes_and_a_file_it_is_not() -> None:
    memory = guards.new_tally()
    Tally(os.dup(memory)).note(1, 0.5)
    assert os.fstat(memory).st_size == BYTES == guards.BYTES
    for harm in (
        lambda: os.ftruncate(memory, 8), lambda: os.write(memory, b"garbage!"), lambda: os.ftruncate(memory, BYTES + 8),
    ):
        with pytest.raises(OSError, match="not permitted"):
            harm()
    os.close(memory)


def test_a_count_that_no_runner_makes_is_noticed() -> None:
    memory = guards.new_tally()
    reader = TallyReader(guards.only_read(memory))
    with mmap.mmap(memory, BYTES) as written:
        written[:8] = b"garbage!"
        with pytest.raises(ValueError, match="a count that no runner makes"):
            reader.new()
    os.close(memory)
