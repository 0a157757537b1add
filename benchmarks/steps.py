"""Which step of a job's way a stack belongs to. Pure.

A stack is a list of frames, the outermost first, as py-spy writes them: `function (file:line)`. From the innermost
frame outwards, the first frame that a row of the table knows decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    step: str
    file: str           # how the file's name ends; "" for any
    function: str = ""  # a regular expression for the whole name; "" for any


VERIFYING = (
    r"Keyring.verify|of_jobs|of_bundle|_job_facts|split_(body|whole).*|picked|_?decode(_header)?|_fault_of.*|"
    r".*_refuse_unknown"
)
SIGNING = r".*sign_results|of_results|of_entries|_entry_facts|encode_results"

NODE: tuple[Row, ...] = (
    Row("signatures: verify jobs", "client/wire/codec.py", VERIFYING),
    Row("signatures: verify jobs", "client/wire/keyring.py", VERIFYING),
    Row("signatures: verify jobs", "client/wire/tags.py", VERIFYING),
    Row("signatures: sign results", "client/wire/tags.py"),
    Row("signatures: sign results", "client/wire/keyring.py"),
    Row("signatures: sign results", "client/wire/codec.py", SIGNING),
    Row("receipt digest", "client/wire/codec.py", r"enqueue_digest"),
    Row("codec, other", "client/wire/codec.py"),
    Row("etcd: build requests", "ledger/messages.py", r".*(txn_request|_add_conditions|_add_ops)"),
    Row("etcd: read answers and events", "ledger/messages.py"),
    Row("etcd: watches", "ledger/watching.py"),
    Row("etcd: watches", "ledger/follow.py"),
    Row("etcd: HTTP/2", "cluster/ledger/http2/"),
    Row("etcd: calls", "ledger/endpoints.py"),
    Row("etcd: calls", "ledger/etcd.py"),
    Row("etcd: calls", "ledger/channels.py"),
    Row("etcd: gRPC loop", "grpc/aio/", r".*"),
    Row("etcd: gRPC loop", "", r".*(cygrpc|_poll_wrapper|PollerCompletionQueue|grpc).*"),
    Row("group commit", "ledger/commits.py"),
    Row("enqueue: take in", "cluster/node/intake/"),
    Row("enqueue: take in", "cluster/state/moves/entering.py"),
    Row("enqueue: take in", "cluster/state/directory.py"),
    Row("enqueue: take in", "cluster/node/running/volatile.py"),
    Row("enqueue: take in", "cluster/ledger/buckets.py"),
    Row("WebSocket and frames", "cluster/port/websocket.py"),
    Row("WebSocket and frames", "client/wire/frames.py"),
    Row("WebSocket and frames", "aiohttp/"),
    Row("WebSocket and frames", "cluster/port/http.py"),
    Row("push results", "cluster/node/outcomes/followers.py"),
    Row("master: decide", "cluster/master/dispatch/aggregator.py"),
    Row("master: decide", "cluster/master/dispatch/claims.py"),
    Row("master: decide", "cluster/master/dispatch/lanes.py"),
    Row("master: decide", "cluster/master/dispatch/limits.py"),
    Row("master: decide", "cluster/master/dispatch/members.py"),
    Row("master: decide", "cluster/master/dispatch/paces.py"),
    Row("master: decide", "cluster/master/dispatch/placement.py"),
    Row("master: decide", "cluster/master/dispatch/queues.py"),
    Row("master: decide", "cluster/master/dispatch/spares.py"),
    Row("master: decide", "cluster/master/dispatch/turns.py"),
    Row("master: decide", "cluster/master/dispatch/"),
    Row("master: decide", "cluster/state/throughput.py", r".*in_a_slice"),
    Row("master: carry out", "cluster/master/term.py"),
    Row("master: carry out", "cluster/master/carrying_out.py"),
    Row("master: carry out", "cluster/state/moves/waiting.py"),
    Row("master: scheduler", "cluster/master/duties/scheduler.py"),
    Row("master: scheduler", "cluster/master/duties/schedules.py"),
    Row("master: scheduler", "cluster/master/duties/due.py"),
    Row("executor", "cluster/node/running/executor.py"),
    Row("executor", "cluster/node/running/running.py"),
    Row("executor", "cluster/node/claims/table.py"),
    Row("executor", "cluster/node/claims/held.py"),
    Row("executor", "cluster/node/claims/slow.py"),
    Row("executor", "cluster/node/bodies/cache.py"),
    Row("executor", "cluster/node/claims/cancels.py"),
    Row("executor", "cluster/node/running/refusals.py"),
    Row("executor", "cluster/node/claims/suspects.py"),
    Row("executor", "cluster/recent.py"),
    Row("executor", "cluster/node/bodies/loading.py"),
    Row("executor", "cluster/node/running/handback.py"),
    Row("executor", "cluster/state/throughput.py"),
    Row("outcomes to writes", "cluster/node/outcomes/reporter.py"),
    Row("outcomes to writes", "cluster/node/outcomes/settle.py"),
    Row("outcomes to writes", "cluster/state/moves/claimed.py"),
    Row("outcomes to writes", "cluster/state/moves/ended.py"),
    Row("outcomes to writes", "cluster/state/moves/failed.py"),
    Row("runners: queue and handles", "worker/pool/runners.py"),
    Row("runners: queue and handles", "worker/pool/runner_handle.py"),
    Row("runners: queue and handles", "worker/pool/ready.py"),
    Row("runners: queue and handles", "worker/pool/time_limits.py"),
    Row("runners: queue and handles", "worker/pool/spares.py"),
    Row("runners: queue and handles", "worker/pool/staff.py"),
    Row("runners: queue and handles", "worker/pool/wear.py"),
    Row("runners: channel", "worker/channel/channel.py"),
    Row("runners: channel", "worker/channel/frames.py"),
    Row("runners: channel", "worker/guard/guardlink.py"),
    Row("runners: permits", "worker/channel/start_permits.py"),
    Row("records and keys", "cluster/state/records.py"),
    Row("records and keys", "cluster/state/keys.py"),
    Row("membership", "cluster/node/membership/membership.py"),
    Row("status", "cluster/admin/status.py"),
)

RUNNER: tuple[Row, ...] = (
    Row("unpickle arguments, pickle result", "client/wire/codec.py"),
    Row("run a job", "worker/runner/execution.py"),
    Row("permits", "worker/channel/start_permits.py"),
    Row("channel", "worker/channel/channel.py"),
    Row("channel", "worker/channel/frames.py"),
    Row("the job itself", "benchmarks/jobs.py"),
    Row("async runner", "worker/runner/async_runner.py"),
    Row("async runner", "worker/runner/carriers.py"),
    Row("sync runner", "worker/runner/sync_runner.py"),
    Row("context", "worker/runner/context.py"),
)

CLIENT: tuple[Row, ...] = (
    Row("pickle arguments", "client/calls/pickling.py", r".*dump_arguments"),
    Row("sign", "client/wire/keyring.py"),
    Row("sign", "client/wire/tags.py"),
    Row("encode body", "client/wire/codec.py"),
    Row("make bundles", "client/api/bulk.py"),
    Row("make bundles", "client/api/coalesce.py"),
    Row("make bundles", "client/calls/order.py"),
    Row("make bundles", "client/tasks/task.py"),
    Row("frames and WebSocket", "client/wire/frames.py"),
    Row("frames and WebSocket", "client/transports/link.py"),
    Row("frames and WebSocket", "aiohttp/"),
    Row("results", "client/api/results.py"),
    Row("results", "client/transports/following.py"),
    Row("connection", "client/transports/connection.py"),
    Row("connection", "client/transports/links.py"),
    Row("engine", "client/api/engine.py"),
    Row("handles", "client/calls/handle.py"),
    Row("the caller (benchmark)", "benchmarks/"),
    Row("api", "client/"),
)

TABLES = {"node": NODE, "runner": RUNNER, "client": CLIENT}
FRAME = re.compile(r"(.*) \((.*?)(?::\d+)?\)$")


def frames(line: str) -> tuple[list[tuple[str, str]], int]:
    """(function, file) of each frame of one line of py-spy's raw output, outermost first; and how often it was seen."""
    text, _, number = line.rpartition(" ")
    found = []
    for part in text.split(";"):
        match = FRAME.match(part)
        found.append((match[1], match[2]) if match else (part, ""))
    return found, int(number)


def step_of(stack: Sequence[tuple[str, str]], table: Iterable[Row]) -> str:
    rows = list(table)
    for function, file in reversed(stack):
        for row in rows:
            if row.file in file and (not row.function or re.fullmatch(row.function, function)):
                return row.step
    return "event loop and the rest"
