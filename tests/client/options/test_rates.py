"""Rates as people say them."""

from __future__ import annotations

import pytest

import rota
from rota.client.model import Rate
from rota.client.options import rates


@pytest.mark.parametrize(("said", "made", "words"), [
    ("100/minute", Rate(100, 60.0), "100/m"), ("1/second", Rate(1, 1.0), "1/s"), ("5 / 10s", Rate(5, 10.0), "5/10s"),
    ("1000/hour, burst 50", Rate(1000, 3600.0, 50), "1000/h, burst 50"), ("2/days", Rate(2, 86_400.0), "2/d"),
    ("3/90s", Rate(3, 90.0), "3/90s"), ("7/120s", Rate(7, 120.0), "7/2m"),
    ("1000/s", Rate(1000, 1.0, 100), "1000/s"), ("1000/s, burst 1", Rate(1000, 1.0, 1), "1000/s, burst 1"),
    ("19/s", Rate(19, 1.0, 1), "19/s"), ("600/10s, burst 6", Rate(600, 10.0, 6), "600/10s"),
])
def test_words(said: str, made: Rate, words: str) -> None:
    assert rates.rate(said, "rate") == made
    assert rates.words(made) == words and rates.rate(words, "rate") == made


@pytest.mark.parametrize("said", [
    "", "100", "0/s", "1/fortnight", "-1/s", "1/s, burst 0", "1/0s", "1/100d", 5, "1/s burst 2",
])
def test_what_is_none_is_refused(said: str) -> None:
    with pytest.raises(rota.InvalidJob, match=r'write "100/minute"|1 to 1,000,000'):
        rates.rate(said, "rate")


def test_a_key_goes_with_what_counts_it() -> None:
    with pytest.raises(rota.ConfigError, match="key goes with"):
        rota.task(name="m:f", rate_per_key="1/s")(lambda host: None)
    with pytest.raises(rota.ConfigError, match="stored durably"):
        rota.task(name="m:f", rate="1/s", level="none")(lambda host: None)
