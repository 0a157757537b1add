"""What node and runner say to each other. Both are of one release, so the form is free to change."""

from __future__ import annotations

import msgspec

from rota.client.model import Codec, Enqueue, Mode, Options, Outcome, QueueInfo, Receipt, ResultEntry, Step, TaskInfo
from rota.client.wire.frames import Refusal
from rota.client.wire.views import LogLine

EXIT_CHANNEL = 70
"""The exit status of a runner whose channel is gone or garbled."""

FUNCTIONS_MAX = 200
"""Functions shipped by value that a runner keeps. Its node sends one again when it has sent so many others."""


class Work(msgspec.Struct, gc=False, array_like=True):
    """One bundle, or a piece of one, on its way to a runner. `jobs` are (index, payload), in order."""

    key: int
    bundle: str
    task: str
    queue: str
    mode: Mode
    attempt: int
    fence: int
    enqueued_at: float
    codec: Codec
    jobs: list[tuple[int, bytes]]
    function: bytes | None = None
    options: Options = Options()
    report_start: bool = False
    expires_ms: int = 0         # since 1970: nothing of it begins after that; 0: whenever
    inputs: dict[str, list[ResultEntry]] = {}       # by bundle: what its jobs get of those they waited for
    flow: str = ""              # that they belong to
    takeovers: int = 0          # how many nodes were lost while they had it


class Run(msgspec.Struct, gc=False, array_like=True, tag=1):
    """Run these jobs. `function` is the number of a `Function` frame sent before, 0 for a task known by name. `spare`:
    they have places of their own, beside those that a runner of `async def` jobs has for others."""

    work: Work
    function: int = 0
    spare: bool = False


class Function(msgspec.Struct, gc=False, array_like=True, tag=2):
    """Code shipped by value; its tag has been checked by the node."""

    number: int
    blob: bytes


class Cancel(msgspec.Struct, gc=False, array_like=True, tag=3):
    """Cancel one job of an async runner, started or not."""

    key: int
    index: int


class Drop(msgspec.Struct, gc=False, array_like=True, tag=4):
    """The permits of all jobs that were not started have been taken back: forget them, answer `Dropped`."""


class Stop(msgspec.Struct, gc=False, array_like=True, tag=5):
    """Run the stop hooks and exit."""


class Report(msgspec.Struct, gc=False, array_like=True, tag=6):
    """A job has failed for good, and no runner has seen it: call the error hooks, and answer `Reported`."""

    number: int
    work: Work
    index: int
    error: str


class Ready(msgspec.Struct, gc=False, array_like=True, tag=1):
    """The app is imported, the start hooks have run."""

    tasks: list[TaskInfo]
    queues: list[QueueInfo] = []


class Broken(msgspec.Struct, gc=False, array_like=True, tag=2):
    """The app cannot be imported, or a start hook failed; the runner exits."""

    error: str
    traceback: str


class Done(msgspec.Struct, gc=False, array_like=True, tag=3):
    """Jobs that have ended: (the work's key, outcome)."""

    outcomes: list[tuple[int, Outcome]]


class Well(msgspec.Struct, gc=False, array_like=True, tag=11):
    """Jobs that have returned None, as most do: works' keys, and of each which jobs, and how long each ran. What
    `Done` says of them, for a third of what that costs both ends."""

    jobs: list[tuple[int, list[int], list[float]]]


class Started(msgspec.Struct, gc=False, array_like=True, tag=4):
    """Sent before the start of a job whose work asked for it."""

    key: int
    index: int


class Dropped(msgspec.Struct, gc=False, array_like=True, tag=5):
    """What was not started is forgotten."""


class Starved(msgspec.Struct, gc=False, array_like=True, tag=6):
    """A job has no permit. Unless the node has just taken it back, user code has meddled with the runner's files."""


class Touched(msgspec.Struct, gc=False, array_like=True, tag=7):
    """A job has restarted its clock."""

    key: int
    index: int


class Interrupted(msgspec.Struct, gc=False, array_like=True, tag=8):
    """An async job has been told to end: it was cancelled, or ran into its timeout. So its loop is alive."""

    key: int
    index: int


class Reported(msgspec.Struct, gc=False, array_like=True, tag=9):
    """The error hooks were called."""

    number: int


class ProgressUpdate(msgspec.Struct, gc=False, array_like=True, tag=10):
    """What a running job has said since the last time: how far it is (done, total, note, when), and log lines."""

    key: int
    index: int
    progress: tuple[float, float | None, str, float] | None = None
    lines: list[LogLine] = []
    keep: int = 0               # how many lines are kept
    dropped: int = 0            # lines before these that were not sent


class Ask(msgspec.Struct, gc=False, array_like=True, tag=1):
    """A job enqueues jobs: unsigned, the node signs."""

    call: int
    bundles: list[Enqueue]


class AskFunction(msgspec.Struct, gc=False, array_like=True, tag=2):
    """A job enqueues a function by value: unsigned, the node signs."""

    call: int
    digest: str
    code: bytes


class AskMode(msgspec.Struct, gc=False, array_like=True, tag=3):
    """A job wants to know how a task runs that it knows by name only."""

    call: int
    task: str


class AskSteps(msgspec.Struct, gc=False, array_like=True, tag=4):
    """A job wants to know what it remembers."""

    call: int
    key: int
    index: int


class AskRemember(msgspec.Struct, gc=False, array_like=True, tag=5):
    """A job shall remember this: unsigned, the node signs."""

    call: int
    key: int
    index: int
    step: Step


class Answer(msgspec.Struct, gc=False, array_like=True):
    """About one bundle: one of the two."""

    receipt: Receipt | None = None
    refusal: Refusal | None = None


class Stored(msgspec.Struct, gc=False, array_like=True, tag=1):
    """The answers to `Ask`, in its order."""

    call: int
    answers: list[Answer]


class Acknowledged(msgspec.Struct, gc=False, array_like=True, tag=2):
    """The answer to `AskFunction` and `AskMode`."""

    call: int
    mode: Mode | None = None
    refusal: Refusal | None = None


class StopAsked(msgspec.Struct, gc=False, array_like=True, tag=3):
    """Unasked, to a runner of plain functions: somebody wants the job that it runs to stop, and it will be killed if it
    does not."""

    key: int
    index: int


class Remembered(msgspec.Struct, gc=False, array_like=True, tag=4):
    """The answer to `AskSteps`. `serial`: it is a job of a serial queue."""

    call: int
    steps: list[Step] = []
    serial: bool = False
    refusal: Refusal | None = None


ToRunner = Run | Function | Cancel | Drop | Stop | Report
FromRunner = (
    Ready | Broken | Done | Well | Started | Dropped | Starved | Touched | Interrupted | Reported | ProgressUpdate
)

# On a socket of their own, so that a runner that is busy, or waits for the answer, need not read them:
Question = Ask | AskFunction | AskMode | AskSteps | AskRemember
Reply = Stored | Acknowledged | Remembered
ToAsker = Reply | StopAsked
