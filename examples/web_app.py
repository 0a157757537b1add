"""A web application that enqueues: the request returns at once, the work is done by a node.

    rota dev --app quickstart       # in this folder
    python web_app.py               # in another terminal
    curl -d 'every job ends somewhere' http://127.0.0.1:8080/count      # -> {"id": "k3f9q2m7xa5t_0000001f_0"}
    curl http://127.0.0.1:8080/count/k3f9q2m7xa5t_0000001f_0            # -> {"words": 4}
"""

import argparse

from aiohttp import web
from quickstart import word_count

import rota

CLIENT = web.AppKey("client", rota.AsyncClient)


async def count(request: web.Request) -> web.Response:
    job = await request.app[CLIENT].enqueue(word_count, await request.text())
    return web.json_response({"id": job.id}, status=202)


async def outcome(request: web.Request) -> web.Response:
    job = request.app[CLIENT].handle(request.match_info["id"])
    try:
        return web.json_response({"words": await job.aresult(timeout=5)})
    except rota.ResultTimeout:
        return web.json_response({"state": "not yet"}, status=202)
    except rota.JobUnknown:
        raise web.HTTPNotFound from None
    except rota.JobFailed as error:
        return web.json_response({"error": error.error}, status=500)


async def with_client(app: web.Application):
    """One client for the application's whole life; its requests share a connection and travel together."""
    async with rota.AsyncClient() as client:
        app[CLIENT] = client
        yield


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(with_client)
    app.add_routes([web.post("/count", count), web.get("/count/{id}", outcome)])
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8080)
    web.run_app(make_app(), host="127.0.0.1", port=parser.parse_args().port)
