"""What handles of jobs and flows ask of their client (`rota.client.calls.handle.Source`, `FlowSource`): the same of
both clients, for code with an event loop and without."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..calls.watching import Watch
from ..model import ResultEntry
from ..wire.views import EventsPage, FlowDone, FlowView, JobView, LogView
from . import flows
from .engine import Engine
from .flows import Flow
from .operations import Cancelled
from .requests import connection, flow_entries, page

T = TypeVar("T")


class Answers:
    """Methods of `Client` and `AsyncClient`. Those that begin with `a` are for coroutines."""

    def _run(self, make: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Carry it out where the engine is, and wait for it on this thread."""
        raise NotImplementedError

    async def _arun(self, make: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        raise NotImplementedError

    # of jobs

    def job(self, job_id: str) -> JobView:
        """Where a job is, and why it waits there. Raises `JobUnknown`."""
        return self._run(lambda engine: engine.transport.job(job_id))

    async def ajob(self, job_id: str) -> JobView:
        return await self._arun(lambda engine: engine.transport.job(job_id))

    def log(self, job_id: str) -> LogView:
        """What is kept of a job's log."""
        return self._run(lambda engine: page(engine, f"/v1/jobs/{job_id}/log", LogView))

    async def alog(self, job_id: str) -> LogView:
        return await self._arun(lambda engine: page(engine, f"/v1/jobs/{job_id}/log", LogView))

    def news(self, watch: Watch) -> EventsPage:
        """What `JobHandle.events` stands on."""
        return self._run(lambda engine: connection(engine).news(watch))

    async def anews(self, watch: Watch) -> EventsPage:
        return await self._arun(lambda engine: connection(engine).news(watch))

    def cancel_job(self, job_id: str) -> str:
        return self._run(lambda engine: _cancel(engine, job_id)).outcome

    async def acancel_job(self, job_id: str) -> str:
        return (await self._arun(lambda engine: _cancel(engine, job_id))).outcome

    # of flows

    def flow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView:
        return self._run(lambda engine: page(engine, flows.view_path(flow_id, few, wait_s), FlowView))

    async def aflow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView:
        return await self._arun(lambda engine: page(engine, flows.view_path(flow_id, few, wait_s), FlowView))

    def flow_entries(self, flow_id: str) -> dict[str, ResultEntry]:
        return self._run(lambda engine: flow_entries(engine, flow_id))

    async def aflow_entries(self, flow_id: str) -> dict[str, ResultEntry]:
        return await self._arun(lambda engine: flow_entries(engine, flow_id))

    def flow_deed(self, flow_id: str, verb: str) -> FlowDone:
        return self._run(lambda engine: engine.transport.post(f"/v1/flows/{flow_id}/{verb}", {}, FlowDone))

    async def aflow_deed(self, flow_id: str, verb: str) -> FlowDone:
        return await self._arun(lambda engine: engine.transport.post(f"/v1/flows/{flow_id}/{verb}", {}, FlowDone))

    def store_flow(self, flow: Flow) -> None:
        self._run(flow.send)

    async def astore_flow(self, flow: Flow) -> None:
        await self._arun(flow.send)


def _cancel(engine: Engine, job_id: str) -> Coroutine[Any, Any, Cancelled]:
    return engine.transport.post(f"/v1/jobs/{job_id}/cancel", {}, Cancelled)
