"""Every error of rota's reaches another process as it is: out of a process pool, out of multiprocessing."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cloudpickle
import pytest
from grpc import StatusCode

import rota
from rota.client import errors
from rota.client.errors import RotaError
from rota.client.wire import frames as wire

MADE: dict[str, tuple[Any, ...]] = {
    "Compacted": (7,),
    "EnqueueUnknown": ("k3f9q2m7xa5t-0000001f",),
    "FlowStuck": ("k3f9q2m7xa5t", ["k3f9q2m7xa5t_0000001f_0"], 3),
    "JobCancelled": ("it was", "k3f9q2m7xa5t_0000001f_0"),
    "JobFailed": ("k3f9q2m7xa5t_0000001f_0", "ValueError: no", "Traceback …", 3),
    "JobExists": ("one like it is there", "k3f9q2m7xa5t_0000001f_0"),
    "JobTooLarge": (300_000, 262_144, "its result"),
    "JobUnknown": ("no trace", "k3f9q2m7xa5t_0000001f_0"),
    "Overloaded": ("come back", 5.0),
    "PartlyEnqueued": (["k3f9q2m7xa5t_0000001f_0"], ValueError("the third")),
    "PeerError": (1, "a push"),
    "ResultInvalid": ("forged", "k3f9q2m7xa5t_0000001f_0"),
    "ResultTimeout": ("too late", "k3f9q2m7xa5t_0000001f_0"),
    "Retry": ("again",),
    "RpcFailed": (StatusCode.UNAVAILABLE, "no"),
    "SignatureRefused": ("unsigned", "k1"),
    "Snooze": (30,),
    "Suspended": ("sleep", "until noon"),
}
"""Arguments of those that take more than a text."""


def every_class() -> Iterator[type[BaseException]]:
    """All exceptions that rota's modules define, in the tree of errors or not."""
    rooms = [importlib.import_module(f"rota.{room}") for room in ("client", "worker", "cluster")]
    for module in (found for room in rooms for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")):
        if module.name.startswith(("rota.client.face", "rota.cluster.demo.")) or module.name.endswith("__main__"):
            continue        # that is `rota` itself; declares tasks; is a command
        for found in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(found) and issubclass(found, BaseException) and found.__module__ == module.name:
                yield found


EVERY = sorted({kind.__name__: kind for kind in every_class()}.items())


def same(a: BaseException, b: BaseException) -> bool:
    def facts(error: BaseException) -> Any:
        named = {name: repr(value) for name, value in vars(error).items()}
        return type(error), str(error), error.args, named

    return facts(a) == facts(b)


def test_the_walk_finds_the_tree() -> None:
    names = {name for name, _ in EVERY}
    assert {"RotaError", "JobFailed", "LedgerError", "Retry", "Snooze", "Cancelled", "LinkLost"} <= names
    assert MADE.keys() <= names and len(names) > 35
    assert {kind.__name__ for kind in wire._KINDS.values()} <= names


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_every_error_pickles(name: str, kind: type[BaseException]) -> None:
    error = kind(*MADE.get(name, ("what went wrong",)))
    error.add_note("call 3 of enqueue_many")
    for copied in (
        *(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),     # noqa: S301
        pickle.loads(cloudpickle.dumps(error)), copy.copy(error), copy.deepcopy(error),     # noqa: S301
    ):
        assert same(copied, error) and copied is not error
    if isinstance(error, RotaError) and not isinstance(error, errors.LedgerError) and name in wire._KINDS:
        arrived = wire.error_of(wire.refusal(error))
        assert same(pickle.loads(pickle.dumps(arrived)), arrived)       # noqa: S301


class Picky(Exception):
    """One of a user's, as many are: it can be pickled, and not be rebuilt."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = multiprocessing.get_context("fork").RLock()


@pytest.mark.parametrize("cause", [Picky(3, "no"), Locked()])
def test_a_cause_of_somebody_elses_goes_as_text_if_it_must(cause: Exception) -> None:
    error = rota.PartlyEnqueued(["k3f9q2m7xa5t_0000001f_0"], cause)
    copied = pickle.loads(pickle.dumps(error))      # noqa: S301
    assert str(copied) == str(error) and copied.job_ids == error.job_ids
    assert str(copied.cause) == f"{type(cause).__name__}: {cause}"


def raise_one(name: str) -> None:
    raise dict(EVERY)[name](*MADE[name])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")       # other tests have left threads
def test_they_leave_a_process_pool() -> None:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as executor, context.Pool(1) as pool:
        for name in ("JobFailed", "PartlyEnqueued", "JobTooLarge", "Snooze", "ResultTimeout"):
            for run in (lambda n: executor.submit(raise_one, n).result(60), lambda n: pool.apply(raise_one, (n,))):
                with pytest.raises(dict(EVERY)[name]) as caught:
                    run(name)
                assert str(caught.value) == str(dict(EVERY)[name](*MADE[name]))
