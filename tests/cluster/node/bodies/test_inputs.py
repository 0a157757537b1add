"""What a job is given of others."""

from __future__ import annotations

from rota.client.model import STEPS_BYTES_MAX
from rota.client.tasks.task import FUNCTION_BYTES_MAX
from rota.client.wire.codec import BODY_BYTES_MAX
from rota.cluster.node.bodies.inputs import BYTES_MAX
from rota.worker.channel.channel import FRAME_BYTES_MAX


def test_a_job_with_all_that_it_may_have_fits_into_the_frame_of_its_runner() -> None:
    assert 2 * (BYTES_MAX + BODY_BYTES_MAX + FUNCTION_BYTES_MAX + STEPS_BYTES_MAX) < FRAME_BYTES_MAX
