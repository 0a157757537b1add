"""The flows of the port: make one from any language, list, look at, cancel, retry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from rota.client.api.flows import WHOLE_MAX, normal_id
from rota.client.calls.graphs import FlowPart, pack
from rota.client.errors import InvalidJob, RotaError
from rota.client.ids import Names, is_name, job_id
from rota.client.model import Enqueue, FlowTerms, Seconds

from .answers import HEADERS, json_page, limit_of, wait_s
from .service import NodeService
from .verbs import read

LISTED_MAX = 1_000
JOBS_MAX = 1_000
"""Jobs of one flow that is made over HTTP."""


class NewFlow(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /v1/flows` takes. A job is as `POST /v1/jobs` takes it, with a `ref` by which others name it in their
    `after`."""

    name: str
    jobs: Annotated[list[dict[str, msgspec.Raw]], Meta(max_length=JOBS_MAX)]
    keep_s: Seconds = 3600.0


Make = Callable[[str, bytes, FlowTerms, dict[str, str]], Awaitable[Enqueue]]
"""A bundle of its name, a job in JSON, and the ids of the jobs that it may name."""


class FlowPages:
    """Handlers."""

    def __init__(self, service: NodeService, make: Make) -> None:
        self._service = service
        self._make = make

    async def all(self, request: web.Request) -> web.Response:
        limit = limit_of(request, LISTED_MAX)
        name, after = request.query.get("name", ""), request.query.get("after", "")
        return json_page(await self._service.flows.page(name, limit, after))

    async def get(self, request: web.Request) -> web.Response:
        """`?few=1`: without its jobs but for the last ones; `?wait=`: so many seconds for its end."""
        few = request.query.get("few") == "1"
        return json_page(await self._service.flows.view(_flow(request), parts=not few, wait_s=wait_s(request)))

    async def results(self, request: web.Request) -> web.Response:
        """As they are stored: whoever reads them checks their signatures."""
        page = await self._service.flows.results(_flow(request), request.query.get("after", ""))
        return web.Response(
            body=msgspec.msgpack.encode(page), content_type="application/octet-stream", headers=HEADERS
        )

    async def cancel(self, request: web.Request) -> web.Response:
        return json_page(await self._service.flow_deeds.cancel(_flow(request)))

    async def retry(self, request: web.Request) -> web.Response:
        return json_page(await self._service.flow_deeds.retry(_flow(request)))

    async def make(self, request: web.Request) -> web.Response:
        new = await read(request, NewFlow)
        if not is_name(new.name):
            raise InvalidJob(f"{new.name!r:.80} is not a valid name of a flow")
        if not new.jobs:
            raise InvalidJob("a flow has at least one job")
        names = Names()
        flow = names.next()
        bundles, ids = await self._bundles(new, flow, names)
        for part in _frames(bundles):
            for answer in await self._service.enqueue(part, 0):
                if isinstance(answer, RotaError):
                    raise answer
        return json_page(
            {"id": flow, "jobs": [ids[number] for number in range(len(bundles))]}, 201,
            {"Location": f"/v1/flows/{flow}"},
        )

    async def _bundles(self, new: NewFlow, flow: str, names: Names) -> tuple[list[Enqueue], dict[int, str]]:
        """One for each job; the last one with the graph."""
        by_ref: dict[str, str] = {}
        ids: dict[int, str] = {}
        bundles: list[Enqueue] = []
        parts: list[FlowPart] = []
        whole, last = len(new.jobs) <= WHOLE_MAX, len(new.jobs) - 1
        for number, new_job in enumerate(new.jobs):
            ref, bundle = _ref(new_job, number), names.next()
            terms = FlowTerms(
                flow, flow, "whole" if whole else "last" if number == last else "more" if number else "first",
            )
            made = await self._make(bundle, msgspec.json.encode(new_job), terms, by_ref)
            assert made.terms is not None
            parts.append(FlowPart(
                bundle, made.task, made.queue, 1, tuple((one.bundle, one.jobs) for one in made.terms.after),
                made.terms.on_upstream,
            ))
            if number == last:
                terms = msgspec.structs.replace(
                    terms, name=new.name, keep_s=new.keep_s, jobs=len(parts), graph=pack(parts)
                )
                made = msgspec.structs.replace(made, terms=msgspec.structs.replace(made.terms, flow=terms))
            bundles.append(made)
            ids[number] = job_id(bundle, 0)
            if ref:
                if ref in by_ref:
                    raise InvalidJob(f"two jobs of the flow have the ref {ref!r:.80}")
                by_ref[ref] = ids[number]
        return bundles, ids


def _frames(bundles: list[Enqueue]) -> list[list[Enqueue]]:
    """Of what is not stored in one transaction, the first and the last come alone."""
    if len(bundles) <= WHOLE_MAX:
        return [bundles]
    return [bundles[:1], bundles[1:-1], bundles[-1:]]


def _ref(new_job: dict[str, msgspec.Raw], number: int) -> str:
    raw = new_job.pop("ref", None)
    ref = msgspec.json.decode(raw) if raw is not None else ""
    if not isinstance(ref, str):
        raise InvalidJob(f"the ref of job {number} of the flow is no text")
    return ref


def _flow(request: web.Request) -> str:
    return normal_id(request.match_info["flow"])
