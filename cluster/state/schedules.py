"""What lies in the store of a schedule, and the job that one tick of it makes. Pure.

The record (public) says when and where to; the template (private) is a signed body with the arguments. A tick's bundle
is named by schedule and tick, so whoever fires it, and however often it is tried, it is one and the same job.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from rota.client.errors import InvalidJob
from rota.client.ids import template_id
from rota.client.model import HEADER_SCHEMA, Mode, Text
from rota.client.options.timetable import CatchUp, Overlap, Timetable, timetable
from rota.client.wire.keyring import Seal

from .keys import ORDER_MAX, is_name
from .records import Number, Place, Priority, Schema, Token, Weight, decode, schema

PENDING_MAX = 100
"""Ticks that wait for the job before them, where `overlap` is "queue"; more are dropped."""

Bundle: TypeAlias = Annotated[str, Meta(max_length=64)]


class ScheduleRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Moments are ms since 1970. `tick` is the newest one that was decided (fired, skipped or dropped): what is due is
    later. `pending` are ticks that are due and wait for the job before them, oldest first."""

    task: Text
    queue: Text
    mode: Mode
    timetable: Timetable
    created: Place
    tick: Place
    priority: Priority = 0
    jitter_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    catch_up: CatchUp = "latest"
    overlap: Overlap = "allow"
    paused: bool = False
    declared: bool = False      # by code: `@rota.task(cron=…)`
    last: Bundle = ""           # the bundle of the tick that was fired last
    last_tick: Place = 0
    fired: Number = 0
    skipped: Number = 0         # ticks that found the job before them still there, or were dropped
    pending: Annotated[tuple[Place, ...], Meta(max_length=PENDING_MAX)] = ()
    python: Text = ""
    function: Text = ""
    signed: Text | None = None  # as in a token
    weight: Weight = 1          # as its task says, or said when the schedule was put
    v: Schema = msgspec.field(default_factory=schema)


def schedule_in(value: bytes) -> ScheduleRecord | None:
    """None for bytes that are no schedule, or one that no clock can follow."""
    record = decode(ScheduleRecord, value)
    if record is None or not is_name(record.queue):
        return None
    times = record.timetable
    try:
        if times.every_s:
            checked = timetable(every=times.every_s, start_ms=times.start_ms)
        else:
            checked = timetable(cron=times.cron, tz=times.tz)
    except InvalidJob:
        return None
    return record if checked == times and 0 <= times.start_ms <= ORDER_MAX else None


def check_template(seal: Seal, schedule: str, record: ScheduleRecord, template: bytes) -> None:
    """Raise `InvalidJob` or `SignatureRefused` if the template is not this schedule's."""
    header, payloads = seal.keyring.verify(template, seal.cluster)
    signed = (header.bundle, header.task, header.queue, header.mode, header.python, header.function)
    wanted = (template_id(schedule), record.task, record.queue, record.mode, record.python, record.function)
    if signed != wanted or len(payloads) != 1 or (header.v > 1 and header.priority != record.priority):
        raise InvalidJob(f"the template of schedule {schedule} is that of something else")


def job_of(seal: Seal, record: ScheduleRecord, template: bytes, bundle: str, at_ms: int, order: int) -> tuple[
    Token, bytes
]:
    """The token and the signed body of one tick's job, from a checked template."""
    header, payloads = seal.keyring.verify(template, seal.cluster)
    head = replace(
        header, bundle=bundle, enqueued_at=at_ms / 1000, key_id="", tags=b"", priority=record.priority, v=HEADER_SCHEMA
    )
    body = seal.body(head, payloads)
    token = Token(
        record.task, record.queue, record.priority, order, 1, record.mode, at_ms, python=record.python,
        function=record.function, signed=seal.keyring.mark(seal.keyring.newest) if seal.keyring else "",
        weight=record.weight,
    )
    return token, body


def jitter_ms(schedule: str, tick_ms: int, jitter_s: float) -> int:
    """How much later than its tick a job is due: the same for who asks again."""
    if not jitter_s:
        return 0
    digest = hashlib.blake2b(f"{schedule}\0{tick_ms}".encode(), digest_size=8).digest()
    return int(int.from_bytes(digest) / 2**64 * jitter_s * 1000)


