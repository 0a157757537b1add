"""`rota.Depends`: what a job needs and nobody enqueues (an engine, a client, a session), made in its runner.

    def engine() -> Iterator[Engine]:
        made = create_engine(URL)
        yield made
        made.dispose()

    @rota.task
    def charge(order: int, *, db: Engine = rota.Depends(engine)) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Literal, TypeVar, overload

from ..errors import ConfigError, NotInJob

T = TypeVar("T")

Scope = Literal["runner", "job"]

DEPTH_MAX = 20


class Dependency:
    """A default that a runner replaces. `needs`: what its factory depends on in turn, by parameter."""

    __slots__ = ("factory", "needs", "scope")

    def __init__(self, factory: Callable[..., Any], scope: Scope) -> None:
        self.factory = factory
        self.scope: Scope = scope
        self.needs = _needs_of(self)

    @property
    def name(self) -> str:
        return getattr(self.factory, "__qualname__", repr(self.factory))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self.__slots__:
            raise AttributeError(name)
        raise NotInJob(
            f"this is rota.Depends({self.name}): a runner puts what it makes in its place. Where you call the function "
            "yourself, give that argument"
        )

    def __repr__(self) -> str:
        return f"rota.Depends({self.name})"


@overload
def Depends(factory: Callable[..., AsyncIterator[T]], *, scope: Scope = "runner") -> T: ...
@overload
def Depends(factory: Callable[..., Iterator[T]], *, scope: Scope = "runner") -> T: ...
@overload
def Depends(factory: Callable[..., Awaitable[T]], *, scope: Scope = "runner") -> T: ...
@overload
def Depends(factory: Callable[..., T], *, scope: Scope = "runner") -> T: ...
def Depends(factory: Callable[..., Any], *, scope: Scope = "runner") -> Any:
    """The default of a parameter that nobody enqueues: the runner gives what `factory` makes.

    Args:
        factory: a function, plain or `async def`, that returns the resource, or a generator that yields it once: what
            comes after its `yield` takes it down. Its own parameters have defaults, `rota.Depends` among them.
        scope: "runner": made when a job first needs it, kept for all jobs of that process, taken down when the process
            ends in good order. "job": made for each job, taken down after it, and a generator sees the job's exception.

    If it cannot be made, the job fails with that exception, and is tried again as its task says.

    Raises:
        ConfigError: the factory cannot be called without arguments; or what lives as long as the runner depends on what
            lives as long as a job.
    """
    if scope not in ("runner", "job"):
        raise ConfigError(f'rota.Depends(scope={scope!r:.40}): "runner" or "job"')
    if not callable(factory):
        raise ConfigError(f"rota.Depends({factory!r:.80}): a function that makes the resource is needed")
    return Dependency(factory, scope)


def without_injected(signature: inspect.Signature) -> inspect.Signature:
    """What callers give. Raises `ConfigError` where an argument of theirs could land in an injected parameter."""
    parameters = list(signature.parameters.values())
    given = [one for one in parameters if not isinstance(one.default, Dependency)]
    if len(given) == len(parameters):
        return signature
    injected = False
    for one in parameters:
        positional = one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)
        if isinstance(one.default, Dependency):
            if one.kind is one.POSITIONAL_ONLY:
                raise ConfigError(f"parameter {one.name}: rota.Depends does not go with / (give it by name)")
            injected = injected or positional
        elif injected and positional:
            raise ConfigError(
                f"parameter {one.name} comes after one with rota.Depends: put those last, or behind a * of their own"
            )
    return signature.replace(parameters=given)


def injected_of(function: Callable[..., Any]) -> dict[str, Dependency]:
    """The parameters that a runner fills, by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {one.name: one.default for one in parameters if isinstance(one.default, Dependency)}


def _needs_of(dependency: Dependency) -> dict[str, Dependency]:
    try:
        signature = inspect.signature(dependency.factory)
    except (TypeError, ValueError):     # some built-in functions have none
        return {}
    needs = {}
    for one in signature.parameters.values():
        if isinstance(one.default, Dependency):
            needs[one.name] = one.default
            if dependency.scope == "runner" and one.default.scope == "job":
                raise ConfigError(
                    f"{dependency.name} is made once per runner, and {one.default.name}, which it depends on, for each "
                    'job: say scope="job" for both'
                )
        elif one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise ConfigError(
                f"rota.Depends({dependency.name}): nobody gives its parameter {one.name}; a default, or rota.Depends, "
                "does"
            )
    return needs
