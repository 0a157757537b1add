"""What the buttons do. Each is one form; each says in a sentence what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from rota.client.api.flows import normal_id
from rota.client.errors import InvalidJob
from rota.client.ids import normal
from rota.client.options.checks import queue_name
from rota.client.wire.views import FailedFilter, OperationView

from ..port.service import NodeService

WAIT_S = 2.0
DONE = {"retry": "retried", "delete": "deleted"}


class Actions:
    def __init__(self, service: NodeService) -> None:
        self._service = service
        self._known: dict[str, Callable[[Any], Awaitable[str]]] = {
            "queue": self._queue, "head": self._head, "job": self._job, "failed": self._failed,
            "schedule": self._schedule, "flow": self._flow, "settings": self._settings,
        }

    async def do(self, what: str, form: Any) -> str:
        """`form`: what was sent. Raises `RotaError`, which says why not."""
        action = self._known.get(what)
        if action is None:
            raise InvalidJob("there is no such form")
        return await action(form)

    async def _queue(self, form: Any) -> str:
        queue, verb = queue_name(_text(form, "queue")), _one_of(form, "verb", "pause", "resume")
        await self._service.set_queue(queue, {"paused": verb == "pause"})
        return f"Queue {queue} is paused." if verb == "pause" else f"Queue {queue} goes on."

    async def _settings(self, form: Any) -> str:
        queue = queue_name(_text(form, "queue"))
        most = _text(form, "max_concurrency").strip()
        if most and not (most.isascii() and most.isdigit()):
            raise InvalidJob(f"At most {most[:40]!r} at a time: a number, or nothing for no limit.")
        await self._service.set_queue(queue, {
            "paused": _text(form, "paused") == "on", "serial": _text(form, "serial") == "on",
            "max_concurrency": int(most[:18]) if most else None, "rate": _text(form, "rate").strip() or None,
        })
        return f"Queue {queue} is set."

    async def _head(self, form: Any) -> str:
        queue, verb = queue_name(_text(form, "queue")), _one_of(form, "verb", "retry", "skip")
        job = await self._service.queue_head(queue, verb)
        return f"Job {job}, the head of queue {queue}, is {'tried again' if verb == 'retry' else 'skipped'}."

    async def _job(self, form: Any) -> str:
        job, verb = _text(form, "id"), _one_of(form, "verb", "cancel", "retry", "delete")
        if verb != "cancel":
            return await self._begun("retry" if verb == "retry" else "delete", FailedFilter(ids=[job]))
        outcome = await self._service.cancel(job)
        return {
            "cancelled": f"Job {job} is cancelled.",
            "requested": f"The node that has job {job} is asked to stop it.",
        }.get(outcome, f"Job {job} had ended already.")

    async def _failed(self, form: Any) -> str:
        verb = _one_of(form, "verb", "retry", "delete", "retry-all", "delete-all")
        deed: Literal["retry", "delete"] = "retry" if verb.startswith("retry") else "delete"
        if not verb.endswith("-all"):
            ids = [str(job) for job in form.getall("id", [])]
            if not ids:
                raise InvalidJob("No job is chosen: tick some, or say all.")
            return await self._begun(deed, FailedFilter(ids=ids))
        queue, task = normal(_text(form, "queue")), normal(_text(form, "task"))
        error = _text(form, "error")
        return await self._begun(deed, FailedFilter(
            queue=queue, task=task, error=error, all=not (queue or task or error)
        ))

    async def _begun(self, verb: Literal["retry", "delete"], which: FailedFilter) -> str:
        name = await self._service.begin(verb, which)
        view = await self._service.operation(name, WAIT_S)
        if view.state == "refused":
            raise InvalidJob(view.why)
        return _described(view)

    async def _flow(self, form: Any) -> str:
        flow, verb = normal_id(_text(form, "id")), _one_of(form, "verb", "retry", "cancel")
        if verb == "retry":
            count = (await self._service.flow_deeds.retry(flow)).done
            return f"{count:,} {'job is' if count == 1 else 'jobs are'} tried again."
        done = await self._service.flow_deeds.cancel(flow)
        text = f"{done.done:,} jobs are cancelled, {done.asked:,} are asked to stop."
        return text if not done.left else f"{text} {done.left:,} are left: once more."

    async def _schedule(self, form: Any) -> str:
        name, verb = _text(form, "name"), _one_of(form, "verb", "run", "pause", "resume", "delete")
        schedules = self._service.schedules
        if verb == "run":
            return f"Schedule {name}: job {await schedules.run_now(name)} is enqueued."
        if verb == "delete":
            await schedules.delete(name)
            return f"Schedule {name} is deleted."
        await (schedules.pause(name) if verb == "pause" else schedules.resume(name))
        return f"Schedule {name} is paused." if verb == "pause" else f"Schedule {name} goes on."


def _described(view: OperationView) -> str:
    done = DONE.get(view.verb, view.verb)
    if not view.is_over:
        return f"Under way: {view.count:,} of {view.total:,} jobs are {done}; it goes on by itself."
    text = f"{view.count:,} {'job is' if view.count == 1 else 'jobs are'} {done}."
    return text if not view.left else f"{text} {view.left:,} could not be: {view.why}"


def _text(form: Any, name: str) -> str:
    value = form.get(name, "")
    if not isinstance(value, str):
        raise InvalidJob(f"{name} is a file")
    return value


def _one_of(form: Any, name: str, *known: str) -> str:
    value = _text(form, name)
    if value not in known:
        raise InvalidJob(f"{name} is none of {', '.join(known)}")
    return value
