"""Names of bundles and jobs."""

from __future__ import annotations

import re
import shlex
from urllib.parse import quote

import pytest

from rota.client.ids import Names, job_id, job_ids, parse_job_id

BUNDLE = "k3f9q2m7xa5t-0000001f"


def test_an_id_is_one_word_to_a_double_click_a_shell_and_a_url() -> None:
    for index in (0, 7, 59):
        written = job_id(Names().next(), index)
        assert re.fullmatch(r"\w+", written, re.ASCII)
        assert shlex.quote(written) == quote(written, safe="") == written


@pytest.mark.parametrize("bundle", [BUNDLE, f"{BUNDLE}.3"])         # a piece's jobs are its bundle's
def test_what_is_written_is_read(bundle: str) -> None:
    assert job_id(bundle, 59) == "k3f9q2m7xa5t_0000001f_59"
    assert parse_job_id(job_id(bundle, 59)) == (BUNDLE, 59)


@pytest.mark.parametrize("written", [
    "k3f9q2m7xa5t-0000001f/0", "k3f9q2m7xa5t_0000001f", "k3f9q2m7xa5t-0000001f", "k3f9q2m7xa5t-0000001f-0",
])
def test_ids_of_before_and_bundles_are_read(written: str) -> None:
    assert parse_job_id(written) == (BUNDLE, 0)


@pytest.mark.parametrize("text", [
    "", "x", "k3f9q2m7xa5t", "k3f9q2m7xa5t_0000001f_", "k3f9q2m7xa5t_0000001f_1000", "k3f9q2m7xa5t_0000001g_0",
    "k3f9q2m7xa5t_0000001f_0\n", " k3f9q2m7xa5t_0000001f_0", "k3f9q2m7xa5t_0000001f_0/0", "../x", "k" * 10_000,
])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid job id; one looks like k3f9q2m7xa5t_0000001f_0") as refused:
        parse_job_id(text)
    assert len(str(refused.value)) < 200


def test_the_ids_of_a_bundles_jobs_are_those_of_each() -> None:
    for bundle in ("k3f9q2m7xa5t-0000001f", "k3f9q2m7xa5t-0000001f.4"):
        assert job_ids(bundle, 3) == [job_id(bundle, index) for index in range(3)]
    assert job_ids("k3f9q2m7xa5t-0000001f", 0) == []
