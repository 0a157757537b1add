"""What a task is: a function, declared; its name, its queue, what it needs."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Payloads that were stored when this folder was one module name tasks as `rota.client.tasks._find`."""
    if name.startswith("__"):
        raise AttributeError(name)
    from . import task

    return getattr(task, name)
